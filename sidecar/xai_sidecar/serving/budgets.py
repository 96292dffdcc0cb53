"""Whether a budget is long enough for a first map beside what runs now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xai_sidecar.errors import OverloadedError
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.load import Entitlement, FirstMapLoad, retry_after
from xai_sidecar.serving.plan import ExplanationPlan, in_units


def check_budgets(
    costs: ExplanationCosts,
    plans: Sequence[ExplanationPlan],
    wanted: Sequence[FirstMapLoad],
    others: Iterable[FirstMapLoad],
    entitled: Entitlement[FirstMapLoad] | None = None,
) -> None:
    """Refuses a budget that is expected to end before the first map.

    First maps of explanations with a budget have priority over other explanations of their caller and are made one
    after the other.
    Where nothing else is explained now, recent costs say little: `plan_explanation` has compared the budget with the
    costs measured at start.

    Args:
        costs: Estimates how long explanations take, and knows what runs.
        plans: The explanations of the request.
        wanted: Those of them with a budget.
        others: Explanations with a budget of other requests in progress.
        entitled: What the caller is entitled to, where others have explanations in progress.

    Raises:
        OverloadedError: A budget would end too soon; `field` is its path in the request.
    """
    if not wanted or not costs.explaining:
        return
    entitled = entitled or Entitlement()
    ahead = _seconds(costs, others)
    own = _seconds(costs, entitled.own)
    for each in sorted(wanted, key=lambda each: each.plan.budget_seconds or 0.0):
        plan, budget = each.plan, each.plan.budget_seconds
        ahead += sum(each.seconds(costs))
        own += sum(each.seconds(costs))
        waits = min(ahead, (len(entitled.others) + 1) * own) if entitled.others else ahead
        # The batch in flight comes first.
        expected = costs.beside_predictions(costs.alone(plan.explainer.name, plan.kind, 1) + waits)
        if budget is not None and plan.condition.always and expected > budget:
            raise OverloadedError(
                f"As things are, the first map of {plan.name} takes about {in_units(expected)}, longer than its budget "
                f"of {in_units(budget)}. Allow it more time, or try again later.",
                field=f"explanations[{list(plans).index(plan)}].budget",
                retry_seconds=retry_after(expected - budget),
            )


def _seconds(costs: ExplanationCosts, loads: Iterable[FirstMapLoad]) -> float:
    return sum(seconds for each in loads for seconds in each.seconds(costs))
