"""The two-sample test of Kolmogorov and Smirnov for samples of one size, with exact probabilities."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection

import numpy as np


def distance(first: Collection[float], second: Collection[float]) -> int:
    """The largest difference of how many values of two samples are at most x, over all x, 0 to their common size."""
    one, two = np.sort(np.fromiter(first, np.float64)), np.sort(np.fromiter(second, np.float64))
    if len(one) != len(two):
        raise ValueError(f"samples of {len(one)} and {len(two)} values")
    both = np.concatenate([one, two])
    return int(np.abs(np.searchsorted(one, both, "right") - np.searchsorted(two, both, "right")).max(initial=0))


@functools.lru_cache(maxsize=4096)
def probability(count: int, steps: int) -> float:
    """How probable a distance of `steps` or more is of two samples of `count` values of one continuous distribution.

    2 Σ (-1)ʲ⁺¹ C(2n, n - jk) / C(2n, n) over j = 1 … ⌊n / k⌋: Gnedenko, Korolyuk 1951, by reflecting paths; Hodges: The
    Significance Probability of the Smirnov Two-Sample Test, Ark. Mat. 3, 1958. Where values are equal it is less.
    """
    if steps <= 0:
        return 1.0
    whole = math.comb(2 * count, count)
    terms = (math.comb(2 * count, count - j * steps) * (1 if j % 2 else -1) for j in range(1, count // steps + 1))
    return min(1.0, 2 * sum(terms) / whole)


def least_steps(count: int, level: float) -> int:
    """The smallest distance that is no more probable than a level; `count` + 1 where there is none."""
    low, high = 0, count + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if probability(count, middle) <= level else (middle, high)
    return high
