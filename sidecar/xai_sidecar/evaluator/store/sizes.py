"""Estimated size of a sample with all of its rows in other tables, and removal of the oldest samples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Table,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    update,
)

from xai_sidecar.evaluator.records import SampleKey
from xai_sidecar.evaluator.store.tables import (
    class_outcomes,
    curves,
    explained,
    ground_truth_classes,
    ground_truth_objects,
    ground_truths,
    maps,
    model_inputs,
    pictures,
    predictions,
    samples,
    scores,
    thumbnails,
    top_classes,
)

_SAMPLE_BYTES = 650

REMOVED_AT_A_TIME = 64
"""Samples that go, or lose some of their rows, in one transaction, so that other writers do not wait long."""

# Bytes of a row besides these columns, indices included.
_PARTS: dict[Table, tuple[int, tuple[str, ...]]] = {
    predictions: (60, ()),
    pictures: (150, ("image", "probabilities", "logits")),
    maps: (250, ("parameters", "saliency")),
    scores: (340, ()),
    explained: (300, ("small",)),
    curves: (150, ("pixel_counts", "probabilities")),
    thumbnails: (100, ("jpeg",)),
    model_inputs: (100, ("png",)),
    top_classes: (60, ("classes",)),
    class_outcomes: (100, ()),
    ground_truths: (120, ()),
    ground_truth_classes: (60, ()),
    ground_truth_objects: (120, ("points", "mask")),
}


def _bytes(table: Table, row_bytes: int, columns: tuple[str, ...]) -> ColumnElement[int]:
    """Bytes of a sample's rows in a table."""
    one: ColumnElement[int] = literal_column(str(row_bytes), Integer)
    for name in columns:
        one = one + func.coalesce(func.length(table.c[name], type_=Integer), literal_column("0", Integer))
    total = func.coalesce(func.sum(one), literal_column("0", Integer))
    return select(total).where(table.c.sample_id == bindparam("counted_id")).scalar_subquery()


def _total() -> ColumnElement[int]:
    total: ColumnElement[int] = literal_column(str(_SAMPLE_BYTES), Integer)
    for table, (row_bytes, columns) in _PARTS.items():
        total = total + _bytes(table, row_bytes, columns)
    return total


RECOUNT = update(samples).where(samples.c.id == bindparam("counted_id")).values(byte_count=_total())
"""Updates the `byte_count` of the sample `counted_id`."""


def remove_oldest(connection: Connection, horizon: float, excess: float) -> list[SampleKey]:
    """Removes the oldest samples, at most `REMOVED_AT_A_TIME`.

    Args:
        connection: In a transaction that writes.
        horizon: Samples older than this Unix time are removed.
        excess: Bytes to remove besides.

    Returns:
        The samples that were removed; none if nothing is to be removed, or nothing is left.
    """
    oldest = connection.execute(
        select(samples.c.id, samples.c.request_id, samples.c.image_index, samples.c.time, samples.c.byte_count)
        .order_by(samples.c.time, samples.c.id)
        .limit(REMOVED_AT_A_TIME)
    )
    removed = to_remove(oldest, horizon, excess)
    if removed:
        connection.execute(delete(samples).where(samples.c.id.in_([row.id for row in removed])))
    return [SampleKey(row.request_id, row.image_index) for row in removed]


def to_remove(oldest: Iterable[Any], horizon: float, excess: float) -> list[Row[Any]]:
    """Those of the oldest samples that go.

    Args:
        oldest: Rows with their `time` and `byte_count`, the oldest first.
        horizon: Samples older than this Unix time go.
        excess: Bytes that go besides.
    """
    found = []
    for row in oldest:
        if row.time >= horizon and excess <= 0:
            break
        found.append(row)
        excess -= row.byte_count
    return found
