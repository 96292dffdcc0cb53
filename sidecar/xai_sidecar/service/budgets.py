"""Whether a budget will buy a map as things are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.job import Job
from xai_sidecar.errors import OverloadedError
from xai_sidecar.explainers.base import Saliency
from xai_sidecar.service.plan import ExplanationPlan, in_units

_RETRY_SECONDS = (0.1, 30.0)


@dataclass(eq=False)
class FirstMap:
    """An explanation with a budget, of which there is no map yet, picture by picture.

    Attributes:
        plan: The explanation wanted.
        unbegun: Pictures of which it is not begun.
        jobs: Those that are.
    """

    plan: ExplanationPlan
    unbegun: int
    jobs: list[Job[Saliency]] = field(default_factory=list)

    def seconds(self, engine: Engine) -> float:
        """Device time to the first map of each picture."""
        first = self.plan.counts.first
        rows = [first - job.pass_count for job in self.jobs if not job.done()] + [first] * self.unbegun
        return sum(engine.seconds(self.plan.kind, count) for count in rows if count > 0)


def check_budgets(
    engine: Engine, plans: Sequence[ExplanationPlan], wanted: Sequence[FirstMap], others: Iterable[FirstMap]
) -> None:
    """Refuses a budget that would end before there is a map, as far as can be told.

    First maps go before everything else of the explanations, one after the other. On a device that explains nothing
    else, every budget is taken that would do at the pace measured at start: the pace of late may be long past.

    Args:
        engine: Knows what passes take, and how much of the device predictions leave.
        plans: The explanations of the request.
        wanted: Those with a budget.
        others: The same of other requests.

    Raises:
        OverloadedError: It would end too soon, with what the first map takes now.
    """
    if not wanted or not engine.explaining:
        return
    ahead = sum(each.seconds(engine) for each in others)
    for each in sorted(wanted, key=lambda each: each.plan.budget_seconds or 0.0):
        plan, budget = each.plan, each.plan.budget_seconds
        ahead += each.seconds(engine)
        # The launch in flight comes first.
        expected = (engine.seconds(plan.kind, 1) + ahead) / engine.explain_share
        if budget is not None and plan.condition.always and expected > budget:
            low, high = _RETRY_SECONDS
            raise OverloadedError(
                f"As things are, the first map of {plan.name} takes about {in_units(expected)}, longer than its budget "
                f"of {in_units(budget)}. Allow it more time, or try again later.",
                field=f"explanations[{list(plans).index(plan)}].budget",
                retry_seconds=min(max(expected - budget, low), high),
            )
