"""Where an annotated object lies: on the picture or outside, and which share of it the model input covers."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.errors import InvalidRequestError
from xai_sidecar.evaluator.records import Frame
from xai_sidecar.metrics.objects import Mask

Edges: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the picture."""

_ROUNDING = 0.5
"""Pixels by which an object may reach beyond the picture without a warning."""

_LEAST_SEEN = 0.5
"""Share of an object in the model input below which there is a warning."""


def size_of(frame: Frame) -> tuple[int, int]:
    """Width and height of the picture; of the model input where no picture was sent."""
    return frame.picture_size or (frame.width, frame.height)


def span_of(frame: Frame) -> Edges:
    """Edges of the part of the picture that the model input covers."""
    region = frame.region
    if region is None:
        return 0.0, 0.0, float(frame.width), float(frame.height)
    return region.left, region.top, region.right, region.bottom


def check_place(name: str, bounds: Edges, frame: Frame, field: str) -> None:
    """Checks that some of an object is on the picture.

    Args:
        name: The object, to begin a sentence with.
        bounds: The smallest box around it.
        frame: Where the model input lies on the picture.
        field: Its field in the report.

    Raises:
        InvalidRequestError: It is wholly outside.
    """
    left, top, right, bottom = bounds
    width, height = size_of(frame)
    if right <= 0 or left >= width or bottom <= 0 or top >= height:
        raise InvalidRequestError(
            f"{name} lies outside the {_whole(frame)} of {width} x {height}. Give pixels from its upper left corner "
            "on.",
            field=field,
        )


def warnings_of(name: str, bounds: Edges, seen: float, frame: Frame) -> list[str]:
    """Warnings of where an object is, a sentence each.

    Args:
        name: The object, to begin a sentence with.
        bounds: The smallest box around it.
        seen: Share of its part on the picture that the model input covers, 0 to 1.
        frame: Where the model input lies on the picture.
    """
    left, top, right, bottom = bounds
    width, height = size_of(frame)
    found = []
    if min(left, top, width - right, height - bottom) < -_ROUNDING:
        found.append(f"{name} reaches beyond the {_whole(frame)} of {width} x {height}; only what is on it counts.")
    if seen < _LEAST_SEEN:
        where = "the part of the picture that the model saw, from ({:g}, {:g}) to ({:g}, {:g})".format(*span_of(frame))
        if seen == 0:
            found.append(f"{name} lies outside {where}: no explanation can point to it.")
        else:
            found.append(f"{name} lies to {100 * (1 - seen):.0f} % outside {where}; only the rest counts.")
    return found


def seen_of_box(box: Edges, frame: Frame) -> float:
    """The share of a box's part on the picture that the model input covers, 0 to 1."""
    width, height = size_of(frame)
    on_picture = _common(box, (0.0, 0.0, float(width), float(height)))
    area = _area(on_picture)
    return _area(_common(on_picture, span_of(frame))) / area if area else 1.0


def seen_of_pixels(inside: Mask, xs: NDArray[np.float64], ys: NDArray[np.float64], frame: Frame) -> float:
    """The share of the points (y, x) with `inside` that the model input covers, 0 to 1; at least one is inside."""
    left, top, right, bottom = span_of(frame)
    seen = inside[np.ix_((top <= ys) & (ys < bottom), (left <= xs) & (xs < right))]
    return float(np.count_nonzero(seen) / np.count_nonzero(inside))


def _whole(frame: Frame) -> str:
    return "picture" if frame.picture_size else "model input"


def _common(one: Edges, other: Edges) -> Edges:
    """The intersection of two boxes; sides of 0 or less where it is empty."""
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])


def _area(box: Edges) -> float:
    left, top, right, bottom = box
    return max(0.0, right - left) * max(0.0, bottom - top)
