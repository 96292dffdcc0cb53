"""What a sample takes in the database with all that hangs on it, about, and removing what is too much."""

from __future__ import annotations

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
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
    ground_truth_classes,
    ground_truth_objects,
    ground_truths,
    maps,
    pictures,
    predictions,
    samples,
    scores,
)

_SAMPLE_BYTES = 400

_REMOVED_AT_A_TIME = 64

# What a row takes besides these columns, indices included.
_PARTS: dict[Table, tuple[int, tuple[str, ...]]] = {
    predictions: (60, ()),
    pictures: (150, ("image", "probabilities", "logits")),
    maps: (250, ("parameters", "saliency")),
    scores: (200, ()),
    ground_truths: (120, ()),
    ground_truth_classes: (60, ()),
    ground_truth_objects: (120, ("points", "mask")),
}


def _bytes(table: Table, row_bytes: int, columns: tuple[str, ...]) -> ColumnElement[int]:
    """What a sample's rows of a table take."""
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
"""Counts a sample anew; its parameter is `counted_id`."""


def remove_oldest(connection: Connection, horizon: float, excess: float) -> list[SampleKey]:
    """Removes some samples, few enough for other writers not to wait long.

    Args:
        connection: In a transaction that writes.
        horizon: Samples from before this time go.
        excess: So many bytes have to go.

    Returns:
        Those that were removed; none if nothing has to go, or nothing is left.
    """
    oldest = connection.execute(
        select(samples.c.id, samples.c.request_id, samples.c.image_index, samples.c.time, samples.c.byte_count)
        .order_by(samples.c.time, samples.c.id)
        .limit(_REMOVED_AT_A_TIME)
    )
    removed = {}
    for row in oldest:
        if row.time >= horizon and excess <= 0:
            break
        removed[row.id] = SampleKey(row.request_id, row.image_index)
        excess -= row.byte_count
    if removed:
        connection.execute(delete(samples).where(samples.c.id.in_(list(removed))))
    return list(removed.values())
