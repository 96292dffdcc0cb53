"""Conversion between records and rows of the tables."""

from __future__ import annotations

import enum
import json
import math
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Row

from xai_sidecar.engine.work import FloatArray
from xai_sidecar.errors import StoreError
from xai_sidecar.evaluator.records import (
    Annotation,
    BoxAnnotation,
    Frame,
    MapRecord,
    MaskAnnotation,
    PolygonAnnotation,
    SampleKey,
    SampleRecord,
    SampleState,
    ScoreRecord,
    TruthObject,
)
from xai_sidecar.evaluator.store.arrays import pack, unpack
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.imaging import Region
from xai_sidecar.metrics.base import ScoreStatus


@dataclass(frozen=True, eq=False)
class KeptPicture:
    """A pending sample's arrays, from which it can be measured after a restart.

    Attributes:
        image: (C, H, W) float32, the model input.
        logits: (classes,) float32; of a picture kept by an older version the probabilities, which have their order.
        probabilities: (classes,) float32.
    """

    image: FloatArray
    logits: FloatArray
    probabilities: FloatArray


E = TypeVar("E", bound=enum.Enum)


def code_of(member: enum.Enum) -> str:
    """The text that a column has for an enum's member: its name, which is more stable than its value."""
    return member.name.lower()


def state_of(code: str) -> SampleState:
    """The state of a sample that a column's text stands for."""
    return member_of(SampleState, code)


def member_of(kind: type[E], code: str) -> E:
    """The enum's member of a column's text.

    Raises:
        StoreError: There is none.
    """
    try:
        return kind[code.upper()]
    except KeyError as error:
        raise StoreError(f"The evaluator's store has an unknown {kind.__name__} {code!r}.") from error


def _number(value: float | None) -> float | None:
    """A number for a column: NULL for NaN, which SQLite does not have."""
    return None if value is None or math.isnan(value) else float(value)


def sample_row(record: SampleRecord) -> dict[str, Any]:
    """The row of `samples`, without `id` and `byte_count`."""
    frame, ood = record.frame, record.ood or (None, None)
    width, height = frame.picture_size or (None, None)
    return {
        "request_id": record.key.request_id,
        "image_index": record.key.image_index,
        "time": record.time,
        "model_version": record.model_version,
        "state": code_of(record.state),
        "target": record.target,
        "probability": _number(record.probability),
        "height": frame.height,
        "width": frame.width,
        "picture_width": width,
        "picture_height": height,
        **{f"region_{side}": getattr(frame.region, side, None) for side in ("left", "top", "right", "bottom")},
        "ood_score": _number(ood[0]),
        "ood_percentile": _number(ood[1]),
        "inclusion": record.inclusion,
        "weight": record.weight,
    }


def sample_record(row: Row[Any], positives: tuple[int, ...]) -> SampleRecord:
    """The sample of a row, with its classes from `predictions`."""
    frame = Frame(
        height=row.height,
        width=row.width,
        picture_size=None if row.picture_width is None else (row.picture_width, row.picture_height),
        region=None
        if row.region_left is None
        else Region(row.region_left, row.region_top, row.region_right, row.region_bottom),
    )
    return SampleRecord(
        key=SampleKey(row.request_id, row.image_index),
        time=row.time,
        model_version=row.model_version,
        frame=frame,
        target=row.target,
        probability=math.nan if row.probability is None else row.probability,
        positives=positives,
        ood=ood_of(row),
        state=member_of(SampleState, row.state),
        inclusion=row.inclusion,
        weight=row.weight,
    )


def ood_of(row: Row[Any]) -> tuple[float, float] | None:
    """The OoD score and percentile in a row of `samples`."""
    if row.ood_score is None and row.ood_percentile is None:
        return None
    score, percentile = (math.nan if value is None else value for value in (row.ood_score, row.ood_percentile))
    return score, percentile


def picture_row(kept: KeptPicture) -> dict[str, Any]:
    """The row of `pictures`, without `sample_id`."""
    channels, height, width = kept.image.shape
    return {
        "channels": channels,
        "height": height,
        "width": width,
        "image": pack(kept.image),
        "class_count": kept.probabilities.size,
        "logits": pack(kept.logits),
        "probabilities": pack(kept.probabilities),
    }


def kept_picture(row: Row[Any]) -> KeptPicture:
    """The picture of a row."""
    probabilities = unpack(row.probabilities, row.class_count)
    return KeptPicture(
        image=unpack(row.image, row.channels, row.height, row.width),
        logits=probabilities if row.logits is None else unpack(row.logits, row.class_count),
        probabilities=probabilities,
    )


def map_row(record: MapRecord) -> dict[str, Any]:
    """The row of `maps`, without `sample_id`."""
    height, width = record.saliency.shape
    return {
        "explainer": record.explainer,
        "target": record.target,
        "parameters": json.dumps(dict(record.parameters)),
        "seed": str(record.seed),
        "status": code_of(record.status),
        "height": height,
        "width": width,
        "saliency": pack(record.saliency),
        "pass_count": record.pass_count,
        "definition": record.definition or None,
    }


def map_record(row: Row[Any]) -> MapRecord:
    """The map of a row."""
    return MapRecord(
        explainer=row.explainer,
        target=row.target,
        parameters=json.loads(row.parameters),
        seed=int(row.seed),
        status=member_of(MapStatus, row.status),
        saliency=unpack(row.saliency, row.height, row.width),
        pass_count=row.pass_count,
        definition=row.definition or "",
    )


def score_row(sample_id: int, record: ScoreRecord) -> dict[str, Any]:
    """The row of `scores`."""
    return {
        "sample_id": sample_id,
        "explainer": record.explainer,
        "metric": record.metric,
        "target": record.target,
        "value": record.value,
        "status": None if record.status is None else code_of(record.status),
        "time": record.time,
        "seconds": record.seconds,
        "pass_count": record.pass_count,
        "definition": record.definition or None,
    }


def score_record(row: Row[Any]) -> ScoreRecord:
    """The score of a row."""
    return ScoreRecord(
        explainer=row.explainer,
        metric=row.metric,
        target=row.target,
        value=row.value,
        status=None if row.status is None else member_of(ScoreStatus, row.status),
        time=row.time,
        seconds=row.seconds,
        pass_count=row.pass_count,
        definition=row.definition or "",
    )


def object_row(sample_id: int, number: int, thing: TruthObject) -> dict[str, Any]:
    """The row of `ground_truth_objects`."""
    kind, points, mask = _annotation_columns(thing.annotation)
    return {
        "sample_id": sample_id,
        "number": number,
        "class_id": thing.class_id,
        "shape": kind,
        "points": None if points is None else json.dumps(points),
        "mask": mask,
    }


def _annotation_columns(annotation: Annotation) -> tuple[str, list[Any] | None, bytes | None]:
    if isinstance(annotation, BoxAnnotation):
        return "box", [annotation.left, annotation.top, annotation.right, annotation.bottom], None
    if isinstance(annotation, PolygonAnnotation):
        return "polygon", [list(point) for point in annotation.points], None
    return "mask", None, annotation.png


def truth_object(row: Row[Any]) -> TruthObject:
    """The object of a row."""
    annotation: Annotation
    if row.shape == "box":
        annotation = BoxAnnotation(*json.loads(row.points))
    elif row.shape == "polygon":
        annotation = PolygonAnnotation(tuple((x, y) for x, y in json.loads(row.points)))
    else:
        annotation = MaskAnnotation(bytes(row.mask))
    return TruthObject(annotation, row.class_id)
