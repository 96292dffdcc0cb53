"""Queries of ground truth, which is in three tables, as parts of the caller's transaction."""

from __future__ import annotations

import enum
import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import Column, Connection, Table, delete, func, insert, select

from xai_sidecar.errors import InvalidRequestError, OverloadedError
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
_ROW_BYTES = 120


class Reported(enum.Enum):
    """What a report of ground truth changed."""

    NEW = "new"
    REPLACED = "replaced"
    REPEATED = "repeated"  # equal to the one before: nothing changed


_LEAST_BOUND = 256 << 10


class TruthBounds:
    """Limits on the size of ground truth, so that reports cannot displace measurements.

    Args:
        max_bytes: Of the store. Half of it is for ground truth, and a 128th of that for each sample's.
    """

    def __init__(self, max_bytes: int) -> None:
        self._most = max(max_bytes // 2, _LEAST_BOUND)
        self._most_each = max(self._most // 128, _LEAST_BOUND)
        self._lock = threading.Lock()
        self._taken: int | None = None  # bytes; None until they are counted

    def _check(self, truth: GroundTruth) -> None:
        size = _object_bytes(truth)
        if size > self._most_each:
            raise InvalidRequestError(
                f"The objects take {size:,} bytes, and those of one picture may take {self._most_each:,}. Send masks "
                "of fewer pixels, boxes, or polygons of fewer corners, or raise evaluator.store_bytes.",
                field="objects",
            )

    def take(self, connection: Connection, sample_id: int, truth: GroundTruth) -> None:
        """Reserves room for a sample's ground truth, in place of its earlier one, in the transaction that stores it.

        Raises:
            InvalidRequestError: It is larger than one sample's may be.
            OverloadedError: There is not enough.
        """
        self._check(truth)
        with self._lock:
            taken = _kept_bytes(connection) if self._taken is None else self._taken
            more = _object_bytes(truth) - _kept_bytes(connection, sample_id)
            if more > 0 and taken + more > self._most:
                raise OverloadedError(
                    f"Ground truth takes {taken:,} of the {self._most:,} bytes that it may take. Try again when older "
                    "samples have gone, send smaller masks, or raise evaluator.store_bytes.",
                    field="objects",
                    retry_seconds=60.0,
                )
            self._taken = taken + more

    def forget(self) -> None:
        """Has the bytes counted anew the next time, after samples were removed."""
        with self._lock:
            self._taken = None


def _object_bytes(truth: GroundTruth) -> int:
    """Bytes of the objects of a ground truth, counted as `_kept_bytes` counts them."""
    rows = (object_row(0, number, thing) for number, thing in enumerate(truth.objects))
    return sum(_ROW_BYTES + len(row["points"] or "") + len(row["mask"] or b"") for row in rows)


def _kept_bytes(connection: Connection, sample_id: int | None = None) -> int:
    """Bytes of the stored objects of a sample, or of all samples."""
    lengths = [func.coalesce(func.length(ground_truth_objects.c[name]), 0) for name in ("points", "mask")]
    total = select(func.coalesce(func.sum(lengths[0] + lengths[1] + _ROW_BYTES), 0))
    if sample_id is not None:
        total = total.where(ground_truth_objects.c.sample_id == sample_id)
    return int(connection.scalar(total) or 0)


class TruthClasses(NamedTuple):
    """The predicted and the true classes of a sample.

    Attributes:
        key: Which sample.
        positives: The classes that were predicted, rising.
        class_ids: The true classes, rising; empty if only objects were reported.
        weight: What the sample counts for.
    """

    key: SampleKey
    positives: tuple[int, ...]
    class_ids: tuple[int, ...]
    weight: float = 1.0


def put_truth(connection: Connection, sample_id: int, truth: GroundTruth) -> Reported:
    """Stores a ground truth in place of an earlier one. Reports that differ in their time alone are equal."""
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


def with_former(connection: Connection, sample_id: int, truth: GroundTruth) -> GroundTruth:
    """A report with the classes of the former one where it has none, and likewise its objects.

    Raises:
        InvalidRequestError: An object would be of a class that is not among those of the picture.
    """
    former = load_truth(connection, sample_id)
    if former is None:
        return truth
    both = replace(truth, class_ids=truth.class_ids or former.class_ids, objects=truth.objects or former.objects)
    for thing in both.objects:
        if thing.class_id is not None and both.class_ids and thing.class_id not in both.class_ids:
            where, cure = ("objects", "Report that class, too.") if truth.objects else ("class_ids", "Report it, too.")
            raise InvalidRequestError(
                f"With what was reported before, an object would be of class {thing.class_id}, and the picture of "
                f"{', '.join(map(str, both.class_ids))} alone. {cure}",
                field=where,
            )
    return both


def load_truth(connection: Connection, sample_id: int) -> GroundTruth | None:
    """The ground truth of a sample; None if there is none."""
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
    """A page of the samples with ground truth, in order of their ids.

    Args:
        connection: In a transaction.
        model_version: Version of the model that predicted.
        after: Last id of the page before; 0 for the first page.

    Returns:
        The samples, none after the last page; and the id of the last one.
    """
    found = connection.execute(
        select(samples.c.id, samples.c.request_id, samples.c.image_index, samples.c.weight)
        .join(ground_truths, ground_truths.c.sample_id == samples.c.id)
        .where(samples.c.model_version == model_version, samples.c.id > after)
        .order_by(samples.c.id)
        .limit(_AT_A_TIME)
    ).all()
    ids = [row.id for row in found]
    positives = classes_by_sample(connection, predictions, ids)
    class_ids = classes_by_sample(connection, ground_truth_classes, ids)
    page = [
        TruthClasses(SampleKey(row.request_id, row.image_index), positives[row.id], class_ids[row.id], row.weight)
        for row in found
    ]
    return page, ids[-1] if ids else after


def classes_by_sample(connection: Connection, table: Table, ids: Iterable[int]) -> defaultdict[int, tuple[int, ...]]:
    """The classes in a table by sample, rising.

    Args:
        connection: In a transaction.
        table: `predictions` or `ground_truth_classes`.
        ids: Ids of the samples, at most some hundred.
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
