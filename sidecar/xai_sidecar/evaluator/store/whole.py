"""Samples that are stored with all that came of them, once they are measured, rather than bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, update

from xai_sidecar.evaluator.records import GroundTruth, MapRecord, SampleKey, SampleRecord, ScoreRecord
from xai_sidecar.evaluator.store import rows, truths
from xai_sidecar.evaluator.store.changes import Change
from xai_sidecar.evaluator.store.details import explained_row, put_classes, put_picture, recount_explained
from xai_sidecar.evaluator.store.outcomes import Outcome, put_unknown, update_outcomes
from xai_sidecar.evaluator.store.queries import is_sample, put_scores
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


def put_measured(store: Store, measured: Sequence[MeasuredSample]) -> None:
    """Stores samples with all that came of them, in place of what there is of them: all or nothing.

    Args:
        store: Where to.
        measured: The samples. How large their ground truths are is not bounded.

    Raises:
        StoreError: The database failed.
    """
    packed = [(each, _packed(each)) for each in measured]  # before others wait for the transaction
    with store.database.write(growing=True) as connection:
        for each, of_maps in packed:
            _put(connection, each, of_maps)
    for change in (Change.NEW, Change.MEASURED):
        for each in measured:
            store.changes.put(each.key, change)


_Packed = tuple[list[dict[str, Any]], list[dict[str, Any]]]
"""Rows of `explained` and of `maps`, without `sample_id`."""


def _packed(one: MeasuredSample) -> _Packed:
    shown = [
        explained_row(each.explainer, each.target, each.status, each.pass_count, each.saliency)
        for each in one.maps.values()
    ]
    withheld = [explained_row(*each) for each in one.withheld.values()]
    return [*shown, *withheld], [rows.map_row(each) for each in one.maps.values()]


def _put(connection: Connection, one: MeasuredSample, packed: _Packed) -> None:
    connection.execute(delete(samples).where(is_sample(one.key)))
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
    for of_maps in packed[0]:  # one by one: they have columns of their own
        connection.execute(insert(explained), {"sample_id": sample_id, **of_maps})
    if packed[1]:
        connection.execute(insert(maps), [{"sample_id": sample_id, **of_maps} for of_maps in packed[1]])
    put_scores(connection, sample_id, list(one.scores.values()))
    recount_explained(connection, sample_id)
