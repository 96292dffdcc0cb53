"""Which samples are listed, as conditions of SQL."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Connection, Select, or_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.visitors import InternalTraversal

from xai_sidecar.evaluator.reading.orders import JOINED, ORDERED, By, Order
from xai_sidecar.evaluator.records import SampleState
from xai_sidecar.evaluator.store.details import STATUS_BITS
from xai_sidecar.evaluator.store.outcomes import Outcome
from xai_sidecar.evaluator.store.rows import code_of
from xai_sidecar.evaluator.store.tables import class_outcomes, explained, samples, scores
from xai_sidecar.explainers.base import MapStatus

NO_OUTCOME = Outcome(0)
_PREDICTED = Outcome.UNKNOWN | Outcome.TRUE_POSITIVE | Outcome.FALSE_POSITIVE
_ALL_OUTCOMES = sum(int(each) for each in Outcome)
_TRUE = Outcome.TRUE_POSITIVE | Outcome.FALSE_NEGATIVE


@dataclass(frozen=True)
class ScoreRange:
    """A range of scores of one explainer, or control, by one metric; bounds included, None for no bound."""

    explainer: str
    metric: str
    minimum: float | None = None
    maximum: float | None = None

    @property
    def pair(self) -> tuple[str, str]:
        """The explainer and the metric."""
        return self.explainer, self.metric


@dataclass(frozen=True)
class SampleFilter:
    """Which samples are meant: those for which everything that is set holds.

    Attributes:
        model_version: Version of the model that predicted; None for any.
        single_label: Whether only the most probable class counts as predicted, of all samples: then it takes less time.
        predicted: Classes, one of which was predicted; empty for any.
        true: Classes, one of which applies.
        outcomes: Outcomes, one of which a class of the sample has: one of those classes, where there are any. None of
            them for any.
        min_probability: Least probability of the most probable class; None for no bound, as of the next three.
        max_probability: Greatest.
        min_ood_percentile: Least OoD percentile.
        max_ood_percentile: Greatest.
        map_statuses: Statuses, one of which a map has; empty for any.
        map_explainer: Whose map, which may be a control; alone, it has to have been explained by it. Empty for any
            explainer.
        score: A range of a score; None for any.
        start: Unix time from which on it was predicted; None for no bound.
        end: Unix time before which it was predicted; None for no bound.
        states: States, one of which it is in; empty for any.
        request_id: Its request; empty for any.
    """

    model_version: str | None = None
    single_label: bool = False
    predicted: tuple[int, ...] = ()
    true: tuple[int, ...] = ()
    outcomes: Outcome = NO_OUTCOME
    min_probability: float | None = None
    max_probability: float | None = None
    min_ood_percentile: float | None = None
    max_ood_percentile: float | None = None
    map_statuses: frozenset[MapStatus] = frozenset()
    map_explainer: str = ""
    score: ScoreRange | None = None
    start: float | None = None
    end: float | None = None
    states: frozenset[SampleState] = frozenset()
    request_id: str = ""


class Reading(enum.Enum):
    """How many samples are read of those that a filter lets through, or how many that will be; it decides on the way.

    BEGINNING: Until a page is full, of many.
    FEW: All, which are few.
    ALL: All.
    """

    BEGINNING = enum.auto()
    FEW = enum.auto()
    ALL = enum.auto()


def source(
    where: SampleFilter, order: Order | None, *columns: ColumnElement[Any], reading: Reading = Reading.BEGINNING
) -> Select[Any]:
    """Selects columns of the samples that a filter lets through, without those that lack the score of the order.

    Args:
        where: The filter.
        order: An order; None for none.
        columns: Of `samples`, or sort keys of the order.
        reading: How much is going to be read.
    """
    query = select(*columns).select_from(samples)
    pair = shown_score(where, order)
    if pair is None:
        return query.where(*_conditions(where, samples.c, reading))
    columns_of: Any = samples.c
    if reading is Reading.FEW:  # SQLite looks their scores up
        query = query.join(JOINED, _Unindexed(samples.c.id) == JOINED.c.sample_id)
    else:  # it looks up the samples of scores
        columns_of = SimpleNamespace(**{column.name: _Unindexed(column) for column in samples.c})
        query = query.join(JOINED, samples.c.id == _Unindexed(JOINED.c.sample_id))
    query = query.where(JOINED.c.explainer == pair[0], JOINED.c.metric == pair[1])
    # Where it reads all, it is to read them in the order of samples, as these lie in the file: the index that is in
    # that of values has only those that are known, which it cannot tell of an expression.
    value = _Unindexed(JOINED.c.value) if reading is Reading.ALL else JOINED.c.value
    query = query.where(*_in_range(value, where.score, pair))
    if where.score is not None and where.score.pair != pair:
        query = query.where(columns_of.id.in_(_with_score(where.score)))
    return query.where(*_conditions(where, columns_of, reading))


def shown_score(where: SampleFilter, order: Order | None) -> tuple[str, str] | None:
    """The explainer and metric of the score that an order goes by, else a filter; None where neither does."""
    if order is not None and order.by is By.SCORE:
        return order.explainer, order.metric
    return None if where.score is None else where.score.pair


class _Unindexed(ColumnElement[Any]):
    """A column that SQLite finds no index for.

    PostgreSQL sees the column itself: it would know of an expression neither how often values occur nor in how many
    rows it holds.
    """

    inherit_cache = True

    def __init__(self, column: ColumnElement[Any]) -> None:
        self.column = column
        self.type = column.type

    _traverse_internals = [("column", InternalTraversal.dp_clauseelement)]  # noqa: RUF012 - as the base class has it


@compiles(_Unindexed)
def _as_it_is(element: _Unindexed, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.column, **options))


@compiles(_Unindexed, "sqlite")
def _as_an_expression(element: _Unindexed, compiler: Any, **options: Any) -> str:
    return f"+{compiler.process(element.column, **options)}"


class _HasBit(ColumnElement[bool]):
    """Whether a column has one of some bits.

    PostgreSQL compares with the values that have one: of those it knows how often they occur, while it takes an
    expression to hold nearly always, and then looks up one after the other what is to be read at once.
    """

    inherit_cache = True
    type = Boolean()
    _is_implicitly_boolean = True  # SQLite is not to compare it with 1

    def __init__(self, column: ColumnElement[int], bits: int, known: int) -> None:
        self.column = column
        self.bits = bits
        self.known = known

    _traverse_internals = [  # noqa: RUF012 - as the base class has it
        ("column", InternalTraversal.dp_clauseelement),
        ("bits", InternalTraversal.dp_plain_obj),
        ("known", InternalTraversal.dp_plain_obj),
    ]


@compiles(_HasBit)
def _by_bits(element: _HasBit, compiler: Any, **options: Any) -> str:
    return f"({compiler.process(element.column, **options)} & {element.bits}) != 0"


@compiles(_HasBit, "postgresql")
def _by_values(element: _HasBit, compiler: Any, **options: Any) -> str:
    values = ", ".join(str(each) for each in range(1, element.known + 1) if each & element.bits)
    return f"{compiler.process(element.column, **options)} IN ({values})" if values else "false"


def first_of(
    connection: Connection, where: SampleFilter, order: Order, values: list[float] | None, count: int
) -> ColumnElement[bool] | None:
    """The condition that a sample is one of the first in an order, whether the filter lets it through or not.

    Args:
        connection: In a transaction that reads.
        where: The filter: of its model version, and in its range of the score that the order goes by.
        order: The order.
        values: Of the sort keys of the sample that they come after; None for none.
        count: How many of the first they are, up to those that are equal to the last of them.

    Returns:
        None where there are no more than these, or too many are equal, or the order goes by time, in which samples are
        read one after the other anyway.
    """
    if order.by is By.TIME:
        return None
    column = ORDERED[order.by]
    if order.by is By.SCORE:
        pair = order.explainer, order.metric
        conditions = [JOINED.c.explainer == pair[0], JOINED.c.metric == pair[1]]
        conditions += _in_range(JOINED.c.value, where.score, pair)
    else:
        conditions = [column.is_not(None)]
        if where.model_version is not None:
            conditions.append(samples.c.model_version == where.model_version)
    if values is not None:
        conditions.append(column <= values[0] if order.descending else column >= values[0])
    in_order = select(column).where(*conditions).order_by(column.desc() if order.descending else column.asc())
    last = connection.scalar(in_order.offset(count).limit(1))
    if last is None:
        return None
    before: ColumnElement[bool] = column > last if order.descending else column < last
    return before


def _conditions(where: SampleFilter, columns: Any, reading: Reading) -> Iterator[ColumnElement[bool]]:
    if where.model_version is not None:
        yield columns.model_version == where.model_version
    yield from _bounds(where, columns)
    if where.predicted:
        yield _predicted(where, columns)
    if where.true:
        yield columns.id.in_(_of_classes(where.true, _TRUE))
    if where.outcomes:
        yield _has_outcome(where, columns)
    if where.states:
        yield columns.state.in_(sorted(map(code_of, where.states)))
    if where.request_id:
        yield columns.request_id == where.request_id
    if where.map_explainer:
        yield _has_map(where, columns, reading)
    elif where.map_statuses:
        bits = sum(STATUS_BITS[status] for status in where.map_statuses)
        yield _HasBit(samples.c.map_statuses, bits, sum(STATUS_BITS.values()))


def _bounds(where: SampleFilter, columns: Any) -> Iterator[ColumnElement[bool]]:
    if where.start is not None:
        yield columns.time >= where.start
    if where.end is not None:
        yield columns.time < where.end
    # All of these are in the index of the listing, which is read faster than rows are looked up by another one.
    probability, percentile = _Unindexed(samples.c.probability), _Unindexed(samples.c.ood_percentile)
    if where.min_probability is not None:
        yield probability >= where.min_probability
    if where.max_probability is not None:
        yield probability <= where.max_probability
    if where.min_ood_percentile is not None:
        yield percentile >= where.min_ood_percentile
    if where.max_ood_percentile is not None:
        yield percentile <= where.max_ood_percentile


def _predicted(where: SampleFilter, columns: Any) -> Any:
    if where.single_label:  # the one that is most probable
        return samples.c.target.in_(sorted(set(where.predicted)))
    return columns.id.in_(_of_classes(where.predicted, _PREDICTED))


def _has_outcome(where: SampleFilter, columns: Any) -> Any:
    """Whether a class, or one of those of the filter, has one of the outcomes."""
    any_class = _HasBit(samples.c.outcomes, int(where.outcomes), _ALL_OUTCOMES)
    if not (where.predicted or where.true):
        return any_class
    if not where.single_label:
        return columns.id.in_(_of_classes((*where.predicted, *where.true), where.outcomes))
    alternatives: list[ColumnElement[bool]] = []
    if where.predicted:  # of the predicted class, which is one of these; another one may apply besides
        alternatives.append(_HasBit(samples.c.outcomes, int(where.outcomes & _PREDICTED), _ALL_OUTCOMES))
        if where.outcomes & Outcome.FALSE_NEGATIVE:
            alternatives.append(columns.id.in_(_of_classes(where.predicted, Outcome.FALSE_NEGATIVE)))
    if where.true:
        alternatives.append(columns.id.in_(_of_classes(where.true, where.outcomes)))
    return or_(*alternatives)


def _of_classes(class_ids: tuple[int, ...], outcomes: Outcome) -> Select[Any]:
    return select(class_outcomes.c.sample_id).where(
        class_outcomes.c.class_id.in_(sorted(set(class_ids))),
        class_outcomes.c.outcome.in_([int(one) for one in Outcome if one & outcomes]),
    )


def _has_map(where: SampleFilter, columns: Any, reading: Reading) -> Any:
    statuses = where.map_statuses
    found = select(explained.c.sample_id).where(explained.c.explainer == where.map_explainer)
    if statuses:
        found = found.where(explained.c.status.in_(sorted(map(code_of, statuses))))
    if reading is Reading.ALL or (statuses and not any(status.believed for status in statuses)):
        return columns.id.in_(found)
    # Most samples have one: to list all of these takes longer than to look one after the other up.
    return found.where(explained.c.sample_id == columns.id).exists()


def _in_range(value: Any, score: ScoreRange | None, pair: tuple[str, str]) -> Iterator[ColumnElement[bool]]:
    yield value.is_not(None)
    if score is None or score.pair != pair:
        return
    if score.minimum is not None:
        yield value >= score.minimum
    if score.maximum is not None:
        yield value <= score.maximum


def _with_score(score: ScoreRange) -> Select[Any]:
    of_both = (scores.c.explainer == score.explainer, scores.c.metric == score.metric)
    return select(scores.c.sample_id).where(*of_both, *_in_range(scores.c.value, score, score.pair))
