"""Samples that are stored with all that came of them, once they are measured, rather than bit by bit."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, update

from xai_sidecar.evaluator.records import GroundTruth, MapRecord, SampleKey, SampleRecord, ScoreRecord
from xai_sidecar.evaluator.store import rows, truths
from xai_sidecar.evaluator.store.changes import Change
from xai_sidecar.evaluator.store.details import explained_row, put_classes, put_picture, recount_explained
from xai_sidecar.evaluator.store.outcomes import Outcome, put_unknown, update_outcomes
from xai_sidecar.evaluator.store.queries import add_scores, is_sample
from xai_sidecar.evaluator.store.small import TopClass
from xai_sidecar.evaluator.store.store import Store
from xai_sidecar.evaluator.store.tables import explained, ground_truths, maps, predictions, samples
from xai_sidecar.explainers.base import MapStatus


class WithheldMap(NamedTuple):
    """A map that was made and must not be shown; see `DetailStore.put_withheld`."""

    explainer: str
    target: int
    status: MapStatus
    pass_count: int


@dataclass(eq=False)
class MeasuredSample:
    """A sample with all that came of measuring it.

    Attributes:
        record: The sample.
        classes: The most probable classes, the most probable first.
        truth: What is known to be on the picture, as far as the scores are by it; None of nothing.
        thumbnail: The picture, small, as a JPEG file; empty for none.
        png: What the model saw, as a PNG file; empty for none.
        maps: By explainer.
        withheld: Those that must not be shown, likewise.
        scores: By explainer and metric.
    """

    record: SampleRecord
    classes: Sequence[TopClass] = ()
    truth: GroundTruth | None = None
    thumbnail: bytes = b""
    png: bytes = b""
    maps: dict[str, MapRecord] = field(default_factory=dict)
    withheld: dict[str, WithheldMap] = field(default_factory=dict)
    scores: dict[tuple[str, str], ScoreRecord] = field(default_factory=dict)

    @property
    def key(self) -> SampleKey:
        """Which sample it is."""
        return self.record.key


@dataclass(frozen=True, eq=False)
class PackedSample:
    """A measured sample as it is stored: maps are packed already, which takes most of the time of storing it.

    Attributes:
        record: The sample.
        classes: As of `MeasuredSample`.
        truth: As of `MeasuredSample`.
        scores: All of them.
        explained: Rows of `explained`, without `sample_id`.
        maps: Rows of `maps`, without `sample_id`.
        thumbnail: As of `MeasuredSample`.
        png: As of `MeasuredSample`.
    """

    record: SampleRecord
    classes: Sequence[TopClass]
    truth: GroundTruth | None
    scores: Sequence[ScoreRecord]
    explained: Sequence[Mapping[str, Any]]
    maps: Sequence[Mapping[str, Any]]
    thumbnail: bytes = b""
    png: bytes = b""


def pack(one: MeasuredSample) -> PackedSample:
    """Packs a measured sample."""
    shown = [
        explained_row(each.explainer, each.target, each.status, each.pass_count, each.saliency)
        for each in one.maps.values()
    ]
    withheld = [explained_row(*each) for each in one.withheld.values()]
    packed = [rows.map_row(each) for each in one.maps.values()]
    scores, explanations = list(one.scores.values()), [*shown, *withheld]
    return PackedSample(one.record, one.classes, one.truth, scores, explanations, packed, one.thumbnail, one.png)


def put_measured(store: Store, measured: Sequence[PackedSample]) -> None:
    """Stores samples with all that came of them, in place of what there is of them: all or nothing.

    Args:
        store: Where to.
        measured: The samples. How large their ground truths are is not bounded.

    Raises:
        StoreError: The database failed.
    """
    with store.database.write(growing=True) as connection:
        for each in measured:
            _put(connection, each)
    for change in (Change.NEW, Change.MEASURED):
        for each in measured:
            store.changes.put(each.record.key, change)


def _put(connection: Connection, one: PackedSample) -> None:
    connection.execute(delete(samples).where(is_sample(one.record.key)))
    row = {**rows.sample_row(one.record), "byte_count": 0, "outcomes": int(Outcome.UNKNOWN)}
    (sample_id,) = connection.execute(insert(samples), row).inserted_primary_key or (0,)
    positives = one.record.positives
    if positives:
        of_sample = [{"sample_id": sample_id, "class_id": class_id} for class_id in positives]
        connection.execute(insert(predictions), of_sample)
    put_unknown(connection, sample_id, positives)
    put_classes(connection, sample_id, one.classes)
    put_picture(connection, sample_id, one.thumbnail, one.png)
    if one.truth is not None:
        truths.put_truth(connection, sample_id, one.truth)
        of_truth = ground_truths.c.sample_id == sample_id
        connection.execute(update(ground_truths).where(of_truth).values(applied=True))
        update_outcomes(connection, sample_id)
    by_columns = itertools.groupby(sorted(one.explained, key=len), tuple)  # of a withheld map there are fewer
    for _, alike in by_columns:
        connection.execute(insert(explained), [{"sample_id": sample_id, **of_map} for of_map in alike])
    if one.maps:
        connection.execute(insert(maps), [{"sample_id": sample_id, **of_map} for of_map in one.maps])
    add_scores(connection, sample_id, one.scores)
    recount_explained(connection, sample_id)
