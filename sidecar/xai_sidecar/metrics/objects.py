"""Objects in the frame of a model input, as boxes and masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.errors import TensorError

Mask: TypeAlias = NDArray[np.bool_]

Box: TypeAlias = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels from the top left corner of the frame: pixel (i, j) spans j to j + 1 across."""

ObjectArea: TypeAlias = Box | Mask
"""Where an object is: a box, or a mask (H, W) of the frame."""


def checked(area: ObjectArea, frame: tuple[int, int], field: str) -> None:
    """Sees to it that an area is a box, or a mask of the frame's height and width.

    Raises:
        TensorError: It is neither; `field` says which area it is.
    """
    if isinstance(area, np.ndarray) and area.ndim != 1:
        if area.shape != frame or area.dtype != np.bool_:
            raise TensorError(
                f"The mask is {area.dtype} of shape {area.shape}. Make it bool of the image's height and width, "
                f"{frame}.",
                field=field,
            )
        return
    if len(area) != 4 or not all(math.isfinite(edge) for edge in area):
        raise TensorError("A box is four finite numbers: left, top, right, bottom.", field=field)
    left, top, right, bottom = area
    if left >= right or top >= bottom:
        raise TensorError(
            f"The box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) is empty. Give left, top, right, bottom.",
            field=field,
        )


def union(areas: Sequence[ObjectArea], frame: tuple[int, int]) -> Mask:
    """The pixels of a frame (H, W) that belong to any of the areas, (H, W) bool.

    A box has the pixels whose centres lie in it, so that edges a rounding error off whole numbers change nothing; one
    that lies between centres has the pixel that holds its middle. What is outside the frame is left out.
    """
    covered = np.zeros(frame, np.bool_)
    for area in areas:
        if isinstance(area, np.ndarray) and area.ndim == 2:
            covered |= area
        else:
            left, top, right, bottom = area
            covered[_pixels(top, bottom, frame[0]), _pixels(left, right, frame[1])] = True
    return covered


def _pixels(start: float, stop: float, length: int) -> slice:
    """The pixels of an axis between two places."""
    first, end = math.ceil(start - 0.5), math.ceil(stop - 0.5)
    if first == end:
        first = math.floor((start + stop) / 2)
        end = first + 1
    return slice(*(min(max(place, 0), length) for place in (first, end)))


def dilated(mask: Mask, distance: int) -> Mask:
    """The pixels of a mask, and those with one of its pixels closer than a distance.

    Args:
        mask: (H, W) bool.
        distance: In pixels, Euclidean, between centres. 0 and 1 add nothing.

    Returns:
        (H, W) bool.
    """
    if distance <= 1 or not mask.any():
        return mask.copy()
    from scipy.ndimage import distance_transform_edt  # importing it takes a tenth of a start

    near: Mask = distance_transform_edt(~mask) < distance
    return near
