"""Filters stand in the URL, and are read from it again, whatever else stands there."""

from dataclasses import fields, replace

import hypothesis
import hypothesis.strategies as st
import pytest

from xai_console.page import address
from xai_console.query import MAP_STATUSES, ORDERS, OUTCOMES, Query, read_query
from xai_console.query_filter import filter_of, order_of

NUMBERS = st.none() | st.integers(-1000, 1000).map(lambda number: number / 8)
HOURS = st.integers(1, 8 * 10**6).map(lambda number: number / 8)
TIMES = st.integers(0, 250 * 10**9).map(float)
SPANS = (
    st.fixed_dictionaries({}, optional={"start": TIMES, "end": TIMES}) | st.fixed_dictionaries({"hours": HOURS})
)  # fmt: skip
CLASSES = st.lists(st.integers(0, 999), max_size=3, unique=True).map(tuple)
NAMES = st.sampled_from(["", "rise", "control/random", "faithfulness/srg"])
QUERIES = st.builds(
    Query,
    predicted=CLASSES,
    true=CLASSES,
    outcome=st.lists(st.sampled_from(OUTCOMES), unique=True).map(tuple),
    status=st.lists(st.sampled_from(MAP_STATUSES), unique=True).map(tuple),
    order=st.sampled_from(ORDERS),
    **dict.fromkeys(("pmin", "pmax", "oodmin", "oodmax", "smin", "smax"), NUMBERS),
    **dict.fromkeys(("of", "explainer", "metric", "maps"), NAMES),
)


@hypothesis.given(QUERIES, SPANS)
def test_what_the_url_says_is_read_again(query, span):
    query = replace(query, **span)
    state = {name: text for name, text in query.state().items() if text is not None}
    assert read_query(state) == query
    assert set(query.state()) == {field.name for field in fields(Query)}  # what is not chosen is taken out of the URL


def test_the_default_leaves_the_url_alone():
    assert set(Query().state().values()) == {None}
    assert address("/", {}) == "/"


@pytest.mark.parametrize(
    "state",
    [{"pmin": "much"}, {"order": "by_taste"}, {"outcome": "maybe,,"}, {"predicted": "-1,x,"}, {"hours": "nan"},
     {"smin": "inf"}, {"nothing": "1"}, {"hours": "-5"}, {"hours": "0"}, {"hours": "1e9"}, {"start": "yesterday"},
     {"start": "2026-02-30T08:00Z"}, {"end": "2026-03-01T08:00"}, {"end": "1900-01-01T00:00Z"},
     {"end": "9999-12-31T23:59-23:59"}],
)  # fmt: skip
def test_what_cannot_be_read_is_left_out(state):
    assert read_query(state) == Query()


@pytest.mark.parametrize(
    ("text", "seconds", "written"),
    [
        ("2026-03-01T08:00Z", 1772352000.0, "2026-03-01T08:00Z"),
        ("2026-03-01T09:30:00+01:30", 1772352000.0, "2026-03-01T08:00Z"),
        ("2026-03-01T08:00:05z", 1772352005.0, "2026-03-01T08:00:05Z"),
    ],
)
def test_a_time_is_one_for_all_who_read_the_url(text, seconds, written):
    query = read_query({"start": text})
    assert query.start == seconds
    assert query.state()["start"] == written


def test_a_beginning_takes_the_place_of_hours_past():
    query = read_query({"hours": "5", "start": "2026-03-01T08:00Z", "end": "2026-03-01T09:00Z"})
    assert (query.hours, query.start, query.end) == (None, 1772352000.0, 1772355600.0)
    where = filter_of(query, now=2e9)
    assert (where.start, where.end) == (1772352000.0, 1772355600.0)
    where = filter_of(read_query({"hours": "5", "end": "soon"}), now=2e9)
    assert (where.start, where.end) == (2e9 - 5 * 3600, None)


def test_a_filter_has_all_that_was_chosen():
    query = Query((1,), (2, 3), ("unknown",), 0.1, 0.9, 5.0, 50.0, ("ok",), "rise", "gradcam", "srg", 0.2, 0.8)
    where = filter_of(query, 10_000.0)
    assert (where.predicted, where.true, where.outcomes) == ((1,), (2, 3), ("unknown",))
    assert (where.min_probability, where.max_probability) == (0.1, 0.9)
    assert (where.min_ood_percentile, where.max_ood_percentile) == (5.0, 50.0)
    assert (where.map_statuses, where.map_explainer) == (("ok",), "rise")
    score = where.score
    assert (score.explainer, score.metric, score.minimum, score.maximum) == ("gradcam", "srg", 0.2, 0.8)
    assert where.start is where.end is None
    # The same for all pages of a list, whose tokens are of one filter, however long the viewer takes.
    assert filter_of(replace(query, hours=2.0), 10_000.0).start == 2_800.0


def test_an_order_by_score_waits_for_whose_score():
    query = Query(order="worst_score_first")
    assert order_of(query) == ("newest_first", None)
    assert order_of(replace(query, explainer="rise", metric="srg")) == ("worst_score_first", ("rise", "srg"))
    assert order_of(Query(order="outliers_first", explainer="rise", metric="srg")) == ("outliers_first", None)
