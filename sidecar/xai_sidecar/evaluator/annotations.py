"""Annotations of objects, in pixels of the picture: checking them, and mapping them into the model input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xai_sidecar.errors import InvalidRequestError, PictureError, PictureTooLargeError, SidecarError
from xai_sidecar.evaluator.placement import (
    Edges,
    check_place,
    seen_of_box,
    seen_of_pixels,
    size_of,
    span_of,
    warnings_of,
)
from xai_sidecar.evaluator.records import Annotation, BoxAnnotation, Frame, PolygonAnnotation
from xai_sidecar.imaging import load_png, read_header
from xai_sidecar.metrics.objects import Box, Mask, ObjectArea

MOST_POINTS = 10_000
"""Most corners of a polygon."""

_ANY_SIZE = 1 << 64

_FARTHEST = 1e9
"""Largest coordinate, in pixels. No picture is that large, and products of such numbers are finite."""

_FLAT = 1e-9
"""A polygon has no area if no corner is farther from a line than this part of its length."""

_GRID = 64
"""Points across and down that estimate which part of a polygon the model input covers."""

Points: TypeAlias = NDArray[np.float64]
"""(n, 2): x and y."""


def check_annotation(annotation: Annotation, frame: Frame, max_pixels: int) -> list[str]:
    """Checks that an annotation lies on the picture.

    Args:
        annotation: As reported.
        frame: Where the model input lies on the picture.
        max_pixels: The most pixels that a mask may have.

    Returns:
        Warnings, a sentence each: where it reaches beyond the picture, or beyond what the model input covers.

    Raises:
        InvalidRequestError: A box or a polygon that is empty, or wholly outside the picture, or that is not given in
            finite numbers; a mask of another size than the picture's, or without a pixel of the object.
        PictureError: A mask that cannot be decoded.
        PictureTooLargeError: A mask of more than `max_pixels` pixels.
    """
    if isinstance(annotation, BoxAnnotation):
        return _check_box(annotation, frame)
    if isinstance(annotation, PolygonAnnotation):
        return _check_polygon(annotation, frame)
    return _check_mask(_decoded(annotation.png, size_of(frame), max_pixels), frame)


def regions(annotations: Sequence[Annotation], frame: Frame) -> list[ObjectArea]:
    """Maps annotations into the frame of the model input, as regions for the metrics of localization.

    A box stays a box. A polygon or a mask becomes the mask (H, W) of the pixels whose centres lie in it, left and
    upper edges included. One that lies between centres has a pixel as well: a polygon the one that holds its centroid,
    or where that is outside of it, the middle of its longest edge; a mask the one that holds the middle, in reading
    order, of its pixels in the frame. What is outside the frame is left out, so that a mask may have no pixel.

    Args:
        annotations: As reported, and checked by `check_annotation`.
        frame: Where the model input lies on the picture.
    """
    return [_region(annotation, frame) for annotation in annotations]


def _region(annotation: Annotation, frame: Frame) -> ObjectArea:
    if isinstance(annotation, BoxAnnotation):
        return _box(annotation, frame)
    if isinstance(annotation, PolygonAnnotation):
        return _polygon(np.array(annotation.points, np.float64), frame)
    width, height = size_of(frame)
    return _mask(_decoded(annotation.png, (width, height), width * height), frame)


def _centres(frame: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions of the frame's columns and rows on the picture: x and y of the pixels' centres."""
    left, top, right, bottom = span_of(frame)
    columns = left + (np.arange(frame.width) + 0.5) * (right - left) / frame.width
    rows = top + (np.arange(frame.height) + 0.5) * (bottom - top) / frame.height
    return columns, rows


def _framed(x: float, y: float, frame: Frame) -> tuple[float, float]:
    """Maps a point of the picture to pixels of the frame."""
    left, top, right, bottom = span_of(frame)
    return (x - left) * frame.width / (right - left), (y - top) * frame.height / (bottom - top)


def _on_picture(frame: Frame) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of the frame's columns and rows have their centres on the picture: with a letterbox, not all."""
    columns, rows = _centres(frame)
    width, height = size_of(frame)
    return (columns >= 0) & (columns < width), (rows >= 0) & (rows < height)


def _box(box: BoxAnnotation, frame: Frame) -> Box:
    edges = [box.left, box.top, box.right, box.bottom]
    if not all(map(np.all, _on_picture(frame))):
        width, height = size_of(frame)
        edges = np.clip(edges, 0, [width, height] * 2).tolist()  # beyond the picture there is only padding
    left, top = _framed(edges[0], edges[1], frame)
    right, bottom = _framed(edges[2], edges[3], frame)
    # Edges that were apart stay apart, whatever rounding does.
    return left, top, max(right, math.nextafter(left, math.inf)), max(bottom, math.nextafter(top, math.inf))


def _with_pixel(mask: Mask, x: float, y: float, frame: Frame) -> Mask:
    """Sets the pixel of the mask that holds a point of the picture, if the point lies in the frame."""
    column, row = map(math.floor, _framed(x, y, frame))
    if 0 <= row < frame.height and 0 <= column < frame.width:
        mask[row, column] = True
    return mask


def _polygon(points: Points, frame: Frame) -> Mask:
    columns, rows = _centres(frame)
    edges = _edges(points)
    mask: Mask = np.array([_inside(edges, columns, y) for y in rows])
    across, down = _on_picture(frame)
    mask &= np.outer(down, across)
    if mask.any():
        return mask
    x, y = _centroid(points)
    # A centroid that is not finite is not inside.
    if not _inside(edges, np.array([x]), y)[0]:
        following = np.roll(points, -1, axis=0)
        longest = int(np.hypot(*(following - points).T).argmax())
        x, y = (points[longest] + following[longest]) / 2
    return _with_pixel(mask, float(x), float(y), frame)


def _edges(points: Points) -> NDArray[np.float64]:
    """The edges that are not level, (n, 4): x and y of the upper end, then of the lower.

    Two polygons with a common edge get it in the same direction, and so compute the same crossings.
    """
    edges = np.concatenate([points, np.roll(points, -1, axis=0)], axis=1)
    edges = np.where(edges[:, 1:2] <= edges[:, 3:4], edges, edges[:, [2, 3, 0, 1]])
    return edges[edges[:, 1] < edges[:, 3]]


def _inside(edges: NDArray[np.float64], xs: NDArray[np.float64], y: float) -> NDArray[np.bool_]:
    """Which points of a line lie inside, by the number of edges that cross it at them or left of them."""
    x0, y0, x1, y1 = edges[(edges[:, 1] <= y) & (y < edges[:, 3])].T
    crossings = np.sort(x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    inside: NDArray[np.bool_] = np.searchsorted(crossings, xs, side="right") % 2 == 1
    return inside


def _centroid(points: Points) -> Points:
    """The centroid of a polygon, (2,); not finite if it crosses itself so that its parts cancel out."""
    start = points[0]
    x, y = (points - start).T
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    cross = x * next_y - next_x * y
    moment = np.array([((x + next_x) * cross).sum(), ((y + next_y) * cross).sum()])
    with np.errstate(all="ignore"):
        centroid: Points = start + moment / (3 * cross.sum())
    return centroid


def _mask(picture_mask: Mask, frame: Frame) -> Mask:
    places = [
        np.clip(np.floor(centres).astype(np.intp), 0, side - 1)
        for centres, side in zip(_centres(frame), reversed(picture_mask.shape), strict=True)
    ]
    across, down = _on_picture(frame)
    mask: Mask = picture_mask[places[1][:, None], places[0]] & np.outer(down, across)
    if mask.any():
        return mask
    left, top, right, bottom = span_of(frame)
    rows, columns = np.nonzero(picture_mask)
    x, y = columns + 0.5, rows + 0.5
    within = np.flatnonzero((left <= x) & (x < right) & (top <= y) & (y < bottom))
    if not len(within):
        return mask
    middle = within[len(within) // 2]
    return _with_pixel(mask, float(x[middle]), float(y[middle]), frame)


def _check_box(box: BoxAnnotation, frame: Frame) -> list[str]:
    edges = (box.left, box.top, box.right, box.bottom)
    name = f"The box from ({box.left:g}, {box.top:g}) to ({box.right:g}, {box.bottom:g})"
    if not all(abs(edge) <= _FARTHEST for edge in edges):
        raise InvalidRequestError(f"{name} is nowhere. Give its edges in finite pixels of the picture.", field="box")
    if box.left >= box.right or box.top >= box.bottom:
        raise InvalidRequestError(
            f"{name} is empty. Left must be less than right, and top less than bottom.", field="box"
        )
    check_place(name, edges, frame, "box")
    return warnings_of(name, edges, seen_of_box(edges, frame), frame)


def _check_polygon(polygon: PolygonAnnotation, frame: Frame) -> list[str]:
    count = len(polygon.points)
    if not 3 <= count <= MOST_POINTS:
        raise InvalidRequestError(f"The polygon has {count:,} corners. Give 3 to {MOST_POINTS:,}.", field="polygon")
    points = np.array(polygon.points, np.float64)
    if not (np.abs(points) <= _FARTHEST).all():
        number = int(np.argmin((np.abs(points) <= _FARTHEST).all(axis=1)))
        raise InvalidRequestError(
            f"Corner {number} of the polygon, ({points[number, 0]:g}, {points[number, 1]:g}), is nowhere. Give x and y "
            "in finite pixels of the picture.",
            field="polygon",
        )
    offsets = points - points[0]
    along = offsets[np.hypot(*offsets.T).argmax()]
    across = np.abs(offsets[:, 0] * along[1] - offsets[:, 1] * along[0])
    if across.max() <= _FLAT * float(along @ along):
        raise InvalidRequestError(
            f"The polygon has no area: its {count:,} corners lie on one line. Give the corners around the object.",
            field="polygon",
        )
    bounds = (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())
    check_place("The polygon", bounds, frame, "polygon")
    return warnings_of("The polygon", bounds, _seen_of_polygon(points, bounds, frame), frame)


def _seen_of_polygon(points: Points, bounds: Edges, frame: Frame) -> float:
    """The share of a polygon that the model input covers, by points on a grid; of its bounds where none lies inside."""
    left, top, right, bottom = np.clip(bounds, 0, [*size_of(frame)] * 2)
    places = (np.arange(_GRID) + 0.5) / _GRID
    xs, ys = left + places * (right - left), top + places * (bottom - top)
    edges = _edges(points)
    inside: Mask = np.array([_inside(edges, xs, y) for y in ys])
    return seen_of_pixels(inside, xs, ys, frame) if inside.any() else seen_of_box(bounds, frame)


def _check_mask(mask: Mask, frame: Frame) -> list[str]:
    if not mask.any():
        raise InvalidRequestError("No pixel of the mask is set. Set those of the object.", field="mask_png")
    height, width = mask.shape
    seen = seen_of_pixels(mask, np.arange(width) + 0.5, np.arange(height) + 0.5, frame)
    return warnings_of("The mask", (0, 0, width, height), seen, frame)


def _decoded(png: bytes, size: tuple[int, int], max_pixels: int) -> Mask:
    """The pixels of a PNG file that belong to the object, (H, W) bool.

    Those are the pixels that are not 0: with a palette, whose index is not 0; in colours, with any channel that is not
    0, of 16 bits by the upper eight. Wholly transparent pixels do not belong to it. An orientation in the file is
    ignored.

    Raises:
        InvalidRequestError: It is of another size, (width, height).
        PictureError: It cannot be decoded.
        PictureTooLargeError: It has more than `max_pixels` pixels. It is not decoded then.
    """
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise PictureError(
            f"The mask's {len(png):,} bytes, which begin with {png[:8]!r}, are no PNG file. Send it as PNG.",
            field="mask_png",
        )
    try:
        header = read_header(png, _ANY_SIZE)
        _check_mask_size((header.width, header.height), size, max_pixels)
        return _set_pixels(load_png(png))
    except SidecarError as error:
        error.field = "mask_png"
        raise


def _check_mask_size(found: tuple[int, int], size: tuple[int, int], max_pixels: int) -> None:
    size_text = f"The mask is {found[0]} x {found[1]}"
    if found[0] * found[1] > max_pixels:
        raise PictureTooLargeError(
            f"{size_text}, {found[0] * found[1]:,} pixels, of at most {max_pixels:,}. Scale picture and mask down.",
            field="mask_png",
        )
    if found != size:
        raise InvalidRequestError(
            f"{size_text}, where the upright picture is {size[0]} x {size[1]}. Send a mask of that size.",
            field="mask_png",
        )


def _set_pixels(opened: Image.Image) -> Mask:
    values: NDArray[Any] = np.asarray(opened)
    alpha: NDArray[Any] | None = None
    if opened.mode in ("LA", "RGBA"):
        values, alpha = values[..., :-1], values[..., -1]
    elif opened.mode.startswith("I"):
        alpha = values != opened.info.get("transparency", -1)
    elif opened.has_transparency_data:
        alpha = np.asarray(opened.convert("RGBA").getchannel("A"))
    mask: Mask = (values if values.ndim == 2 else values.any(axis=2)) != 0
    return mask if alpha is None else mask & (alpha != 0)
