"""Queries that several methods of the store share, as parts of the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select

from xai_sidecar.evaluator.records import SampleKey, SampleRecord, ScoreRecord
from xai_sidecar.evaluator.store import rows, truths
from xai_sidecar.evaluator.store.details import add_curves, remove_curves
from xai_sidecar.evaluator.store.sizes import RECOUNT
from xai_sidecar.evaluator.store.tables import predictions, samples, scores


def is_sample(key: SampleKey) -> ColumnElement[bool]:
    """The condition that a row of `samples` is of a key."""
    return and_(samples.c.request_id == key.request_id, samples.c.image_index == key.image_index)


def locked(connection: Connection, key: SampleKey) -> int | None:
    """A sample's id, locked against other writers until the transaction ends; None if there is no such sample."""
    # SQLite ignores the lock: it has one writing transaction at a time.
    return connection.scalar(select(samples.c.id).where(is_sample(key)).with_for_update())


def recount(connection: Connection, sample_id: int) -> None:
    """Updates the `byte_count` of a sample."""
    connection.execute(RECOUNT, {"counted_id": sample_id})


def load(connection: Connection, key: SampleKey) -> SampleRecord | None:
    """A sample; None if there is none of that key."""
    row = connection.execute(select(samples).where(is_sample(key))).one_or_none()
    if row is None:
        return None
    return rows.sample_record(row, truths.classes_by_sample(connection, predictions, [row.id])[row.id])


def put_scores(connection: Connection, sample_id: int, measured: Sequence[ScoreRecord]) -> None:
    """Stores scores with their curves, each in place of an earlier one by that explainer and metric."""
    metrics: dict[str, list[str]] = {}
    for record in measured:
        metrics.setdefault(record.explainer, []).append(record.metric)
    for explainer, names in metrics.items():
        same = scores.c.explainer == explainer, scores.c.metric.in_(names)
        connection.execute(delete(scores).where(scores.c.sample_id == sample_id, *same))
    for record in measured:
        if record.curves:
            remove_curves(connection, sample_id, record)
    add_scores(connection, sample_id, measured)


def add_scores(connection: Connection, sample_id: int, measured: Sequence[ScoreRecord]) -> None:
    """Stores scores with their curves; there are none yet by those explainers and metrics."""
    if measured:
        connection.execute(insert(scores), [rows.score_row(sample_id, record) for record in measured])
    add_curves(connection, sample_id, measured)
