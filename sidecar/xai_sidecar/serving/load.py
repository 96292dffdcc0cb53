"""The device time that explanations in progress still need."""

from __future__ import annotations

from dataclasses import dataclass, field

from xai_sidecar.engine.job import Job
from xai_sidecar.explainers.base import Saliency
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.plan import ExplanationPlan

_RETRY_SECONDS = (0.1, 30.0)


@dataclass(eq=False)
class ExplanationLoad:
    """What an explanation of a request still needs until it can be complete, over all pictures.

    Attributes:
        plan: The explanation.
        unstarted: Number of pictures for which it has not started.
        jobs: Its computations that have.
    """

    plan: ExplanationPlan
    unstarted: int
    jobs: list[Job[Saliency]] = field(default_factory=list)

    @property
    def pass_count(self) -> int:
        """Passes that one picture takes at least until the explanation can be complete."""
        return self.plan.counts.least

    def rows(self) -> list[int]:
        """Passes left to run, for each picture."""
        begun = [0 if job.done() else max(0, self.pass_count - job.pass_count) for job in self.jobs]
        return begun + [self.pass_count] * self.unstarted

    def seconds(self, costs: ExplanationCosts) -> list[float]:
        """Estimated seconds left for each picture that has any, the arithmetic between passes included."""
        return [costs.alone(self.plan.explainer.name, self.plan.kind, count) for count in self.rows() if count]


class FirstMapLoad(ExplanationLoad):
    """What an explanation with a budget still needs until its first map."""

    @property
    def pass_count(self) -> int:
        """Passes that one picture takes until the first map."""
        return self.plan.counts.first


def retry_after(seconds: float) -> float:
    """Seconds after which to suggest a retry where capacity is expected in so many: within bounds of 0.1 and 30."""
    low, high = _RETRY_SECONDS
    return min(max(seconds, low), high)
