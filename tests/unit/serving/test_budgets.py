"""Whether a budget will buy a map as things are, worked out by hand."""

from types import SimpleNamespace

import pytest

from xai_sidecar.engine.work import Kind
from xai_sidecar.errors import OverloadedError
from xai_sidecar.explainers.base import PassCounts
from xai_sidecar.serving.budgets import check_budgets
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.load import FirstMapLoad
from xai_sidecar.serving.plan import Condition, ExplanationPlan, Targets


class Dispatcher:
    """10 ms a row; runs nothing."""

    def __init__(self, explaining=1, explain_share=1.0):
        self.explaining, self.explain_share = explaining, explain_share

    def explaining_seconds(self, label, kind, row_count):
        return 0.01 * row_count


def plan(budget, first=8, name="rise", **fields):
    counts = PassCounts(first, 1000, 1000)
    explainer = SimpleNamespace(name="rise")
    return ExplanationPlan(
        name, explainer, None, Targets(), Kind("masked_forward"), counts, budget_seconds=budget, **fields
    )


def job(pass_count, done=False):
    return SimpleNamespace(pass_count=pass_count, done=lambda: done)


def check(device, *plans, pictures=1, others=()):
    check_budgets(ExplanationCosts(device), plans, [FirstMapLoad(each, pictures) for each in plans], others)


def test_a_first_map_and_the_launch_before_it():
    """8 rows and 1 are 90 ms."""
    check(Dispatcher(), plan(0.091))
    with pytest.raises(OverloadedError) as caught:
        check(Dispatcher(), plan(0.089))
    assert "the first map of rise takes about 90 ms, longer than its budget of 89 ms" in caught.value.message
    assert caught.value.field == "explanations[0].budget"
    assert caught.value.retry_seconds == 0.1


def test_a_device_that_explains_nothing_else_takes_any():
    check(Dispatcher(explaining=0, explain_share=0.1), plan(0.001))


def test_predictions_take_their_part():
    check(Dispatcher(explain_share=0.25), plan(0.361))
    with pytest.raises(OverloadedError, match="360 ms"):
        check(Dispatcher(explain_share=0.25), plan(0.359))


def test_who_came_before_goes_before():
    """Of others, 8 - 3 rows of one are left, 2 pictures of 8 rows are to come, and two have their maps."""
    others = [FirstMapLoad(plan(9), 2, [(each, plan(9)) for each in (job(3), job(8), job(100), job(2, done=True))])]
    check(Dispatcher(), plan(0.301), others=others)
    with pytest.raises(OverloadedError, match="300 ms"):
        check(Dispatcher(), plan(0.299), others=others)


def test_the_shorter_budget_of_a_request_goes_first_and_every_picture_counts():
    check(Dispatcher(), plan(0.331, name="long"), plan(0.171, name="short"), pictures=2)
    with pytest.raises(OverloadedError, match="of short takes about 170 ms") as caught:
        check(Dispatcher(), plan(9, name="long"), plan(0.169, name="short"), pictures=2)
    assert caught.value.field == "explanations[1].budget"
    with pytest.raises(OverloadedError, match="of long takes about 330 ms") as caught:
        check(Dispatcher(), plan(0.329, name="long"), plan(0.171, name="short"), pictures=2)
    assert caught.value.field == "explanations[0].budget"


def test_what_may_not_be_explained_at_all_is_not_refused():
    check(Dispatcher(), plan(0.001, condition=Condition(top_probability_below=0.5)))
