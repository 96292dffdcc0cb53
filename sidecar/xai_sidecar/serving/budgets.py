"""Whether a budget will buy a map as things are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xai_sidecar.errors import OverloadedError
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.load import FirstMapLoad, retry_after
from xai_sidecar.serving.plan import ExplanationPlan, in_units


def check_budgets(
    costs: ExplanationCosts,
    plans: Sequence[ExplanationPlan],
    wanted: Sequence[FirstMapLoad],
    others: Iterable[FirstMapLoad],
) -> None:
    """Refuses a budget that would end before there is a map, as far as can be told.

    First maps go before everything else of the explanations, one after the other. On a device that explains nothing
    else, every budget is taken that would do at the pace measured at start: the pace of late may be long past.

    Args:
        costs: Knows what explanations take, and what runs.
        plans: The explanations of the request.
        wanted: Those with a budget.
        others: The same of other requests.

    Raises:
        OverloadedError: It would end too soon, with what the first map takes now.
    """
    if not wanted or not costs.explaining:
        return
    ahead = sum(seconds for each in others for seconds in each.seconds(costs))
    for each in sorted(wanted, key=lambda each: each.plan.budget_seconds or 0.0):
        plan, budget = each.plan, each.plan.budget_seconds
        ahead += sum(each.seconds(costs))
        # The batch in flight comes first.
        expected = costs.beside_predictions(costs.alone(plan.explainer.name, plan.kind, 1) + ahead)
        if budget is not None and plan.condition.always and expected > budget:
            raise OverloadedError(
                f"As things are, the first map of {plan.name} takes about {in_units(expected)}, longer than its budget "
                f"of {in_units(budget)}. Allow it more time, or try again later.",
                field=f"explanations[{list(plans).index(plan)}].budget",
                retry_seconds=retry_after(expected - budget),
            )
