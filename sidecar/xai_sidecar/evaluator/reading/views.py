"""What lists show of samples, read for all samples of a page at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, Table, and_, func, select

from xai_sidecar.evaluator.controls import is_control
from xai_sidecar.evaluator.records import SampleRecord
from xai_sidecar.evaluator.store import rows
from xai_sidecar.evaluator.store.outcomes import Outcome
from xai_sidecar.evaluator.store.small import SmallMap, TopClass, unpack_classes
from xai_sidecar.evaluator.store.tables import (
    class_outcomes,
    explained,
    ground_truth_classes,
    ground_truth_objects,
    ground_truths,
    maps,
    predictions,
    samples,
    scores,
    thumbnails,
    top_classes,
)
from xai_sidecar.evaluator.store.truths import classes_by_sample
from xai_sidecar.explainers.base import MapStatus


@dataclass(frozen=True)
class Extras:
    """What to load of each sample besides.

    Attributes:
        thumbnails: Whether thumbnails.
        map_of: The explainer or control whose small map; empty for none.
    """

    thumbnails: bool = False
    map_of: str = ""


@dataclass(frozen=True)
class TruthView:
    """What is known to be true of a sample.

    Attributes:
        time: When it was reported, as Unix time.
        class_ids: The classes that apply, rising.
        object_count: Number of objects.
        applied: Whether the scores are by it.
    """

    time: float
    class_ids: tuple[int, ...]
    object_count: int
    applied: bool


@dataclass(frozen=True)
class ExplainedView:
    """What became of an explainer's map.

    Attributes:
        status: The map's.
        kept: Whether its values are still kept.
    """

    status: MapStatus
    kept: bool


@dataclass(frozen=True)
class SampleView:
    """What a list shows of a sample.

    Attributes:
        record: The sample.
        classes: The most probable classes; of what older versions kept, the one explained alone, without its logit.
        outcomes: How right the prediction was, by class.
        truth: What is known to be true; None if nothing is.
        explained: What has become of it, by explainer, without controls.
        has_thumbnail: Whether there is one.
        thumbnail: It, as a JPEG file, where that was asked for.
        small_map: The small map of the explainer asked for; None if there is none.
        score: The score that was asked for; None for none.
    """

    record: SampleRecord
    classes: tuple[TopClass, ...]
    outcomes: Mapping[int, Outcome]
    truth: TruthView | None = None
    explained: Mapping[str, ExplainedView] = field(default_factory=dict)
    has_thumbnail: bool = False
    thumbnail: bytes = b""
    small_map: SmallMap | None = None
    score: float | None = None


def load_views(
    connection: Connection, chosen: Sequence[int], extras: Extras, score_of: tuple[str, str] | None = None
) -> list[SampleView]:
    """What lists show of some samples.

    Args:
        connection: In a transaction that reads.
        chosen: Ids of the samples, at most some hundred, in order.
        extras: What to load besides.
        score_of: Explainer and metric whose scores to load; None for none.
    """
    if not chosen:
        return []
    found = {row.id: row for row in connection.execute(select(samples).where(samples.c.id.in_(chosen)))}
    positives = classes_by_sample(connection, predictions, chosen)
    classes = {row.sample_id: unpack_classes(row.classes) for row in _rows(connection, top_classes, chosen)}
    outcomes: dict[int, dict[int, Outcome]] = defaultdict(dict)
    for row in _rows(connection, class_outcomes, chosen):
        outcomes[row.sample_id][row.class_id] = Outcome(row.outcome)
    truths = load_truths(connection, chosen)
    became = _explained(connection, chosen)
    pictures = _thumbnails(connection, chosen, with_data=extras.thumbnails)
    values = _values(connection, chosen, *score_of) if score_of else {}
    small = _small_maps(connection, chosen, extras.map_of) if extras.map_of else {}
    return [
        SampleView(
            record=(record := rows.sample_record(found[each], positives[each])),
            classes=classes.get(each) or (TopClass(record.target, record.probability, float("nan")),),
            outcomes=dict(sorted(outcomes[each].items())),
            truth=truths.get(each),
            explained=became[each],
            has_thumbnail=each in pictures,
            thumbnail=pictures.get(each, b""),
            small_map=small.get(each),
            score=values.get(each),
        )
        for each in chosen
    ]


def load_truths(connection: Connection, ids: Sequence[int]) -> dict[int, TruthView]:
    """What is known to be true of some samples, by id."""
    number = func.count().label("number")
    counts = {
        row.sample_id: row.number
        for row in connection.execute(
            select(ground_truth_objects.c.sample_id, number)
            .where(ground_truth_objects.c.sample_id.in_(ids))
            .group_by(ground_truth_objects.c.sample_id)
        )
    }
    true = classes_by_sample(connection, ground_truth_classes, ids)
    return {
        row.sample_id: TruthView(row.time, true[row.sample_id], counts.get(row.sample_id, 0), bool(row.applied))
        for row in _rows(connection, ground_truths, ids)
    }


def small_of(row: Row[Any]) -> SmallMap | None:
    """The small map of a row of `explained`; None if there is none."""
    if row.small is None:
        return None
    return SmallMap(row.small_height, row.small_width, row.small_minimum, row.small_maximum, bytes(row.small))


def _rows(connection: Connection, table: Table, ids: Sequence[int]) -> Sequence[Row[Any]]:
    return connection.execute(select(table).where(table.c.sample_id.in_(ids))).all()


def _explained(connection: Connection, ids: Sequence[int]) -> dict[int, dict[str, ExplainedView]]:
    of_samples = select(maps.c.sample_id, maps.c.explainer).where(maps.c.sample_id.in_(ids))
    kept = {(row.sample_id, row.explainer) for row in connection.execute(of_samples)}
    columns = (explained.c.sample_id, explained.c.explainer, explained.c.status)
    found: dict[int, dict[str, ExplainedView]] = defaultdict(dict)
    for sample_id, explainer, status in connection.execute(
        select(*columns).where(explained.c.sample_id.in_(ids)).order_by(explained.c.explainer)
    ):
        if not is_control(explainer):
            found[sample_id][explainer] = ExplainedView(
                rows.member_of(MapStatus, status), (sample_id, explainer) in kept
            )
    return found


def _thumbnails(connection: Connection, ids: Sequence[int], *, with_data: bool) -> dict[int, bytes]:
    if with_data:
        return {row.sample_id: bytes(row.jpeg) for row in _rows(connection, thumbnails, ids)}
    found = connection.scalars(select(thumbnails.c.sample_id).where(thumbnails.c.sample_id.in_(ids)))
    return dict.fromkeys(found, b"")


def _values(connection: Connection, ids: Sequence[int], explainer: str, metric: str) -> dict[int, float | None]:
    of_both = and_(scores.c.explainer == explainer, scores.c.metric == metric)
    found = select(scores.c.sample_id, scores.c.value).where(scores.c.sample_id.in_(ids), of_both)
    return {row.sample_id: row.value for row in connection.execute(found)}


def _small_maps(connection: Connection, ids: Sequence[int], explainer: str) -> dict[int, SmallMap]:
    found = connection.execute(
        select(explained).where(explained.c.sample_id.in_(ids), explained.c.explainer == explainer)
    )
    return {row.sample_id: small for row in found if (small := small_of(row)) is not None}
