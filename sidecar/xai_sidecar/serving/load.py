"""What explanations in progress still put on the device."""

from __future__ import annotations

from dataclasses import dataclass, field

from xai_sidecar.engine.job import Job
from xai_sidecar.explainers.base import Saliency
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.plan import ExplanationPlan

_RETRY_SECONDS = (0.1, 30.0)


@dataclass(eq=False)
class ExplanationLoad:
    """What one explanation of a request puts on the device until it may be complete, picture by picture.

    Attributes:
        plan: The explanation wanted.
        unbegun: Pictures of which it is not begun.
        jobs: Those that are.
    """

    plan: ExplanationPlan
    unbegun: int
    jobs: list[Job[Saliency]] = field(default_factory=list)

    @property
    def pass_count(self) -> int:
        """The passes of one picture that count."""
        return self.plan.counts.least

    def rows(self) -> list[int]:
        """The passes that are left to do, of each picture."""
        begun = [0 if job.done() else max(0, self.pass_count - job.pass_count) for job in self.jobs]
        return begun + [self.pass_count] * self.unbegun

    def seconds(self, costs: ExplanationCosts) -> list[float]:
        """What these passes take with all that belongs to them, of each picture that has any left."""
        return [costs.alone(self.plan.explainer.name, self.plan.kind, count) for count in self.rows() if count]


class FirstMapLoad(ExplanationLoad):
    """The same until there is a map, of an explanation with a budget."""

    @property
    def pass_count(self) -> int:
        """The passes of one picture that count."""
        return self.plan.counts.first


def retry_after(seconds: float) -> float:
    """When a caller should come back for whom there is room in so many seconds: neither at once nor never."""
    low, high = _RETRY_SECONDS
    return min(max(seconds, low), high)
