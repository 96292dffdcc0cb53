"""Orders of samples, and their sort keys in SQL."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Float, and_, func, literal_column, or_

from xai_sidecar.evaluator.store.tables import samples, scores
from xai_sidecar.metrics.discovery import installed_metrics

JOINED = scores.alias("score")
"""The scores of the explainer and metric that an order goes by, else of those of a filter."""


class By(enum.Enum):
    """What samples are ordered by."""

    TIME = "time"
    PROBABILITY = "probability"
    OOD = "ood"
    SCORE = "score"


@dataclass(frozen=True)
class Order:
    """An order of samples. Equal ones go by time, the newest first; what is not known comes last.

    Attributes:
        by: What it goes by.
        descending: Whether the greatest comes first.
        explainer: Of the score.
        metric: Of the score.
    """

    by: By = By.TIME
    descending: bool = True
    explainer: str = ""
    metric: str = ""

    @classmethod
    def by_score(cls, explainer: str, metric: str, *, worst_first: bool) -> Order:
        """By a score, in the direction of its metric; one that is not installed counts as the higher, the better."""
        known: Any = installed_metrics().get(metric)
        higher_is_better = known is None or known.higher_is_better
        return cls(By.SCORE, descending=worst_first is not higher_is_better, explainer=explainer, metric=metric)


ORDERED = {By.PROBABILITY: samples.c.probability, By.OOD: samples.c.ood_percentile, By.SCORE: JOINED.c.value}
"""The column that an order goes by."""


class Key(NamedTuple):
    """A sort key: an expression without NULL, and its direction."""

    expression: ColumnElement[Any]
    descending: bool


def keys(order: Order) -> list[Key]:
    """The sort keys of an order, the last of which is different for all samples."""
    unknown = -1e300 if order.descending else 1e300
    if order.by is By.TIME:
        return [Key(samples.c.time, order.descending), Key(samples.c.id, order.descending)]
    last = [Key(samples.c.time, True), Key(samples.c.id, True)]
    return [Key(func.coalesce(ORDERED[order.by], literal_column(repr(unknown), Float)), order.descending), *last]


def after(order: Order, values: list[float]) -> ColumnElement[bool]:
    """The condition that a sample comes after the one with these values of the keys."""
    alternatives: list[ColumnElement[bool]] = []
    equal: list[ColumnElement[bool]] = []
    for key, value in zip(keys(order), values, strict=True):
        beyond = key.expression < value if key.descending else key.expression > value
        alternatives.append(and_(*equal, beyond))
        equal.append(key.expression == value)
    # The first key once more, by itself: an index may go by that.
    first, value = keys(order)[0], values[0]
    return and_(first.expression <= value if first.descending else first.expression >= value, or_(*alternatives))
