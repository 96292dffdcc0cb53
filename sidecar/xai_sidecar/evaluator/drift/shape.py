"""Numbers that say how a map lies on its picture, whatever its scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.engine.work import FloatArray

BORDER = 0.125
"""How wide the border is, as a part of the map's height and width."""

GRID = 16
"""Rows and columns of the coarse map by which maps are compared: fine-grained ones are alike where they lie alike."""


@dataclass(frozen=True)
class MapShape:
    """How a map lies on its picture. Its mass is what it has above its own mean: no matter of scale or offset.

    Attributes:
        concentration: Gini index of the mass, 0 (even) to 1 (all in one pixel).
        centre_x: Centre of the mass, 0 (left edge) to 1 (right edge).
        centre_y: Likewise, 0 (top edge) to 1 (bottom edge).
        border: The part of the mass within an eighth of the height or width from an edge, 0 to 1.
        coarse: The map as means of at most 16 x 16 cells, flat, with mean 0 and norm 1 (float64): the product of two
            is their correlation. None where all cells are the same.
    """

    concentration: float
    centre_x: float
    centre_y: float
    border: float
    coarse: NDArray[np.float64] | None


def shape_of(saliency: FloatArray) -> MapShape | None:
    """The shape of a map (H, W); None of one that is the same all over, or not finite."""
    if not np.isfinite(saliency).all():
        return None
    mass = saliency.astype(np.float64)
    mass /= float(np.abs(mass).max()) or 1.0
    mass = np.maximum(mass - mass.mean(), 0)
    total = float(mass.sum())
    if total <= 1e-6 * mass.size:  # but for rounding
        return None
    rows, columns = mass.sum(1) / total, mass.sum(0) / total
    down, across = (max(1, round(BORDER * length)) for length in mass.shape)
    inner = float(mass[down : len(rows) - down, across : len(columns) - across].sum())
    return MapShape(
        concentration=gini(mass),
        centre_x=_centre(columns),
        centre_y=_centre(rows),
        border=1 - inner / total,
        coarse=_standardised(cells(saliency.astype(np.float64), GRID)),
    )


def gini(values: NDArray[np.float64]) -> float:
    """The Gini index of values that are not negative and not all 0; any shape.

    1 - 2 Σ c₍ₖ₎ / Σ c · (N - k + ½) / N over the rising values c₍ₖ₎: Hurley, Rickard: Comparing Measures of Sparsity,
    IEEE Trans. Inf. Theory 55, 2009; of maps: Chalasani et al.: Concise Explanations of Neural Networks using
    Adversarial Training, ICML 2020.
    """
    rising = np.sort(values, axis=None)
    weights = (np.arange(rising.size, 0, -1) - 0.5) / rising.size
    return float(1 - 2 * (rising @ weights) / rising.sum())


def _centre(shares: NDArray[np.float64]) -> float:
    return float(shares @ (np.arange(len(shares)) + 0.5) / len(shares))


def cells(values: NDArray[np.float64], grid: int) -> NDArray[np.float64]:
    """Means of maps (..., H, W) over at most grid x grid cells whose heights and widths differ by at most a pixel."""
    for axis in (-2, -1):
        length = values.shape[axis]
        starts = np.arange(min(grid, length)) * length // min(grid, length)
        sizes = np.diff([*starts, length])
        values = np.add.reduceat(values, starts, axis) / (sizes if axis == -1 else sizes[:, np.newaxis])
    return values


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    deviations = (values - values.mean()).ravel()
    norm, largest = float(np.linalg.norm(deviations)), float(np.abs(values).max())
    return None if norm <= 1e-6 * largest else deviations / norm
