"""States of samples, and recent scores and OoD scores, as part of the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, and_, func, select, true

from xai_sidecar.evaluator.records import SampleKey, SampleState, ScoreRecord
from xai_sidecar.evaluator.store.rows import code_of, score_record, state_of
from xai_sidecar.evaluator.store.tables import samples, scores
from xai_sidecar.metrics.base import ScoreStatus


def load_states(connection: Connection) -> list[tuple[SampleKey, SampleState]]:
    """See `Store.states`."""
    found = select(samples.c.request_id, samples.c.image_index, samples.c.state).order_by(samples.c.id)
    return [(SampleKey(name, index), state_of(state)) for name, index, state in connection.execute(found)]


def load_scores(
    connection: Connection, model_version: str, since: float, limit_samples: int, definitions: Collection[str] | None
) -> list[tuple[SampleKey, float, float, ScoreRecord]]:
    """See `Store.recent_scores`."""
    place = func.row_number().over(
        partition_by=(scores.c.explainer, scores.c.metric), order_by=(samples.c.time.desc(), samples.c.id.desc())
    )
    ranked = (
        select(
            samples.c.request_id,
            samples.c.image_index,
            samples.c.time.label("sample_time"),
            samples.c.weight,
            scores,
            place.label("place"),
        )
        .join(scores, scores.c.sample_id == samples.c.id)
        .where(
            samples.c.model_version == model_version,
            samples.c.time >= since,
            scores.c.status == code_of(ScoreStatus.OK),
            true() if definitions is None else scores.c.definition.in_(sorted(definitions)),
        )
        .subquery()
    )
    wanted = (
        select(ranked)
        .where(ranked.c.place <= limit_samples)
        .order_by(ranked.c.sample_time, ranked.c.sample_id, ranked.c.explainer, ranked.c.metric)
    )
    return [
        (SampleKey(row.request_id, row.image_index), row.sample_time, row.weight, score_record(row))
        for row in connection.execute(wanted)
    ]


def load_ood(
    connection: Connection, model_version: str, since: float, limit: int
) -> list[tuple[SampleKey, float, float, tuple[float, float]]]:
    """See `Store.recent_ood`."""
    known = and_(samples.c.ood_score.is_not(None), samples.c.ood_percentile.is_not(None))
    wanted = (
        select(samples)
        .where(samples.c.model_version == model_version, samples.c.time >= since, known)
        .order_by(samples.c.time.desc(), samples.c.id.desc())
        .limit(limit)
    )
    newest = connection.execute(wanted).all()
    return [
        (SampleKey(row.request_id, row.image_index), row.time, row.weight, (row.ood_score, row.ood_percentile))
        for row in reversed(newest)
    ]
