"""Pearson's correlation, where there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-6
"""How far float32 values may be apart, as a part of the largest, that are meant to be the same."""


def is_constant(values: NDArray[Any], tolerance: float = _ROUNDING) -> bool:
    """Whether finite values are all the same, but for a part of the largest magnitude."""
    return float(np.ptp(values)) <= tolerance * float(np.abs(values).max())


def correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Pearson's correlation of finite values, in [-1, 1]; neither may be constant. Shapes are the same, and any."""
    x, y = _deviations(first), _deviations(second)
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))


def _deviations(values: NDArray[Any]) -> NDArray[np.float64]:
    """How far values are from their mean, (n,), scaled to a largest of 1: squares neither vanish nor overflow."""
    scaled = values.ravel() / np.abs(values).max().astype(np.float64)
    deviations = scaled - scaled.mean()
    return np.asarray(deviations / np.abs(deviations).max())
