"""The device time that explanations in progress still need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from xai_sidecar.engine.deadlines import Commitment
from xai_sidecar.engine.job import Job
from xai_sidecar.explainers.base import Saliency
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.plan import ExplanationPlan

_RETRY_SECONDS = (0.1, 3600.0)


@dataclass(eq=False)
class ExplanationLoad:
    """What an explanation of a request still needs until it can be complete, over all pictures.

    Attributes:
        plan: The explanation.
        unstarted: Number of pictures for which it has not started.
        jobs: Its computations that have, each with its plan: where the server chooses the explainer, it is another one.
        by: When it is promised to be done, on the clock of `time.monotonic`; infinite where nothing is promised.
    """

    plan: ExplanationPlan
    unstarted: int
    jobs: list[tuple[Job[Saliency], ExplanationPlan]] = field(default_factory=list)
    by: float = float("inf")

    @staticmethod
    def passes(plan: ExplanationPlan) -> int:
        """Passes that one picture takes at least until the explanation can be complete."""
        return plan.counts.least

    def left(self) -> Iterator[tuple[ExplanationPlan, int, int]]:
        """For each picture that has passes left to run: the plan, these passes, and how many have been run."""
        for job, plan in self.jobs:
            if not job.done() and job.pass_count < self.passes(plan):
                yield plan, self.passes(plan) - job.pass_count, job.pass_count
        for _ in range(self.unstarted):
            yield self.plan, self.passes(self.plan), 0

    def seconds(self, costs: ExplanationCosts) -> list[float]:
        """Estimated seconds left for each picture that has any, with all that comes on top of passes."""
        return [costs.alone(plan.explainer.name, plan.kind, count) for plan, count, _ in self.left()]

    def commitments(self, costs: ExplanationCosts) -> list[Commitment]:
        """What is left of its promises beside the current rate of predictions; none where nothing is promised."""
        return [self._commitment(costs, *each) for each in self.left()] if self.by < float("inf") else []

    def _commitment(self, costs: ExplanationCosts, plan: ExplanationPlan, count: int, done: int) -> Commitment:
        first = min(count, max(0, plan.counts.first - done))
        seconds = costs.beside_predictions(costs.alone(plan.explainer.name, plan.kind, count))
        return Commitment(self.by, seconds, seconds * first / count)


class FirstMapLoad(ExplanationLoad):
    """What an explanation with a budget still needs until its first map."""

    @staticmethod
    def passes(plan: ExplanationPlan) -> int:
        """Passes that one picture takes until the first map."""
        return plan.counts.first


L = TypeVar("L", bound=ExplanationLoad)


@dataclass(frozen=True)
class Entitlement(Generic[L]):
    """What a caller is entitled to beside others: an even share of the device, whatever these ask for.

    Attributes:
        own: Its explanations in progress.
        others: Seconds that the explanations of each other caller still take; infinite where nobody knows.
    """

    own: Sequence[L] = ()
    others: Sequence[float] = ()


def retry_after(seconds: float) -> float:
    """Seconds after which to suggest a retry where capacity is expected in so many: within bounds of 0.1 and 3600."""
    low, high = _RETRY_SECONDS
    return min(max(seconds, low), high)
