"""From reports of ground truth to what the evaluator takes; every error names its field in the report."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from xai_sidecar.config import ServerConfig
from xai_sidecar.errors import InvalidRequestError, PictureTooLargeError, SidecarError, quoted, shortened, within
from xai_sidecar.evaluator.annotations import MOST_POINTS
from xai_sidecar.evaluator.ingest import Receipt
from xai_sidecar.evaluator.records import (
    Annotation,
    GroundTruth,
    MaskAnnotation,
    PolygonAnnotation,
    SampleKey,
    TruthObject,
)
from xai_sidecar.evaluator.store import Reported
from xai_sidecar.serving.model import ServedModel
from xai_sidecar.serving.request_ids import valid_request_id
from xai_sidecar.serving.requests import GroundTruthReport, ReportedObject, ReportedPolygon

_MOST_OBJECTS = 1000
_MOST_WARNINGS = 10
_MOST_CORNERS = 100_000
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class GroundTruthReceipt:
    """What became of a report.

    Attributes:
        changed: False if the same had been reported before.
        warnings: What may not be what was meant, a sentence each, with the field that it is about.
    """

    changed: bool
    warnings: tuple[str, ...]


def check_report(report: GroundTruthReport, model: ServedModel) -> tuple[SampleKey, GroundTruth]:
    """Checks all of a report that can be checked without the picture.

    Raises:
        InvalidRequestError: With the path of the field at fault.
    """
    if not valid_request_id(report.request_id):
        raise InvalidRequestError(
            "Give the request_id of a PredictResponse: 1 to 128 characters of [A-Za-z0-9._:-].", field="request_id"
        )
    if report.image_index < 0:
        raise InvalidRequestError(f"It is {report.image_index}; the first picture is 0.", field="image_index")
    _check_counts(report, len(model.labels))
    class_ids = {_class_of(label, model, f"labels[{index}]") for index, label in enumerate(report.labels)}
    for index, class_id in enumerate(report.class_ids):
        class_ids.add(_checked(class_id, model, f"class_ids[{index}]"))
    objects = [TruthObject(box) for box in report.boxes]
    objects += _objects(report.objects, class_ids, model)
    _check_amount(objects, len(report.boxes), model.config.server)
    if not class_ids and not objects:
        raise InvalidRequestError("The report is empty. Give a label, a class id, a box or an object.", field="labels")
    key = SampleKey(report.request_id, report.image_index)
    return key, GroundTruth(tuple(sorted(class_ids)), tuple(objects), time.time())


def receipt_of(receipt: Receipt, report: GroundTruthReport) -> GroundTruthReceipt:
    """What the evaluator says of a report, its warnings with the fields that they are about."""
    warnings = [f"{_field_of(report, number)}: {warning}" for number, warning in receipt.warnings]
    if len(warnings) > _MOST_WARNINGS:
        warnings[_MOST_WARNINGS:] = [f"There are {len(warnings) - _MOST_WARNINGS} more warnings like these."]
    return GroundTruthReceipt(receipt.reported is not Reported.REPEATED, tuple(warnings))


@contextmanager
def report_paths(report: GroundTruthReport) -> Iterator[None]:
    """Has errors about `GroundTruth.objects` name the field of the report: its boxes come first."""
    try:
        yield
    except SidecarError as error:
        found = re.fullmatch(r"objects\[(\d+)\](.*)", error.field)
        if found:
            field = _field_of(report, int(found[1]))
            error.field = field if field.startswith("boxes") else f"{field}{found[2]}"
        raise


def _check_counts(report: GroundTruthReport, class_count: int) -> None:
    for field, count, most in (
        ("labels", len(report.labels), class_count),
        ("class_ids", len(report.class_ids), class_count),
        ("objects" if report.objects else "boxes", len(report.boxes) + len(report.objects), _MOST_OBJECTS),
    ):
        if count > most:
            raise InvalidRequestError(f"There are {count:,} of them; give at most {most:,}.", field=field)


def _check_amount(objects: Sequence[TruthObject], box_count: int, limits: ServerConfig) -> None:
    """Bounds what all masks and polygons of a report take to look at."""
    pixels = corners = 0
    most_pixels = limits.most_request_pixels
    for index, annotation in enumerate(each.annotation for each in objects[box_count:]):
        if isinstance(annotation, PolygonAnnotation):
            corners += len(annotation.points)
        elif isinstance(annotation, MaskAnnotation) and annotation.png.startswith(_PNG):
            width, height = struct.unpack_from(">II", annotation.png.ljust(24, b"\0"), 16)
            pixels += width * height
        if pixels > most_pixels:
            raise PictureTooLargeError(
                f"With this mask, those of the report have {pixels:,} pixels, of at most {most_pixels:,}. Report "
                "fewer objects by masks, and the others by polygons or boxes.",
                field=f"objects[{index}].mask_png",
            )
        if corners > _MOST_CORNERS:
            raise InvalidRequestError(
                f"With this polygon, those of the report have {corners:,} corners, of at most {_MOST_CORNERS:,}. "
                "Leave out corners, or report fewer objects.",
                field=f"objects[{index}].polygon",
            )


def _field_of(report: GroundTruthReport, number: int) -> str:
    """The field of an object of `GroundTruth.objects`: the report's boxes come first."""
    boxes = len(report.boxes)
    return f"boxes[{number}]" if number < boxes else f"objects[{number - boxes}]"


def _class_of(label: str, model: ServedModel, field: str) -> int:
    found = model.class_ids.get(label, ())
    if len(found) == 1:
        return found[0]
    if found:
        classes = shortened(", ".join(map(str, found)), 200)
        raise InvalidRequestError(
            f"{quoted(label)} is the label of classes {classes}. Give one of these class ids.", field=field
        )
    raise InvalidRequestError(
        f"The model has no class {quoted(label)}. Give one of ModelInfo.labels, or a class id.", field=field
    )


def _checked(class_id: int, model: ServedModel, field: str) -> int:
    if not 0 <= class_id < len(model.labels):
        raise InvalidRequestError(
            f"There is no class {class_id}; the model has 0 to {len(model.labels) - 1}.", field=field
        )
    return class_id


def _objects(objects: Collection[ReportedObject], reported: set[int], model: ServedModel) -> Iterator[TruthObject]:
    source = iter(objects)
    for index in range(len(objects)):
        with within(f"objects[{index}]"):
            yield _object(next(source), reported, model)


def _object(one: ReportedObject, reported: set[int], model: ServedModel) -> TruthObject:
    class_id = None if one.class_id is None else _checked(one.class_id, model, "class_id")
    if label := one.label:
        if class_id is None:
            class_id = _class_of(label, model, "label")
        elif model.labels[class_id] != label:
            raise InvalidRequestError(
                f"{quoted(label)} is not the label of class {class_id}. Give one of them.", field="label"
            )
    if class_id is not None and reported and class_id not in reported:
        raise InvalidRequestError(
            f"Its class, {quoted(model.labels[class_id])} ({class_id}), is not among those reported. Report it, too.",
            field="label" if one.class_id is None else "class_id",
        )
    return TruthObject(_annotation(one), class_id)


def _annotation(one: ReportedObject) -> Annotation:
    if one.shape is None:
        raise InvalidRequestError("It has no shape. Give a box, a polygon or a mask_png.", field="shape")
    if not isinstance(one.shape, ReportedPolygon):
        return one.shape
    points = one.shape.points
    if not 3 <= len(points) <= MOST_POINTS:
        raise InvalidRequestError(
            f"The polygon has {len(points):,} corners. Give 3 to {MOST_POINTS:,}.", field="polygon"
        )
    return PolygonAnnotation(tuple(points))
