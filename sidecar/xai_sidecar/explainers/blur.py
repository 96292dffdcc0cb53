"""Blurring images in float, as matrix products.

Not by SciPy's `gaussian_filter`, which cannot scale the weights at the edges to a sum of 1, and truncates the Gaussian.
"""

from __future__ import annotations

import numpy as np

from xai_sidecar.engine.work import FloatArray


def gaussian_blur(image: FloatArray, deviation: float) -> FloatArray:
    """An image (C, H, W) blurred by a Gaussian, float32; near the edges the weights inside add up to 1.

    Args:
        image: The image.
        deviation: Standard deviation of the Gaussian in pixels, above 0.
    """
    height, width = image.shape[1:]
    return np.asarray(_weights(height, deviation) @ image @ _weights(width, deviation).T, np.float32)


def _weights(length: int, deviation: float) -> FloatArray:
    places = np.arange(length)
    weights = np.exp(-0.5 * ((places[:, None] - places) / deviation) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
