"""Resizing maps in float, as matrix products."""

from __future__ import annotations

import functools

import numpy as np

from xai_sidecar.engine.work import FloatArray


def resize_bilinear(maps: FloatArray, height: int, width: int) -> FloatArray:
    """Maps (n, h, w) → (n, height, width) float32, bilinearly.

    Samples sit in the middle of their pixels and edges extend outwards, as in Pillow, TensorFlow 2 and PyTorch's
    ``align_corners=False``.
    """
    rows = bilinear_weights(maps.shape[1], height)
    columns = bilinear_weights(maps.shape[2], width)
    with np.errstate(invalid="ignore"):  # what is not finite stays so, and the map's status tells
        return np.asarray(rows @ maps @ columns.T, np.float32)


@functools.lru_cache(maxsize=64)
def bilinear_weights(source: int, target: int) -> FloatArray:
    """(target, source) matrix that interpolates a line of `source` samples at `target` places."""
    places = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    left = np.minimum(places.astype(int), max(source - 2, 0))
    right = np.minimum(left + 1, source - 1)
    share = (places - left).astype(np.float32)
    weights = np.zeros((target, source), np.float32)
    weights[np.arange(target), left] += 1 - share
    weights[np.arange(target), right] += share
    return weights
