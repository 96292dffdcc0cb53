"""From the contract's reports of ground truth to what the evaluator takes."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from xai_proto import explanation_pb2 as pb
from xai_sidecar.config import ServerConfig
from xai_sidecar.errors import InvalidRequestError, PictureTooLargeError, SidecarError, quoted, shortened, within
from xai_sidecar.evaluator.annotations import MOST_POINTS
from xai_sidecar.evaluator.ingest import Receipt
from xai_sidecar.evaluator.records import (
    BoxShape,
    GroundTruth,
    MaskShape,
    PolygonShape,
    SampleKey,
    Shape,
    TruthObject,
)
from xai_sidecar.evaluator.store import Reported
from xai_sidecar.rpc.decode import valid_request_id
from xai_sidecar.serving.model import ServedModel

_MOST_OBJECTS = 1000
_MOST_WARNINGS = 10
_MOST_CORNERS = 100_000
_PNG = b"\x89PNG\r\n\x1a\n"


def read_ground_truth(request: pb.ReportGroundTruthRequest, model: ServedModel) -> tuple[SampleKey, GroundTruth]:
    """Checks all of a report that can be checked without the picture.

    Raises:
        InvalidRequestError: With the path of the field at fault.
    """
    if not valid_request_id(request.request_id):
        raise InvalidRequestError(
            "Give the request_id of a PredictResponse: 1 to 128 characters of [A-Za-z0-9._:-].", field="request_id"
        )
    if request.image_index < 0:
        raise InvalidRequestError(f"It is {request.image_index}; the first picture is 0.", field="image_index")
    class_count, object_count = len(model.labels), len(request.boxes) + len(request.objects)
    for field, count, most in (
        ("labels", len(request.labels), class_count),
        ("class_ids", len(request.class_ids), class_count),
        ("objects" if request.objects else "boxes", object_count, _MOST_OBJECTS),
    ):
        if count > most:
            raise InvalidRequestError(f"There are {count:,} of them; give at most {most:,}.", field=field)
    class_ids = {_class_of(label, model, f"labels[{index}]") for index, label in enumerate(request.labels)}
    for index, class_id in enumerate(request.class_ids):
        class_ids.add(_checked(class_id, model, f"class_ids[{index}]"))
    objects = [TruthObject(_box(box)) for box in request.boxes]
    for index, one in enumerate(request.objects):
        with within(f"objects[{index}]"):
            objects.append(_object(one, class_ids, model))
    _check_amount(objects, len(request.boxes), model.config.server)
    if not class_ids and not objects:
        raise InvalidRequestError("The report is empty. Give a label, a class id, a box or an object.", field="labels")
    key = SampleKey(request.request_id, request.image_index)
    return key, GroundTruth(tuple(sorted(class_ids)), tuple(objects), time.time())


def _check_amount(objects: Sequence[TruthObject], box_count: int, limits: ServerConfig) -> None:
    """Bounds what all masks and polygons of a report take to look at."""
    pixels = corners = 0
    most_pixels = limits.most_request_pixels
    for index, shape in enumerate(each.shape for each in objects[box_count:]):
        if isinstance(shape, PolygonShape):
            corners += len(shape.points)
        elif isinstance(shape, MaskShape) and shape.png.startswith(_PNG):
            width, height = struct.unpack_from(">II", shape.png.ljust(24, b"\0"), 16)
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


@contextmanager
def fields_of(request: pb.ReportGroundTruthRequest) -> Iterator[None]:
    """Has errors about `GroundTruth.objects` name the field of the request: its boxes come first."""
    try:
        yield
    except SidecarError as error:
        found = re.fullmatch(r"objects\[(\d+)\](.*)", error.field)
        if found:
            field = _field_of(request, int(found[1]))
            error.field = field if field.startswith("boxes") else f"{field}{found[2]}"
        raise


def ground_truth_response(request: pb.ReportGroundTruthRequest, receipt: Receipt) -> pb.ReportGroundTruthResponse:
    """What became of a report, its warnings with the fields that they are about."""
    told = [f"{_field_of(request, number)}: {warning}" for number, warning in receipt.warnings]
    if len(told) > _MOST_WARNINGS:
        told[_MOST_WARNINGS:] = [f"There are {len(told) - _MOST_WARNINGS} more warnings like these."]
    return pb.ReportGroundTruthResponse(changed=receipt.reported is not Reported.REPEATED, warnings=told)


def _field_of(request: pb.ReportGroundTruthRequest, number: int) -> str:
    """The field of an object of `GroundTruth.objects`: the request's boxes come first."""
    boxes = len(request.boxes)
    return f"boxes[{number}]" if number < boxes else f"objects[{number - boxes}]"


def _class_of(label: str, model: ServedModel, field: str) -> int:
    found = model.class_ids.get(label, ())
    if len(found) == 1:
        return found[0]
    if found:
        told = shortened(", ".join(map(str, found)), 200)
        raise InvalidRequestError(
            f"{quoted(label)} is the label of classes {told}. Give one of these class ids.", field=field
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


def _object(one: pb.GroundTruthObject, reported: set[int], model: ServedModel) -> TruthObject:
    class_id = _checked(one.class_id, model, "class_id") if one.HasField("class_id") else None
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
            field="class_id" if one.HasField("class_id") else "label",
        )
    return TruthObject(_shape(one), class_id)


def _shape(one: pb.GroundTruthObject) -> Shape:
    kind = one.WhichOneof("shape")
    if kind == "box":
        return _box(one.box)
    if kind == "polygon":
        points = one.polygon.points
        if not 3 <= len(points) <= MOST_POINTS:
            raise InvalidRequestError(
                f"The polygon has {len(points):,} corners. Give 3 to {MOST_POINTS:,}.", field="polygon"
            )
        return PolygonShape(tuple((point.x, point.y) for point in points))
    if kind == "mask_png":
        return MaskShape(one.mask_png)
    raise InvalidRequestError("It has no shape. Give a box, a polygon or a mask_png.", field="shape")


def _box(box: pb.Region) -> BoxShape:
    return BoxShape(box.left, box.top, box.right, box.bottom)
