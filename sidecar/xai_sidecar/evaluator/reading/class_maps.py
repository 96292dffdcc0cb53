"""Mean maps of classes, and how often classes are taken for each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, case, func, select

from xai_sidecar.evaluator.reading.filters import SampleFilter, source
from xai_sidecar.evaluator.reading.views import small_of
from xai_sidecar.evaluator.store.small import SmallMap, small_map
from xai_sidecar.evaluator.store.tables import explained, ground_truth_classes, predictions, samples

_AT_A_TIME = 500


@dataclass(frozen=True)
class ClassMap:
    """The mean map of a class by an explainer.

    Attributes:
        class_id: The class that was explained.
        explainer: The explainer.
        count: Maps that it is the mean of.
        mean: The mean, each map divided by its largest magnitude before.
    """

    class_id: int
    explainer: str
    count: int
    mean: SmallMap


@dataclass(frozen=True)
class Confusion:
    """How often a class was predicted where one applies."""

    true: int
    predicted: int
    count: int


def frequent_classes(connection: Connection, where: SampleFilter, most: int) -> list[int]:
    """The classes that were explained most often, the most frequent first."""
    count = func.count()
    query = source(where, None, samples.c.target, count).group_by(samples.c.target)
    return [row.target for row in connection.execute(query.order_by(count.desc(), samples.c.target).limit(most))]


def load_class_maps(
    connection: Connection, where: SampleFilter, class_id: int, explainers: Collection[str], most: int
) -> list[ClassMap]:
    """The mean maps of a class.

    Args:
        connection: In a transaction that reads.
        where: Which samples.
        class_id: The class that was explained.
        explainers: The explainers.
        most: Most samples, the newest.
    """
    of_class = source(where, None, samples.c.id).where(samples.c.target == class_id)
    chosen = list(connection.scalars(of_class.order_by(samples.c.time.desc(), samples.c.id.desc()).limit(most)))
    found = (_mean(connection, class_id, explainer, chosen) for explainer in explainers)
    return [each for each in found if each is not None]


def load_confusion(connection: Connection, where: SampleFilter, most: int) -> tuple[list[Confusion], bool]:
    """How often classes were predicted where others apply, the most frequent first, and whether some are left out.

    Of more than `most` of them, the right ones are left out first: those are counted by class elsewhere.
    """
    count, true, predicted = func.count(), ground_truth_classes.c.class_id, predictions.c.class_id
    query = (
        source(where, None, true, predicted, count)
        .join(ground_truth_classes, ground_truth_classes.c.sample_id == samples.c.id)
        .join(predictions, predictions.c.sample_id == samples.c.id)
        .group_by(true, predicted)
        .order_by(case((true == predicted, 1), else_=0), count.desc(), true, predicted)
        .limit(most + 1)
    )
    found = [Confusion(*row) for row in connection.execute(query)]
    told = sorted(found[:most], key=lambda each: (-each.count, each.true, each.predicted))
    return told, len(found) > most


def _mean(connection: Connection, class_id: int, explainer: str, chosen: Sequence[int]) -> ClassMap | None:
    total, count = None, 0
    for first in range(0, len(chosen), _AT_A_TIME):
        rows = connection.execute(
            select(explained).where(
                explained.c.sample_id.in_(chosen[first : first + _AT_A_TIME]),
                explained.c.explainer == explainer,
                explained.c.target == class_id,
            )
        )
        for small in filter(None, map(small_of, rows)):
            values = small.array().astype(np.float64)
            largest = float(np.abs(values).max())
            if total is None:
                total = np.zeros_like(values)
            if values.shape == total.shape and largest > 0:
                total += values / largest
                count += 1
    mean = None if total is None or not count else small_map(total / count)
    return None if mean is None else ClassMap(class_id, explainer, count, mean)
