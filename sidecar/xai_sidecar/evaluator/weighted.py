"""Means of scores that count for more or less, with their standard errors, from exact sums.

A sample that was twice as likely to be drawn counts for half as much: its weight is in proportion to one over that
probability. The mean is Hájek's, m = Σwy / Σw. Its variance is that of a quotient (Särndal, Swensson, Wretman: Model
Assisted Survey Sampling, 1992, 5.6), Σw²(y - m)² / (Σw)², times what corrects it for m being of the same scores:

    Σw² / (Σw² - 2Σw³/Σw + (Σw²)²/(Σw)²)

which makes it unbiased where scores have nothing to do with weights. Of equal weights all that is the sample's variance
over n. The effective sample size is Kish's, (Σw)² / Σw²: as many samples of equal weights say as much.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import add, sub
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_ONE = 1 << 16
"""Weights are whole numbers of 2⁻¹⁶, so that their sums are exact: see `rounded`."""

_UNIT_BITS = 1074
_ROOT_BITS = 64


class Weights(NamedTuple):
    """What some scores weigh that do not all weigh 1.

    Attributes:
        total: Sum of the weights.
        effective_count: How many scores of equal weights say as much, at least 1.
    """

    total: float
    effective_count: float


@dataclass(frozen=True)
class ScoreStatistics:
    """Mean and standard error of the scores in a window.

    Attributes:
        mean: Of the scores, by their weights.
        standard_error: Of the mean: of equal weights the sample's standard deviation over √count. None for a single
            score.
        count: How many scores there are.
        updated: When the latest of them was measured, as Unix time in seconds.
        weights: What they weigh; None where all weigh 1.
    """

    mean: float
    standard_error: float | None
    count: int
    updated: float
    weights: Weights | None = None

    @property
    def total_weight(self) -> float:
        """Sum of the weights."""
        return float(self.count) if self.weights is None else self.weights.total

    @property
    def effective_count(self) -> float:
        """How many scores of equal weights say as much: what intervals go by."""
        return float(self.count) if self.weights is None else self.weights.effective_count


class Moments(NamedTuple):
    """Exact sums over scores y of weights w: w in units of 2⁻¹⁶, y in units of 2⁻¹⁰⁷⁴."""

    n: int = 0
    w: int = 0
    w2: int = 0
    w3: int = 0
    wy: int = 0
    w2y: int = 0
    w2y2: int = 0

    @classmethod
    def of(cls, value: float, weight: float) -> Moments:
        """Those of one score: a finite double is a whole number of 2⁻¹⁰⁷⁴, and Python's have no bounds."""
        numerator, denominator = value.as_integer_ratio()
        y, w = numerator << _UNIT_BITS + 1 - denominator.bit_length(), round(weight * _ONE)
        return cls(1, w, w * w, w**3, w * y, w * w * y, w * w * y * y)

    def plus(self, other: Moments) -> Moments:
        """With other scores."""
        return Moments(*map(add, self, other))

    def minus(self, other: Moments) -> Moments:
        """Without some of the scores."""
        return Moments(*map(sub, self, other))

    def statistics(self, updated: float) -> ScoreStatistics | None:
        """Their statistics, each figure rounded once; None of no scores."""
        if not self.n:
            return None
        n, w, w2, w3, wy, w2y, w2y2 = self
        error = None
        if n > 1:
            squares = w2y2 * w * w - 2 * wy * w2y * w + wy * wy * w2  # Σw²(y - m)², times (Σw)²
            room = w2 * w * w - 2 * w3 * w + w2 * w2
            error = _root(squares * w2, w * w * room << 2 * _UNIT_BITS)
        return ScoreStatistics(wy / (w << _UNIT_BITS), error, n, updated, self._weights())

    def _weights(self) -> Weights | None:
        if self.w == self.n * _ONE and self.w2 == self.w * _ONE:
            return None
        return Weights(self.w / _ONE, self.w * self.w / self.w2)


def rounded(weight: float) -> float:
    """A weight, above 0, as the nearest whole number of 2⁻¹⁶, but not 0."""
    return max(1, round(weight * _ONE)) / _ONE


def statistics_of(values: NDArray[np.float64], weights: NDArray[np.float64], updated: float) -> ScoreStatistics:
    """The same statistics of at least one value (n,), with weights (n,), in doubles."""
    count, total = len(values), float(weights.sum())
    mean, w2 = float(weights @ values) / total, float(weights @ weights)
    error = None
    if count > 1:
        parts = weights * (values - mean)
        error = standard_error(float(parts @ parts), total, w2, float((weights**3).sum()))
    alike = bool((weights == 1).all())
    return ScoreStatistics(mean, error, count, updated, None if alike else Weights(total, total * total / w2))


def standard_error(squares: float, w: float, w2: float, w3: float) -> float:
    """That of the mean m of several values, from Σw²(y - m)², Σw, Σw² and Σw³, in doubles."""
    return math.sqrt(squares * w2 / (w2 - 2 * w3 / w + (w2 / w) ** 2)) / w


def _root(numerator: int, denominator: int) -> float:
    """The square root of a quotient of whole numbers, whose terms a double might not hold."""
    shift = max(0, 2 * _ROOT_BITS - numerator.bit_length() + denominator.bit_length()) // 2
    root: int = math.isqrt((numerator << 2 * shift) // denominator)
    return root / (1 << shift)


class Sums:
    """Moments of some scores that come and go, and when they were measured: no rounding adds up."""

    __slots__ = ("measured", "moments")

    def __init__(self) -> None:
        self.moments = Moments()
        self.measured: list[float] = []  # rising

    def add(self, moments: Moments, measured_time: float) -> None:
        """Adds a score."""
        self.moments = self.moments.plus(moments)
        bisect.insort(self.measured, measured_time)

    def remove(self, moments: Moments, measured_time: float) -> None:
        """Removes a score that was added."""
        self.moments = self.moments.minus(moments)
        del self.measured[bisect.bisect_left(self.measured, measured_time)]


def last_measured(sums: Sequence[Sums]) -> float:
    """When the latest score of some was measured; 0 of none."""
    return max((each.measured[-1] for each in sums if each.measured), default=0.0)
