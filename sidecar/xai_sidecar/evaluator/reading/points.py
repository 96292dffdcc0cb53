"""Means in bins of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.evaluator.intervals import confidence_half_width
from xai_sidecar.evaluator.weighted import standard_error, statistics_of


@dataclass(frozen=True)
class Point:
    """A mean in a bin.

    Attributes:
        bin: Which bin, from 0.
        count: Values in it.
        mean: Their mean, by the samples' weights, as of `weighted`.
        half_width: Half the width of the mean's 95 % confidence interval; NaN where there are too few.
    """

    bin: int
    count: int
    mean: float
    half_width: float


def point_of_moments(index: int, n: int, w: float, w2: float, w3: float, wy: float, w2y: float, w2y2: float) -> Point:
    """The mean and its interval, as of `weighted`."""
    mean = wy / w
    error = standard_error(max(0.0, w2y2 - 2 * mean * w2y + mean * mean * w2), w, w2, w3) if n > 1 else None
    return Point(index, n, mean, confidence_half_width(error, w * w / w2))


def point_of_values(index: int, values: NDArray[np.float64], weights: NDArray[np.float64]) -> Point:
    """The same of values themselves, at least one, and their weights."""
    found = statistics_of(values, weights, 0.0)
    half = confidence_half_width(found.standard_error, found.effective_count)
    return Point(index, found.count, found.mean, half)
