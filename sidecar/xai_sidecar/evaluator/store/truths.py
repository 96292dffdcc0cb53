"""Ground truths in their three tables, as parts of the caller's transaction."""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import Column, Connection, Table, delete, insert, select

from xai_sidecar.evaluator.records import GroundTruth, SampleKey
from xai_sidecar.evaluator.store.rows import object_row, truth_object
from xai_sidecar.evaluator.store.tables import (
    ground_truth_classes,
    ground_truth_objects,
    ground_truths,
    predictions,
    samples,
)

_AT_A_TIME = 500


class Reported(enum.Enum):
    """What a report of a ground truth changed."""

    NEW = "new"
    REPLACED = "replaced"
    REPEATED = "repeated"  # it is there already; nothing changed


class TruthClasses(NamedTuple):
    """Which classes a sample was predicted to have, and which apply.

    Attributes:
        key: Which sample.
        positives: The classes that were predicted, rising.
        class_ids: The classes that apply, rising; empty if only objects were reported.
    """

    key: SampleKey
    positives: tuple[int, ...]
    class_ids: tuple[int, ...]


def put_truth(connection: Connection, sample_id: int, truth: GroundTruth) -> Reported:
    """Keeps a truth instead of what was there; when it was reported makes no difference."""
    before = load_truth(connection, sample_id)
    if before is not None and replace(before, time=truth.time) == truth:
        return Reported.REPEATED
    connection.execute(delete(ground_truths).where(ground_truths.c.sample_id == sample_id))
    connection.execute(insert(ground_truths), {"sample_id": sample_id, "time": truth.time, "applied": False})
    if truth.class_ids:
        classes = [{"sample_id": sample_id, "class_id": class_id} for class_id in truth.class_ids]
        connection.execute(insert(ground_truth_classes), classes)
    if truth.objects:
        objects = [object_row(sample_id, number, thing) for number, thing in enumerate(truth.objects)]
        connection.execute(insert(ground_truth_objects), objects)
    return Reported.NEW if before is None else Reported.REPLACED


def load_truth(connection: Connection, sample_id: int) -> GroundTruth | None:
    """The truth of a sample; None if there is none."""
    time = connection.scalar(select(ground_truths.c.time).where(ground_truths.c.sample_id == sample_id))
    if time is None:
        return None
    objects = (
        select(ground_truth_objects)
        .where(ground_truth_objects.c.sample_id == sample_id)
        .order_by(ground_truth_objects.c.number)
    )
    return GroundTruth(
        class_ids=classes_by_sample(connection, ground_truth_classes, [sample_id])[sample_id],
        objects=tuple(map(truth_object, connection.execute(objects))),
        time=time,
    )


def load_truth_classes(connection: Connection, model_version: str, after: int) -> tuple[list[TruthClasses], int]:
    """Some of the samples with truths, in order of their ids.

    Args:
        connection: In a transaction.
        model_version: Whose samples.
        after: The id after which to begin; 0 for the first.

    Returns:
        The samples, none if there are no more; and the last one's id.
    """
    found = connection.execute(
        select(samples.c.id, samples.c.request_id, samples.c.image_index)
        .join(ground_truths, ground_truths.c.sample_id == samples.c.id)
        .where(samples.c.model_version == model_version, samples.c.id > after)
        .order_by(samples.c.id)
        .limit(_AT_A_TIME)
    ).all()
    ids = [row.id for row in found]
    positives = classes_by_sample(connection, predictions, ids)
    class_ids = classes_by_sample(connection, ground_truth_classes, ids)
    told = [
        TruthClasses(SampleKey(row.request_id, row.image_index), positives[row.id], class_ids[row.id]) for row in found
    ]
    return told, ids[-1] if ids else after


def classes_by_sample(connection: Connection, table: Table, ids: Iterable[int]) -> defaultdict[int, tuple[int, ...]]:
    """The classes in a table by sample, rising.

    Args:
        connection: In a transaction.
        table: `predictions` or `ground_truth_classes`.
        ids: Of the samples, at most some hundred.
    """
    sample_id: Column[int] = table.c.sample_id
    found = connection.execute(
        select(sample_id, table.c.class_id).where(sample_id.in_(list(ids))).order_by(sample_id, table.c.class_id)
    )
    lists = defaultdict[int, list[int]](list)
    for row in found:
        lists[row.sample_id].append(row.class_id)
    classes: defaultdict[int, tuple[int, ...]] = defaultdict(tuple)
    classes.update((key, tuple(values)) for key, values in lists.items())
    return classes
