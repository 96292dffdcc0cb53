"""One statistic of maps over time: a reference window, the current window, and whether they differ beyond chance."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass

from xai_sidecar.evaluator.drift.two_sample import distance, least_steps

_LOOKS = 4
"""Comparisons while one current window takes the place of another."""


@dataclass(frozen=True)
class Comparison:
    """A comparison of the two windows.

    Attributes:
        reference: Mean of the reference window.
        current: Mean of the current window.
        distance: Largest difference of their cumulative distributions, 0 to 1 (Kolmogorov and Smirnov).
        allowed: The smallest distance that is drift; above 1 where none can be any more.
    """

    reference: float
    current: float
    distance: float
    allowed: float

    @property
    def drifted(self) -> bool:
        """Whether the windows differ beyond chance."""
        return self.distance >= self.allowed


class Stream:
    """Values of one statistic: the first are the reference, the newest are compared with it.

    The k-th comparison is at the level ε / (k (k + 1)), which adds up to ε over all that there can ever be: as long as
    the values are exchangeable, the probability that one of them ever finds drift is ε at the most, however long it
    goes on and however much the windows overlap (Bonferroni's inequality; α-spending: Lan, DeMets: Discrete Sequential
    Boundaries for Clinical Trials, Biometrika 70, 1983). The price is small, since what a distance has to be grows with
    the root of the logarithm: of 100 values, 0.34 to begin with where ε is 4e-5, and 0.44 after 100 comparisons.

    Args:
        size: Values in each window.
        level: ε.

    Attributes:
        comparison: The latest; None until both windows are full.
    """

    def __init__(self, size: int, level: float) -> None:
        self._size = size
        self._level = level
        self._reference = array("f")  # there may be thousands of streams
        self._current = array("f")  # the newest values, in no order
        self._oldest = 0
        self._new = 0
        self._count = 0
        self.comparison: Comparison | None = None

    def put(self, value: float) -> None:
        """Takes the next value, and compares the windows where it is time for that."""
        if len(self._reference) < self._size:
            self._reference.append(value)
            return
        if len(self._current) < self._size:
            self._current.append(value)
        else:
            self._current[self._oldest] = value
            self._oldest = (self._oldest + 1) % self._size
        self._new += 1
        if len(self._current) == self._size and self._new >= max(1, self._size // _LOOKS):
            self._new = 0
            self._compare()

    def _compare(self) -> None:
        self._count += 1
        level = self._level / (self._count * (self._count + 1))
        self.comparison = Comparison(
            math.fsum(self._reference) / self._size,
            math.fsum(self._current) / self._size,
            distance(self._reference, self._current) / self._size,
            least_steps(self._size, level) / self._size,
        )
