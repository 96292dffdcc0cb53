"""Filling in the pixels of maps that nothing is known of yet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.explainers.resize import bilinear_weights

Matrix = NDArray[np.float64]


def pull_push(maps: Matrix, known: NDArray[np.bool_]) -> Matrix:
    """Maps whose unknown pixels are interpolated; Gortler et al.: The Lumigraph, SIGGRAPH 1996.

    Pull averages what is known to half the resolution, again and again; push fills what is unknown from the coarser
    map. A pixel's weight is min(1, Σ h w) of the finer pixels' weights w, and 1 or 0 in the finest map. The filter h is
    bilinear interpolation between pixels' centres for push and its transpose for pull, so that sides may be odd and no
    corner is preferred.

    Args:
        maps: (t, H, W) float64; what it says where it is not known does not matter.
        known: (H, W), at least one pixel.

    Returns:
        The maps, (t, H, W) float64, unchanged where they are known.

    Raises:
        ValueError: Nothing is known.
    """
    if not known.any():
        raise ValueError("of no pixel anything is known")
    maps = np.where(known, maps, 0.0)
    return np.where(known, maps, _filled(maps, known.astype(np.float64)))


def _filled(maps: Matrix, weights: Matrix) -> Matrix:
    """The maps (t, H, W), of which weights (H, W) in [0, 1] say how far each pixel is known."""
    height, width = weights.shape
    if weights.size == 1 or weights.min() >= 1:
        return maps
    rows = bilinear_weights((height + 1) // 2, height).astype(np.float64)
    columns = bilinear_weights((width + 1) // 2, width).astype(np.float64)
    with np.errstate(invalid="ignore"):  # what is not finite stays so, and the map's status tells
        sums = rows.T @ weights @ columns
        means = rows.T @ (weights * maps) @ columns / np.where(sums > 0, sums, 1)
        coarse = _filled(means, np.minimum(sums, 1))
        return np.asarray(weights * maps + (1 - weights) * (rows @ coarse @ columns.T))
