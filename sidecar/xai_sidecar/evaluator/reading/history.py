"""How scores, predictions and maps have changed over time, in bins of equal length."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Double,
    Integer,
    Select,
    bindparam,
    case,
    cast,
    func,
    select,
)

from xai_sidecar.evaluator.reading.agreement import load_agreement
from xai_sidecar.evaluator.reading.points import Point, point_of_moments, point_of_values
from xai_sidecar.evaluator.store.details import SHAPES
from xai_sidecar.evaluator.store.outcomes import Outcome
from xai_sidecar.evaluator.store.tables import explained, samples, scores

MOST_SAMPLES = 20_000
"""Most samples that a history rests on, the newest."""

_MOST_CLASSES = 100

_MOMENTS = 7


@dataclass(frozen=True)
class Traffic:
    """What was predicted in a bin. Means, deciles and shares go by the samples' weights: they are the traffic's.

    Attributes:
        bin: Which bin, from 0.
        count: Samples.
        mean_probability: Mean probability of the most probable class; NaN without any.
        deciles: The nine deciles of that; empty without any.
        ood_count: Samples with an OoD percentile.
        outlier_share: Share of these that are outliers; NaN without any.
        mean_ood_percentile: Their mean; NaN without any.
        classes: How often each class was the most probable one, and its share; the largest share first.
        labelled: Samples whose true classes are known.
        right: Those of them whose prediction was right.
        right_share: Their share; NaN without any.
    """

    bin: int
    count: int
    mean_probability: float
    deciles: tuple[float, ...]
    ood_count: int
    outlier_share: float
    mean_ood_percentile: float
    classes: tuple[tuple[int, int, float], ...]
    labelled: int
    right: int
    right_share: float


@dataclass(frozen=True)
class History:
    """What happened between two points in time.

    Attributes:
        start: Beginning of the first bin, as Unix time.
        width: Seconds in a bin.
        scores: By explainer and metric.
        shapes: Means of the statistics of maps, by explainer and statistic; ``agreement/NAME`` is the correlation with
            the maps of another explainer.
        traffic: What was predicted, by bin.
        whole: The same of all bins together.
        count: Samples that it rests on.
        truncated: Whether there were more, so that the oldest are missing.
    """

    start: float
    width: float
    scores: Mapping[tuple[str, str], tuple[Point, ...]]
    shapes: Mapping[tuple[str, str], tuple[Point, ...]]
    traffic: tuple[Traffic, ...]
    whole: Traffic
    count: int
    truncated: bool


@dataclass(frozen=True)
class Shown:
    """What a history is of.

    Attributes:
        model_version: Version of the model that predicted.
        explainers: Explainers and controls.
        metrics: Metrics.
        definitions: Definitions of scores; others are left out.
        outlier_percentile: Samples with a lower OoD percentile are outliers.
        single_label: Whether a prediction is right where the most probable class applies; else where exactly the
            classes that apply were predicted.
    """

    model_version: str
    explainers: Sequence[str]
    metrics: Sequence[str]
    definitions: frozenset[str]
    outlier_percentile: float
    single_label: bool


def load_history(connection: Connection, shown: Shown, start: float, end: float, bins: int) -> History:
    """What happened in some bins of equal length.

    Args:
        connection: In a transaction that reads.
        shown: Of what.
        start: Beginning, as Unix time.
        end: End, later than that.
        bins: Number of bins.
    """
    width = (end - start) / bins
    table, truncated = _samples(connection, shown.model_version, start, end)
    places = np.clip(((table[:, 0] - start) / width).astype(int), 0, bins - 1)
    span = _Span(shown.model_version, start, width, bins, table)
    return History(
        start=start,
        width=width,
        scores=_scores(connection, shown, span),
        shapes={**_shapes(connection, shown, span), **_agreement(connection, shown, span, places)},
        traffic=tuple(_traffic(table[places == each], int(each), shown) for each in np.unique(places)),
        whole=_traffic(table, 0, shown),
        count=len(table),
        truncated=truncated,
    )


class _Span(NamedTuple):
    model_version: str
    start: float
    width: float
    bins: int
    table: NDArray[np.float64]  # (samples, 7): time, id, weight, probability, OoD percentile, target, outcomes

    @property
    def values(self) -> dict[str, Any]:
        """What `_means` is given to find the table's samples; their ids, too, since scores are indexed by these."""
        times, ids = self.table[:, 0], self.table[:, 1]
        return {
            "model_version": self.model_version,
            "start": self.start,
            "width": self.width,
            "earliest": float(times.min()),
            "latest": float(times.max()),
            "first_id": int(ids.min()),
            "last_id": int(ids.max()),
        }


def _samples(connection: Connection, model_version: str, start: float, end: float) -> tuple[NDArray[np.float64], bool]:
    columns = ("time", "id", "weight", "probability", "ood_percentile", "target", "outcomes")
    found = connection.execute(
        select(*(samples.c[name] for name in columns))
        .where(samples.c.model_version == model_version, samples.c.time >= start, samples.c.time < end)
        .order_by(samples.c.time.desc(), samples.c.id.desc())
        .limit(MOST_SAMPLES + 1)
    ).all()
    rows = [[math.nan if value is None else value for value in row] for row in found[:MOST_SAMPLES]]
    return np.array(rows, np.float64).reshape(-1, len(columns)), len(found) > MOST_SAMPLES


def _scores(connection: Connection, shown: Shown, span: _Span) -> dict[tuple[str, str], tuple[Point, ...]]:
    if not len(span.table):
        return {}
    known = {**span.values, "definitions": sorted(shown.definitions)}
    found = {}
    for explainer, metric in product(shown.explainers, shown.metrics):
        values = {**known, "explainer": explainer, "metric": metric}
        points = _points(connection, _SCORE, _OF_SCORES, values, span.bins)[0]
        if points:
            found[explainer, metric] = points
    return found


def _shapes(connection: Connection, shown: Shown, span: _Span) -> dict[tuple[str, str], tuple[Point, ...]]:
    if not len(span.table):
        return {}
    known, found = span.values, {}
    for explainer in shown.explainers:
        of_shapes = _points(connection, _SHAPE, _OF_SHAPES, {**known, "explainer": explainer}, span.bins)
        found.update({(explainer, name): points for name, points in zip(SHAPES, of_shapes, strict=True) if points})
    return found


def _agreement(
    connection: Connection, shown: Shown, span: _Span, places: NDArray[np.int_]
) -> dict[tuple[str, str], tuple[Point, ...]]:
    """How far each two explainers agree, by bin.

    Args:
        connection: In a transaction that reads.
        shown: Of what.
        span: The samples, the newest first.
        places: The bin of each.
    """
    found = {}
    for (one, two), pairs in load_agreement(connection, shown.explainers, span.table[:, 1].astype(np.int64)).items():
        bins, weights = places[pairs.places], span.table[pairs.places, 2]
        found[one, f"agreement/{two}"] = tuple(
            point_of_values(int(each), pairs.values[bins == each], weights[bins == each]) for each in np.unique(bins)
        )
    return found


_SCORE = (scores.c.value,)
_OF_SCORES = (
    scores.c.explainer == bindparam("explainer"),
    scores.c.metric == bindparam("metric"),
    scores.c.definition.in_(bindparam("definitions", expanding=True)),
)
_SHAPE = tuple(explained.c[name] for name in SHAPES)
_OF_SHAPES = (explained.c.explainer == bindparam("explainer"),)


def _points(
    connection: Connection,
    columns: tuple[Column[float], ...],
    conditions: tuple[ColumnElement[bool], ...],
    values: Mapping[str, Any],
    bins: int,
) -> list[tuple[Point, ...]]:
    """Means of columns by bin."""
    found = connection.execute(_means(connection.dialect.name, columns, conditions), values).all()
    points: defaultdict[int, list[Point]] = defaultdict(list)
    for index, *figures in found:
        for number in range(len(columns)):
            moments = figures[_MOMENTS * number : _MOMENTS * (number + 1)]
            if moments[0]:
                points[number].append(point_of_moments(min(index, bins - 1), *moments))
    return [tuple(points[number]) for number in range(len(columns))]


@functools.cache
def _means(
    dialect: str, columns: tuple[Column[float], ...], conditions: tuple[ColumnElement[bool], ...]
) -> Select[Any]:
    """What asks for the moments of columns by bin. It takes as long to put together as to be answered."""
    place = (samples.c.time - bindparam("start", type_=Double)) / bindparam("width", type_=Double)
    if dialect != "sqlite":  # whose cast rounds towards 0; others round to the nearest
        place = func.floor(place)
    bins = cast(place, Integer).label("bin")
    sample_id = columns[0].table.c.sample_id
    return (
        select(bins, *(each for column in columns for each in _moments(column)))
        .join(samples, samples.c.id == sample_id)
        .where(
            *conditions,
            sample_id >= bindparam("first_id"),
            samples.c.id <= bindparam("last_id"),
            samples.c.time >= bindparam("earliest"),
            samples.c.time <= bindparam("latest"),
            samples.c.model_version == bindparam("model_version"),
        )
        .group_by(bins)
        .order_by(bins)
    )


def _moments(column: Any) -> list[ColumnElement[Any]]:
    """Sums over the values of a column that are not NULL: of 1, w, w², w³, wy, w²y and w²y²."""
    known, weight = column.is_not(None), samples.c.weight
    weights = [
        func.sum(case((known, power), else_=0.0)) for power in (weight, weight * weight, weight * weight * weight)
    ]
    values = [weight * column, weight * weight * column, weight * weight * column * column]
    return [func.count(column), *weights, *map(func.sum, values)]


def _traffic(table: NDArray[np.float64], index: int, shown: Shown) -> Traffic:
    weight, probability, percentile, target, outcomes = table[:, 2:].T
    bits = outcomes.astype(int)
    labelled = (bits & int(Outcome.UNKNOWN)) == 0
    wrong = int(Outcome.FALSE_POSITIVE | Outcome.FALSE_NEGATIVE)
    right = (bits & int(Outcome.TRUE_POSITIVE)) != 0 if shown.single_label else (bits & wrong) == 0
    known, scored = ~np.isnan(probability), ~np.isnan(percentile)
    return Traffic(
        bin=index,
        count=len(table),
        mean_probability=_mean(probability, weight, known),
        deciles=_deciles(probability[known], weight[known]),
        ood_count=int(scored.sum()),
        outlier_share=_mean(percentile < shown.outlier_percentile, weight, scored),
        mean_ood_percentile=_mean(percentile, weight, scored),
        classes=tuple(_class_mix(target.astype(int), weight)[:_MOST_CLASSES]),
        labelled=int(labelled.sum()),
        right=int((labelled & right).sum()),
        right_share=_mean(right, weight, labelled),
    )


def _mean(values: NDArray[Any], weights: NDArray[np.float64], counted: NDArray[np.bool_]) -> float:
    return float(weights[counted] @ values[counted] / weights[counted].sum()) if counted.any() else math.nan


def _deciles(values: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, ...]:
    """The values up to which a tenth, two tenths and so on of the weight lie."""
    if not len(values):
        return ()
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) / weights.sum()
    places = np.searchsorted(reached, np.arange(1, 10) / 10 - 1e-12)
    return tuple(values[order][np.minimum(places, len(values) - 1)].tolist())


def _class_mix(target: NDArray[np.int_], weights: NDArray[np.float64]) -> list[tuple[int, int, float]]:
    """Count and share of each class, the largest share first."""
    if not len(target):
        return []
    kinds, places, counts = np.unique(target, return_inverse=True, return_counts=True)
    shares = np.bincount(places, weights) / weights.sum()
    order = np.argsort(-shares, kind="stable")
    return [(int(kinds[each]), int(counts[each]), float(shares[each])) for each in order]
