"""Every filter and order lists what a search through all samples finds, on every page."""

import math

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite

from xai_sidecar.errors import InvalidRequestError
from xai_sidecar.evaluator.reading import Extras, Order, SampleFilter, ScoreRange, pages
from xai_sidecar.evaluator.reading.filters import source
from xai_sidecar.evaluator.reading.orders import By
from xai_sidecar.evaluator.reading.pages import load_page
from xai_sidecar.evaluator.records import SampleKey, SampleState
from xai_sidecar.evaluator.store import Outcome
from xai_sidecar.evaluator.store.tables import samples
from xai_sidecar.explainers.base import MapStatus

# What conftest.py made.
CLASSES, TIMES = 6, (1000, 1040)
EXPLAINERS = ("gradcam", "rise", "control/random")
METRICS = ("faithfulness/srg", "faithfulness/deletion_auc")
PREDICTED = Outcome.UNKNOWN | Outcome.TRUE_POSITIVE | Outcome.FALSE_POSITIVE

few = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

classes = st.lists(st.integers(0, CLASSES - 1), max_size=3).map(tuple)
scores = st.builds(
    ScoreRange,
    st.sampled_from(EXPLAINERS),
    st.sampled_from(METRICS),
    st.none() | st.integers(0, 8).map(lambda each: each / 8),
    st.none() | st.integers(0, 8).map(lambda each: each / 8),
)
share = st.none() | st.integers(0, 10).map(lambda each: each / 10)
percentile = st.none() | st.integers(0, 100).map(float)
moment = st.none() | st.integers(*TIMES).map(float)


@pytest.fixture(autouse=True)
def a_page_is_looked_for_among_few_first(monkeypatch):
    """Some are found among these, some are not."""
    monkeypatch.setattr(pages, "AMONG", 12)


def rarely(strategy, otherwise):
    """A part of a filter that most filters do not have: of all parts together, nothing would be left."""
    return st.one_of(st.just(otherwise), st.just(otherwise), strategy)


filters = st.builds(
    SampleFilter,
    model_version=st.sampled_from([None, "now", "before"]),
    predicted=rarely(classes, ()),
    true=rarely(classes, ()),
    outcomes=rarely(st.integers(0, 15).map(Outcome), Outcome(0)),
    min_probability=rarely(share, None),
    max_probability=rarely(share, None),
    min_ood_percentile=rarely(percentile, None),
    max_ood_percentile=rarely(percentile, None),
    map_statuses=rarely(st.frozensets(st.sampled_from(MapStatus), max_size=3), frozenset()),
    map_explainer=rarely(st.sampled_from(EXPLAINERS), ""),
    score=rarely(scores, None),
    start=rarely(moment, None),
    end=rarely(moment, None),
    states=rarely(st.frozensets(st.sampled_from([SampleState.PENDING, SampleState.SCORED])), frozenset()),
    request_id=rarely(st.integers(0, 40).map("request-{}".format), ""),
)
orders = st.one_of(
    st.builds(Order, st.sampled_from([By.TIME, By.PROBABILITY, By.OOD]), st.booleans()),
    st.builds(
        lambda explainer, metric, worst_first: Order.by_score(explainer, metric, worst_first=worst_first),
        st.sampled_from(EXPLAINERS),
        st.sampled_from(METRICS),
        st.booleans(),
    ),
)


def within(value, low, high):
    """Whether a number is known, where it matters, and within bounds."""
    if low is None and high is None:
        return True
    return (
        value is not None
        and not math.isnan(value)
        and (low is None or value >= low)
        and (high is None or value <= high)
    )


def matches(kept, where):
    """Whether a filter lets a sample through, from its description alone."""
    record, outcomes = kept.record, kept.outcomes
    named = {*where.predicted, *where.true}
    of_maps = (
        {name: status for name, status in kept.statuses.items() if name == where.map_explainer}
        if where.map_explainer
        else {name: status for name, status in kept.statuses.items() if not name.startswith("control/")}
    )
    percent = record.ood[1] if record.ood else None
    states = set(outcomes.values()) or {Outcome.UNKNOWN}
    return all(
        (
            where.model_version in (None, record.model_version),
            not where.predicted or set(where.predicted) & set(record.positives),
            not where.true or set(where.true) & set(kept.true),
            not where.outcomes
            or (any(outcomes.get(each, 0) & where.outcomes for each in named) if named
                else any(each & where.outcomes for each in states)),
            within(record.probability, where.min_probability, where.max_probability),
            within(percent, where.min_ood_percentile, where.max_ood_percentile),
            not where.map_explainer or of_maps,
            not where.map_statuses or where.map_statuses & set(of_maps.values()),
            where.score is None
            or within(
                kept.scores.get((where.score.explainer, where.score.metric)),
                -1 if where.score.minimum is None else where.score.minimum,
                where.score.maximum,
            ),
            where.start is None or record.time >= where.start,
            where.end is None or record.time < where.end,
            not where.states or record.state in where.states,
            where.request_id in ("", record.key.request_id),
        )
    )  # fmt: skip


def expected(filled, where, order):
    """The keys that a list has, in order."""
    numbered = [(number, kept) for number, kept in enumerate(filled.kept) if matches(kept, where)]

    def value(kept):
        if order.by is By.TIME:
            return kept.record.time
        if order.by is By.SCORE:
            return kept.scores.get((order.explainer, order.metric))
        if order.by is By.OOD:
            return kept.record.ood[1] if kept.record.ood else None
        return None if math.isnan(kept.record.probability) else kept.record.probability

    if order.by is By.SCORE:
        numbered = [(number, kept) for number, kept in numbered if value(kept) is not None]
    sign = -1 if order.descending else 1
    newest = sign if order.by is By.TIME else -1

    def place(item):
        number, kept = item
        known = value(kept)
        return (known is None, 0 if known is None else sign * known, newest * kept.record.time, newest * number)

    return [kept.record.key for _, kept in sorted(numbered, key=place)]


def listed(filled, where, order, size):
    """The keys on all pages, and the count that the first one tells."""
    found, token, total = [], "", None
    while True:
        page = filled.reader.page(where, order, size, token, with_total=not token)
        total = page.total if total is None else total
        assert len(page.samples) <= size
        assert not page.next_token or len(page.samples) == size
        found += [view.record.key for view in page.samples]
        token = page.next_token
        if not token:
            return found, total


@few
@given(where=filters, order=orders, size=st.sampled_from([3, 9, 200]))
def test_of_single_labels(filled, where, order, size):
    where = SampleFilter(**{**vars(where), "single_label": True})
    right = expected(filled, where, order)
    found, total = listed(filled, where, order, size)
    assert found == right
    if order.by is not By.SCORE:
        assert total == len(right)


@few
@given(where=filters, order=orders)
def test_of_several_labels(filled_multi, where, order):
    assert listed(filled_multi, where, order, 200)[0] == expected(filled_multi, where, order)


@few
@example(where=SampleFilter(predicted=(0,), outcomes=Outcome.FALSE_NEGATIVE))  # which no predicted class can be
@given(where=filters)
def test_what_is_quicker_for_single_labels_finds_the_same(filled, where):
    quick = SampleFilter(**{**vars(where), "single_label": True})
    found = [[view.record.key for view in filled.reader.page(each, Order(), 200).samples] for each in (where, quick)]
    assert found[0] == found[1]


def test_the_metrics_direction_says_what_is_worst():
    assert not Order.by_score("rise", "faithfulness/srg", worst_first=True).descending  # the higher, the better
    assert Order.by_score("rise", "faithfulness/deletion_auc", worst_first=True).descending
    assert Order.by_score("rise", "faithfulness/deletion_auc", worst_first=False).descending is False


def test_the_score_that_counts_is_shown(filled):
    order = Order.by_score("rise", METRICS[0], worst_first=True)
    by_key = {kept.record.key: kept for kept in filled.kept}
    of_order = filled.reader.page(SampleFilter(score=ScoreRange("gradcam", METRICS[1])), order, 200)
    assert of_order.samples
    assert all(each.score == by_key[each.record.key].scores["rise", METRICS[0]] for each in of_order.samples)
    of_filter = filled.reader.page(SampleFilter(score=ScoreRange("gradcam", METRICS[1], 0.5)), Order(), 200)
    assert all(each.score == by_key[each.record.key].scores["gradcam", METRICS[1]] for each in of_filter.samples)
    assert filled.reader.page(SampleFilter(), Order(), 1).samples[0].score is None


def test_a_row_shows_what_was_put_in(filled):
    by_key = {kept.record.key: kept for kept in filled.kept}
    page = filled.reader.page(SampleFilter(), Order(), 200, extras=Extras(map_of="rise"))
    assert len(page.samples) == len(by_key)
    for view in page.samples:
        kept = by_key[view.record.key]
        named = ("time", "model_version", "target", "positives", "ood", "state", "weight")
        assert [getattr(view.record, name) for name in named] == [getattr(kept.record, name) for name in named]
        assert view.outcomes == kept.outcomes
        of_explainers = {name: status for name, status in kept.statuses.items() if not name.startswith("control/")}
        assert {name: each.status for name, each in view.explained.items()} == of_explainers
        assert {name: each.kept for name, each in view.explained.items()} == {
            name: status.believed for name, status in of_explainers.items()
        }
        assert (view.truth.class_ids if view.truth else ()) == kept.true
        assert (view.small_map is not None) == (of_explainers.get("rise", MapStatus.NOT_FINITE).believed)
        assert view.classes[0].class_id == kept.record.target


@pytest.mark.parametrize(
    "token",
    ["x", "%%%", "W10", "WyJhIl0", "bnVsbA", "eyJhIjoxfQ", "A" * 1000, "WyIwMDAwMDAwMDAwMDAwMDAwIiwxLDIsMyw0XQ"],
)
def test_a_token_that_is_none_is_refused(filled, token):
    with pytest.raises(InvalidRequestError) as caught:
        filled.reader.page(SampleFilter(), Order(), 5, token)
    assert caught.value.field == "page_token"


def test_a_token_of_another_list_is_refused(filled):
    token = filled.reader.page(SampleFilter(), Order(), 5).next_token
    for where, order in ((SampleFilter(min_probability=0.1), Order()), (SampleFilter(), Order(By.PROBABILITY))):
        with pytest.raises(InvalidRequestError, match="another filter"):
            filled.reader.page(where, order, 5, token)


def test_a_token_holds_in_another_process(filled):
    """Sets have another order there."""
    statuses, names = [MapStatus.OK, MapStatus.ALL_ZERO, MapStatus.UNRELIABLE], []
    for order in (statuses, statuses[::-1]):
        chosen = SortedAs(order)
        names.append(filled.reader.page(SampleFilter(map_statuses=chosen), Order(), 5).next_token)
    assert names[0] == names[1] != ""


class SortedAs(frozenset):
    """A set that lists its members in the order that it was made of."""

    def __new__(cls, members):
        made = super().__new__(cls, members)
        made.order = list(members)
        return made

    def __iter__(self):
        return iter(self.order)

    def __repr__(self):
        return f"frozenset({self.order})"


def test_views_are_those_of_the_keys_that_a_filter_lets_through(filled):
    keys = [kept.record.key for kept in filled.kept[:7]] + [SampleKey("nowhere", 0)]
    where = SampleFilter(model_version="now")
    found = filled.reader.views(keys, where, Extras())
    assert set(found) == {kept.record.key for kept in filled.kept[:7] if kept.record.model_version == "now"}
    assert filled.reader.views([], where, Extras()) == {}


def test_who_watches_one_request_has_nothing_read_of_others(filled, monkeypatch):
    keys = [kept.record.key for kept in filled.kept[:7]]
    of_one = SampleFilter(request_id=keys[3].request_id)
    assert {key.request_id for key in filled.reader.views(keys, of_one, Extras())} == {keys[3].request_id}
    others = [key for key in keys if key.request_id != keys[3].request_id]
    monkeypatch.setattr(filled.reader, "_database", None)
    assert filled.reader.views(others, of_one, Extras()) == {}


def test_postgresql_is_asked_for_values_whose_frequency_it_knows():
    where = SampleFilter(outcomes=Outcome.FALSE_POSITIVE | Outcome.FALSE_NEGATIVE)
    asked = {
        dialect: " ".join(str(source(where, None, samples.c.id).compile(dialect=module.dialect())).split())
        for dialect, module in (("sqlite", sqlite), ("postgresql", postgresql))
    }
    assert asked["sqlite"].endswith("WHERE (samples.outcomes & 12) != 0")
    values = [each for each in range(16) if each & 12]
    assert asked["postgresql"].endswith(f"WHERE samples.outcomes IN ({', '.join(map(str, values))})")


@pytest.mark.parametrize("setting", ["max_parallel_workers_per_gather", "random_page_cost"])
def test_postgresql_looks_up_what_a_page_needs(setting, postgres_url, open_store):
    """It would read all of it, with workers; but for this, settings are what they were."""
    store = open_store(postgres_url)

    def value(connection):
        return float(connection.exec_driver_sql(f"SHOW {setting}").scalar())

    with store.database.read() as connection:
        before = value(connection)
        load_page(connection, SampleFilter(), Order(), 5)
        assert value(connection) < before
    with store.database.read() as connection:
        assert value(connection) == before
