"""Reports of ground truth as requests. What can be known to be wrong without the server is refused here."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xai_client.calls import check_request_id
from xai_client.errors import ArgumentError, ImageError
from xai_client.request import integer
from xai_proto import explanation_pb2 as pb

MaskLike: TypeAlias = NDArray[Any] | Image.Image | str | os.PathLike[str] | bytes
"""A bool or uint8 array (H, W), a PIL image, or the path or the bytes of a PNG file. Of an array what is not 0 belongs
to the object, of a picture what is neither black nor wholly transparent."""

_LARGEST = 2**31 - 1


class GroundTruthWarning(UserWarning):
    """A report of ground truth was taken, and may not be what was meant: an object reaches beyond the picture, say."""


_MASK_KINDS = "a mask is a bool or uint8 array (H, W), a PIL image, or the path or the bytes of a PNG file"


@dataclass(frozen=True, eq=False)
class GroundTruthObject:
    """Something that a picture really shows: one of `box`, `polygon` and `mask`.

    Coordinates are pixels of the upright picture (EXIF orientation applied), or of the model input where one was sent.

    Attributes:
        box: (left, top, right, bottom); right and bottom exclusive.
        polygon: At least three corners (x, y). What lies inside is by the even-odd rule.
        mask: Any shape, of the size of the picture: see `MaskLike`.
        label: What it is, one of `ModelInfo.labels`. If any labels or class ids are reported, one of those.
        class_id: Instead of `label`, its class id. Without both it is of every class that is reported or, when none is,
            of the one that was explained.

    Raises:
        ArgumentError: There is not exactly one shape, or something is wrong with it.
    """

    box: Sequence[float] | None = None
    polygon: Iterable[Sequence[float]] | None = None
    mask: MaskLike | None = None
    label: str | None = None
    class_id: int | None = None

    def __post_init__(self) -> None:
        shapes = [name for name in ("box", "polygon", "mask") if getattr(self, name) is not None]
        if len(shapes) != 1:
            given = " and ".join(shapes) or "none"
            raise ArgumentError(f"an object has one shape, a box, a polygon or a mask; given: {given}", field="objects")
        if self.box is not None:
            object.__setattr__(self, "box", _box(self.box))
        if self.polygon is not None:
            object.__setattr__(self, "polygon", _polygon(self.polygon))
        if self.label is not None:
            _label(self.label)
        if self.class_id is not None:
            integer(self.class_id, "class_id", 0, _LARGEST)

    def to_message(self) -> pb.GroundTruthObject:
        """The message.

        Raises:
            ArgumentError: The mask is none.
            OSError: Its file cannot be read; FileNotFoundError if there is none.
        """
        message = pb.GroundTruthObject(label=self.label or "", class_id=self.class_id)
        if self.box is not None:
            message.box.CopyFrom(_region(self.box))
        if self.polygon is not None:
            message.polygon.points.extend(pb.Point(x=x, y=y) for x, y in self.polygon)
        if self.mask is not None:
            message.mask_png = _mask_png(self.mask)
        return message


def ground_truth_request(
    request_id: str,
    labels: str | Iterable[str] = (),
    boxes: Iterable[Sequence[float]] = (),
    image_index: int = 0,
    *,
    objects: GroundTruthObject | Iterable[GroundTruthObject] = (),
    class_ids: int | Iterable[int] = (),
    keep_unmentioned: bool = False,
) -> pb.ReportGroundTruthRequest:
    """Builds a ReportGroundTruthRequest; see `Client.report_ground_truth` for the arguments.

    Raises:
        ArgumentError: An argument is wrong, or nothing is reported.
        OSError: The file of a mask cannot be read.
    """
    if not isinstance(request_id, str):
        raise ArgumentError(f"request_id is a text, not {request_id!r}", field="request_id")
    message = pb.ReportGroundTruthRequest(
        request_id=check_request_id(request_id),
        image_index=integer(image_index, "image_index", 0, _LARGEST),
        labels=[_label(each) for each in _several(labels, (str,))],
        class_ids=[integer(each, "class_ids", 0, _LARGEST) for each in _several(class_ids)],
        boxes=[_region(_box(each)) for each in _several(boxes)],
        keep_unmentioned=bool(keep_unmentioned),
    )
    for each in _several(objects):
        if not isinstance(each, GroundTruthObject):
            raise ArgumentError(f"an object is a GroundTruthObject, not {each!r}", field="objects")
        _check_reported(each, message)
        message.objects.append(each.to_message())
    if not (message.labels or message.class_ids or message.boxes or message.objects):
        raise ArgumentError("there is nothing to report: give labels, class ids, boxes or objects", field="labels")
    return message


def warn(messages: Iterable[str], stacklevel: int) -> None:
    """Issues a `GroundTruthWarning` for each doubt that the server has about a report it has taken.

    Args:
        messages: In the server's words.
        stacklevel: 1 for the line that calls this, 2 for the one that called that, and so on.
    """
    for message in messages:
        warnings.warn(message, GroundTruthWarning, stacklevel + 1)


def _several(values: Any, single: tuple[type, ...] = ()) -> list[Any]:
    """The values as a list; a single one of this type, or what is no list at all, becomes a list of one."""
    return list(values) if isinstance(values, Iterable) and not isinstance(values, single) else [values]


def _check_reported(item: GroundTruthObject, message: pb.ReportGroundTruthRequest) -> None:
    """Refuses an object that is of none of the classes reported, where that can be seen without the model's labels."""
    what: str | int | None = None
    reported: Sequence[str] | Sequence[int] = ()
    if not message.class_ids:
        what, reported = item.label, message.labels
    elif not message.labels:
        what, reported = item.class_id, message.class_ids
    if what is not None and reported and what not in reported:
        named = ", ".join(map(repr, reported))
        raise ArgumentError(f"an object is of class {what!r}, but reported is only {named}", field="objects")


def _label(label: Any) -> str:
    if not isinstance(label, str) or not label:
        raise ArgumentError(f"a label is a text, not {label!r}", field="labels")
    return label


def _box(box: Any) -> tuple[float, float, float, float]:
    try:
        left, top, right, bottom = _numbers(box)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"a box is (left, top, right, bottom), not {box!r}", field="boxes") from error
    if not (left < right and top < bottom):
        raise ArgumentError(f"the box (left, top, right, bottom) = {box!r} is empty", field="boxes")
    return left, top, right, bottom


def _polygon(polygon: Any) -> tuple[tuple[float, float], ...]:
    points: list[tuple[float, float]] = []
    try:
        for point in polygon:
            x, y = _numbers(point)
            points.append((x, y))
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"a polygon is a list of points (x, y), not {polygon!r}", field="objects") from error
    if len(points) < 3:
        raise ArgumentError(f"a polygon has at least three points, not {len(points)}", field="objects")
    return tuple(points)


def _numbers(values: Any) -> list[float]:
    if isinstance(values, (str, bytes)):
        raise TypeError("a text is no list of numbers")
    numbers = [float(each) for each in values]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("not finite")
    return numbers


def _region(box: Sequence[float]) -> pb.Region:
    left, top, right, bottom = box
    return pb.Region(left=left, top=top, right=right, bottom=bottom)


def _mask_png(mask: Any) -> bytes:
    """The mask as a PNG file of one bit a pixel, whatever it was."""
    inside = _inside(mask)
    if inside.ndim != 2 or inside.size == 0:
        raise ImageError(f"a mask has the shape (H, W) of the picture, not {inside.shape}", field="objects")
    if not inside.any():
        raise ImageError("the mask is empty: no pixel belongs to the object", field="objects")
    buffer = io.BytesIO()
    Image.fromarray(inside).save(buffer, "PNG")
    return buffer.getvalue()


def _inside(mask: Any) -> NDArray[np.bool_]:
    if isinstance(mask, np.ndarray):
        if mask.dtype not in (np.bool_, np.uint8):
            raise ImageError(f"{_MASK_KINDS}; this is an array of {mask.dtype}: compare it first", field="objects")
        return mask.astype(np.bool_)
    if isinstance(mask, (str, os.PathLike)):
        mask = Path(mask).read_bytes()
    if not isinstance(mask, (Image.Image, bytes, bytearray, memoryview)):
        raise ImageError(f"{_MASK_KINDS}; this is a {type(mask).__module__}.{type(mask).__qualname__}", field="objects")
    try:
        if isinstance(mask, Image.Image):
            return _visible(mask)
        with Image.open(io.BytesIO(mask), formats=["PNG"]) as picture:
            return _visible(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"the mask is no PNG file that can be decoded: {error}", field="objects") from error


def _visible(picture: Image.Image) -> NDArray[np.bool_]:
    """What is neither black nor wholly transparent."""
    if not picture.has_transparency_data:
        if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):  # have no faithful conversion to RGB
            return np.asarray(picture).astype(np.bool_)
        picture = picture.convert("RGB")
    pixels = np.asarray(picture.convert("RGBA"))
    return np.asarray(pixels[:, :, :3].any(axis=2) & (pixels[:, :, 3] != 0))
