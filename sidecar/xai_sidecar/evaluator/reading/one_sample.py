"""Everything that is kept of one sample."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, select, true

from xai_sidecar.evaluator.reading.views import Extras, SampleView, load_views
from xai_sidecar.evaluator.records import GroundTruth, MapRecord, SampleKey, ScoreRecord
from xai_sidecar.evaluator.store import rows, truths
from xai_sidecar.evaluator.store.queries import is_sample
from xai_sidecar.evaluator.store.small import unpack_curve
from xai_sidecar.evaluator.store.tables import curves, explained, maps, model_inputs, samples, scores
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.metrics.base import MaskingCurve


@dataclass(frozen=True)
class ShapeView:
    """How a map lies on its picture, as of `drift.shape.MapShape`."""

    concentration: float
    centre_x: float
    centre_y: float
    border: float


@dataclass(frozen=True)
class ExplanationView:
    """What an explainer, or a control, made of a sample.

    Attributes:
        explainer: Its name.
        target: The class that was explained.
        status: The map's.
        pass_count: Passes that it took.
        map: The map; None where it was withheld, or is no longer kept.
        scores: The map's, by metric.
        curves: What some of them were made of, by kind.
        shape: How the map lies; None of one that is the same all over.
    """

    explainer: str
    target: int
    status: MapStatus
    pass_count: int
    map: MapRecord | None
    scores: tuple[ScoreRecord, ...]
    curves: tuple[MaskingCurve, ...]
    shape: ShapeView | None


@dataclass(frozen=True)
class SampleDetail:
    """Everything that is kept of a sample.

    Attributes:
        view: What a list shows of it, with its thumbnail.
        truth: Its ground truth; None where there is none.
        input_png: What the model saw; empty where it is not kept.
        explanations: By explainer.
    """

    view: SampleView
    truth: GroundTruth | None
    input_png: bytes
    explanations: dict[str, ExplanationView]


def load_sample(connection: Connection, key: SampleKey, explainers: Collection[str] = ()) -> SampleDetail | None:
    """A sample; None if there is none of that key.

    Args:
        connection: In a transaction that reads.
        key: Which sample.
        explainers: The explainers and controls to load; of none, all.
    """
    sample_id = connection.scalar(select(samples.c.id).where(is_sample(key)))
    if sample_id is None:
        return None
    (view,) = load_views(connection, [sample_id], Extras(thumbnails=True))
    png = connection.scalar(select(model_inputs.c.png).where(model_inputs.c.sample_id == sample_id))
    return SampleDetail(
        view,
        truths.load_truth(connection, sample_id),
        bytes(png or b""),
        _explanations(connection, sample_id, explainers),
    )


def _explanations(connection: Connection, sample_id: int, names: Collection[str]) -> dict[str, ExplanationView]:
    def found(table: Table) -> list[Row[Any]]:
        chosen: ColumnElement[bool] = table.c.explainer.in_(sorted(names)) if names else true()
        query = select(table).where(table.c.sample_id == sample_id, chosen).order_by(*table.primary_key.columns)
        return list(connection.execute(query))

    kept = {row.explainer: rows.map_record(row) for row in found(maps)}
    scored, drawn = [rows.score_record(row) for row in found(scores)], found(curves)
    return {
        row.explainer: ExplanationView(
            explainer=row.explainer,
            target=row.target,
            status=rows.member_of(MapStatus, row.status),
            pass_count=row.pass_count,
            map=kept.get(row.explainer),
            scores=tuple(each for each in scored if each.explainer == row.explainer),
            curves=tuple(_curve(each) for each in drawn if each.explainer == row.explainer),
            shape=None
            if row.concentration is None
            else ShapeView(row.concentration, row.centre_x, row.centre_y, row.border),
        )
        for row in found(explained)
    }


def _curve(row: Row[Any]) -> MaskingCurve:
    counts, probabilities = unpack_curve(bytes(row.pixel_counts), bytes(row.probabilities))
    return MaskingCurve(row.kind, row.fill, int(row.tie_seed), counts, probabilities.astype(float))
