"""Small copies of maps for lists, and curves, as few bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.engine.work import FloatArray
from xai_sidecar.errors import StoreError
from xai_sidecar.evaluator.drift.shape import cells

SIDE = 32
"""Most rows and columns of a small map."""

_TOP_CLASSES = 10

_CLASS = np.dtype([("class_id", "<i4"), ("probability", "<f4"), ("logit", "<f4")])


class TopClass(NamedTuple):
    """A class that was predicted, or nearly."""

    class_id: int
    probability: float
    logit: float


def top_classes(logits: FloatArray, probabilities: FloatArray) -> list[TopClass]:
    """The most probable classes, those that are kept of a sample; of equals the first."""
    order = np.argsort(-logits, kind="stable")[:_TOP_CLASSES]
    return [TopClass(int(each), float(probabilities[each]), float(logits[each])) for each in order]


@dataclass(frozen=True)
class SmallMap:
    """A map of few pixels, each the mean of a part of the map: value = minimum + byte / 255 * (maximum - minimum).

    Attributes:
        height: Rows, at most `SIDE`.
        width: Columns, likewise.
        minimum: Value of the byte 0.
        maximum: Value of the byte 255.
        values: A byte for each pixel, row by row.
    """

    height: int
    width: int
    minimum: float
    maximum: float
    values: bytes

    def array(self) -> FloatArray:
        """The map, (height, width) float32."""
        parts = np.frombuffer(self.values, np.uint8).reshape(self.height, self.width) / 255
        return np.asarray(self.minimum + parts * (self.maximum - self.minimum), np.float32)


def small_map(values: NDArray[np.floating[Any]], side: int = SIDE) -> SmallMap | None:
    """A small copy of a map (H, W); None of one that is not finite."""
    means = cells(values.astype(np.float64), side)
    low, high = np.float32(means.min()), np.float32(means.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        return None
    room = float(high) - float(low)
    steps = np.rint((means - float(low)) / room * 255) if room > 0 else np.zeros_like(means)
    height, width = means.shape
    return SmallMap(height, width, float(low), float(high), np.clip(steps, 0, 255).astype(np.uint8).tobytes())


def pack_classes(classes: Sequence[TopClass]) -> bytes:
    """The most probable classes as bytes."""
    return np.array([tuple(each) for each in classes], _CLASS).tobytes()


def unpack_classes(blob: bytes) -> tuple[TopClass, ...]:
    """The reverse of `pack_classes`.

    Raises:
        StoreError: The blob is damaged.
    """
    return tuple(TopClass(*each) for each in _unpacked(blob, _CLASS).tolist())


def pack_curve(pixel_counts: NDArray[np.int64], probabilities: NDArray[np.floating[Any]]) -> tuple[bytes, bytes]:
    """The steps and probabilities of a curve as bytes; these as float16, right to 0.0005."""
    return pixel_counts.astype("<i4").tobytes(), probabilities.astype("<f2").tobytes()


def unpack_curve(pixel_counts: bytes, probabilities: bytes) -> tuple[NDArray[np.int64], FloatArray]:
    """The reverse of `pack_curve`.

    Raises:
        StoreError: The blobs are damaged.
    """
    counts, heights = _unpacked(pixel_counts, np.dtype("<i4")), _unpacked(probabilities, np.dtype("<f2"))
    if len(counts) != len(heights):
        raise StoreError("A curve in the evaluator's store is damaged. Restore the database from a backup.")
    return counts.astype(np.int64), heights.astype(np.float32)


def _unpacked(blob: bytes, kind: np.dtype[Any]) -> NDArray[Any]:
    if len(blob) % kind.itemsize:
        raise StoreError("Something in the evaluator's store is damaged. Restore the database from a backup.")
    return np.frombuffer(blob, kind)
