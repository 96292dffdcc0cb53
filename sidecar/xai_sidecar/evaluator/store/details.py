"""What is shown of a sample besides its maps and scores: written as parts of the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    union_all,
)

from xai_sidecar.engine.work import FloatArray
from xai_sidecar.evaluator.controls import CONTROL_PREFIX
from xai_sidecar.evaluator.drift.shape import shape_of
from xai_sidecar.evaluator.records import ScoreRecord
from xai_sidecar.evaluator.store.rows import code_of
from xai_sidecar.evaluator.store.sizes import RECOUNT, REMOVED_AT_A_TIME, to_remove
from xai_sidecar.evaluator.store.small import TopClass, pack_classes, pack_curve, small_map
from xai_sidecar.evaluator.store.tables import (
    curves,
    explained,
    maps,
    model_inputs,
    samples,
    scores,
    thumbnails,
    top_classes,
)
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.metrics.base import MaskingCurve

STATUS_BITS = {status: 1 << place for place, status in enumerate(MapStatus)}
"""The bit of `samples.map_statuses` that says that an explainer's map has a status."""

SHAPES = ("concentration", "centre_x", "centre_y", "border")
"""What is kept of a `MapShape`."""

Columns: TypeAlias = Mapping[Table, str]

PICTURES: Columns = {thumbnails: "jpeg", model_inputs: "png"}
MAPS: Columns = {maps: "saliency"}

_FORGET = [
    delete(table).where(table.c.sample_id == bindparam("of_sample"), table.c.explainer == bindparam("of_explainer"))
    for table in (explained, maps, scores, curves)
]


def _statuses() -> ColumnElement[int]:
    """The bits of the statuses of a sample's maps, but for those of controls."""
    bit = case({code_of(status): bit for status, bit in STATUS_BITS.items()}, value=explained.c.status)
    of_sample = explained.c.sample_id == bindparam("counted_id")
    no_control = explained.c.explainer.not_like(f"{CONTROL_PREFIX}%")
    bits = select(bit.label("bit")).where(of_sample, no_control).distinct().subquery()
    return select(func.coalesce(func.sum(bits.c.bit), 0)).scalar_subquery()


_RECOUNT_EXPLAINED = RECOUNT.values(map_statuses=_statuses())


def put_classes(connection: Connection, sample_id: int, classes: Sequence[TopClass]) -> None:
    """Stores the most probable classes of a new sample."""
    if classes:
        connection.execute(insert(top_classes), {"sample_id": sample_id, "classes": pack_classes(classes)})


def explained_row(
    explainer: str, target: int, status: MapStatus, pass_count: int, saliency: FloatArray | None = None
) -> dict[str, Any]:
    """The row of `explained`, without `sample_id`; of a map it takes a while to make.

    Args:
        explainer: The explainer or control.
        target: The class.
        status: The map's status.
        pass_count: Passes that it took.
        saliency: The map (H, W); None where it is withheld.
    """
    return {
        "explainer": explainer,
        "target": target,
        "status": code_of(status),
        "pass_count": pass_count,
        **(_shape_columns(saliency) if saliency is not None else {}),
    }


def put_explained(connection: Connection, sample_id: int, row: Mapping[str, Any]) -> None:
    """Stores what became of a map, in place of all that there was of that explainer: map, scores and curves, too.

    Args:
        connection: In a transaction that writes, and ends with `recount_explained`.
        sample_id: The sample.
        row: Its `explained_row`.
    """
    for deletion in _FORGET:
        connection.execute(deletion, {"of_sample": sample_id, "of_explainer": row["explainer"]})
    connection.execute(insert(explained), {"sample_id": sample_id, **row})


def recount_explained(connection: Connection, sample_id: int) -> None:
    """Updates a sample's `map_statuses` and `byte_count`."""
    connection.execute(_RECOUNT_EXPLAINED, {"counted_id": sample_id})


def remove_curves(connection: Connection, sample_id: int, score: ScoreRecord) -> None:
    """Removes the explainer's earlier curves of the kinds that a score has, at least one."""
    of_map = and_(curves.c.sample_id == sample_id, curves.c.explainer == score.explainer)
    kinds = [each.kind for each in score.curves]
    connection.execute(delete(curves).where(of_map, curves.c.kind.in_(kinds)))


def add_curves(connection: Connection, sample_id: int, measured: Sequence[ScoreRecord]) -> None:
    """Stores the curves of scores, of which there are none yet."""
    drawn = [_curve_row(sample_id, score, curve) for score in measured for curve in score.curves]
    if drawn:
        connection.execute(insert(curves), drawn)


def put_picture(connection: Connection, sample_id: int, thumbnail: bytes, png: bytes) -> None:
    """Stores a sample's thumbnail and model input, in place of earlier ones; of either there may be none."""
    for (table, column), data in zip(PICTURES.items(), (thumbnail, png), strict=True):
        connection.execute(delete(table).where(table.c.sample_id == sample_id))
        if data:
            connection.execute(insert(table), {"sample_id": sample_id, column: data})


def oldest_of(connection: Connection, columns: Columns, horizon: float, most: int) -> list[int]:
    """The oldest samples whose rows in some tables are to go, at most `REMOVED_AT_A_TIME`.

    Args:
        connection: In a transaction that reads: this looks at all rows.
        columns: The tables, with the column that takes the room.
        horizon: Rows of samples older than this Unix time are to go.
        most: Bytes that may stay of the others.
    """
    excess = _kept_bytes(connection, columns) - most
    lengths = union_all(
        *(select(table.c.sample_id, func.length(table.c[name]).label("size")) for table, name in columns.items())
    ).subquery()
    oldest = (
        select(samples.c.id, samples.c.time, func.sum(lengths.c.size).label("byte_count"))
        .join(lengths, lengths.c.sample_id == samples.c.id)
        .group_by(samples.c.id, samples.c.time)
        .order_by(samples.c.time, samples.c.id)
        .limit(REMOVED_AT_A_TIME)
    )
    if excess <= 0:
        oldest = oldest.where(samples.c.time < horizon)
    return [row.id for row in to_remove(connection.execute(oldest), horizon, excess)]


def remove_of(connection: Connection, columns: Columns, ids: Sequence[int]) -> None:
    """Removes the rows that some samples have in some tables."""
    for table in columns:
        connection.execute(delete(table).where(table.c.sample_id.in_(ids)))
    for sample_id in ids:
        connection.execute(RECOUNT, {"counted_id": sample_id})


def _kept_bytes(connection: Connection, columns: Columns) -> int:
    """Bytes of some columns."""
    sizes = (select(func.coalesce(func.sum(func.length(table.c[name])), 0)) for table, name in columns.items())
    return sum(int(connection.scalar(size) or 0) for size in sizes)


def _shape_columns(saliency: FloatArray) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if (shape := shape_of(saliency)) is not None:
        columns |= {name: getattr(shape, name) for name in SHAPES}
    if (small := small_map(saliency)) is not None:
        columns |= {f"small_{name}": getattr(small, name) for name in ("height", "width", "minimum", "maximum")}
        columns["small"] = small.values
    return columns


def _curve_row(sample_id: int, score: ScoreRecord, curve: MaskingCurve) -> dict[str, Any]:
    counts, probabilities = pack_curve(curve.pixel_counts, curve.probabilities)
    return {
        "sample_id": sample_id,
        "explainer": score.explainer,
        "kind": curve.kind,
        "metric": score.metric,
        "fill": curve.fill,
        "tie_seed": str(curve.tie_seed),
        "pixel_counts": counts,
        "probabilities": probabilities,
    }
