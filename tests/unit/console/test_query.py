"""Filters stand in the URL, and are read from it again, whatever else stands there."""

from dataclasses import fields, replace

import hypothesis
import hypothesis.strategies as st
import pytest

from xai_console.page import address
from xai_console.query import MAP_STATUSES, ORDERS, OUTCOMES, Query, read_query
from xai_console.query_filter import filter_of, order_of

NUMBERS = st.none() | st.integers(-1000, 1000).map(lambda number: number / 8)
CLASSES = st.lists(st.integers(0, 999), max_size=3, unique=True).map(tuple)
NAMES = st.sampled_from(["", "rise", "control/random", "faithfulness/srg"])
QUERIES = st.builds(
    Query,
    predicted=CLASSES,
    true=CLASSES,
    outcome=st.lists(st.sampled_from(OUTCOMES), unique=True).map(tuple),
    status=st.lists(st.sampled_from(MAP_STATUSES), unique=True).map(tuple),
    order=st.sampled_from(ORDERS),
    **dict.fromkeys(("pmin", "pmax", "oodmin", "oodmax", "smin", "smax", "hours"), NUMBERS),
    **dict.fromkeys(("of", "explainer", "metric", "maps"), NAMES),
)


@hypothesis.given(QUERIES)
def test_what_the_url_says_is_read_again(query):
    state = {name: text for name, text in query.state().items() if text is not None}
    assert read_query(state) == query
    assert set(query.state()) == {field.name for field in fields(Query)}  # what is not chosen is taken out of the URL


def test_the_default_leaves_the_url_alone():
    assert set(Query().state().values()) == {None}
    assert address("/", {}) == "/"


@pytest.mark.parametrize(
    "state",
    [{"pmin": "much"}, {"order": "by_taste"}, {"outcome": "maybe,,"}, {"predicted": "-1,x,"}, {"hours": "nan"},
     {"smin": "inf"}, {"nothing": "1"}],
)  # fmt: skip
def test_what_cannot_be_read_is_left_out(state):
    assert read_query(state) == Query()


def test_a_filter_has_all_that_was_chosen():
    query = Query((1,), (2, 3), ("unknown",), 0.1, 0.9, 5.0, 50.0, ("ok",), "rise", "gradcam", "srg", 0.2, 0.8)
    where = filter_of(query)
    assert (where.predicted, where.true, where.outcomes) == ((1,), (2, 3), ("unknown",))
    assert (where.min_probability, where.max_probability) == (0.1, 0.9)
    assert (where.min_ood_percentile, where.max_ood_percentile) == (5.0, 50.0)
    assert (where.map_statuses, where.map_explainer) == (("ok",), "rise")
    score = where.score
    assert (score.explainer, score.metric, score.minimum, score.maximum) == ("gradcam", "srg", 0.2, 0.8)
    assert where.start is None


def test_an_order_by_score_waits_for_whose_score():
    query = Query(order="worst_score_first")
    assert order_of(query) == ("newest_first", None)
    assert order_of(replace(query, explainer="rise", metric="srg")) == ("worst_score_first", ("rise", "srg"))
    assert order_of(Query(order="outliers_first", explainer="rise", metric="srg")) == ("outliers_first", None)
