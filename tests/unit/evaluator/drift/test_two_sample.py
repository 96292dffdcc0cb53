"""Kolmogorov and Smirnov's test against counting all orders, and against SciPy."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import ks_2samp

from xai_sidecar.evaluator.drift.two_sample import distance, least_steps, probability


def walk(chosen, count):
    """The largest difference of two samples whose merged order has the first one's values at these places."""
    steps = np.full(2 * count, -1)
    steps[list(chosen)] = 1
    return np.abs(np.cumsum(steps)).max()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_all_orders_counted(count):
    found = [walk(chosen, count) for chosen in itertools.combinations(range(2 * count), count)]
    for steps in range(count + 2):
        share = sum(each >= steps for each in found) / math.comb(2 * count, count)
        assert probability(count, steps) == pytest.approx(share)


@pytest.mark.parametrize(("count", "shift"), [(20, 0.0), (20, 1.0), (100, 0.3), (150, 1.0)])
def test_as_scipy(count, shift):
    first, second = np.random.default_rng(count).standard_normal((2, count))
    second += shift
    expected = ks_2samp(first, second, method="exact")
    steps = distance(first.tolist(), second.tolist())
    assert steps / count == pytest.approx(expected.statistic)
    assert probability(count, steps) == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [([1, 2, 3], [1, 2, 3], 0), ([1, 1, 1], [1, 1, 2], 1), ([5, 6], [1, 2], 2), ([0, 0, 9], [0, 9, 9], 1), ([], [], 0)],
)
def test_by_hand(first, second, expected):
    assert distance(first, second) == expected


def test_of_other_sizes_there_is_none():
    with pytest.raises(ValueError, match="samples of 1 and 2 values"):
        distance([1], [1, 2])


@pytest.mark.parametrize("level", [0.5, 0.05, 1e-6])
def test_the_least_distance_of_a_level(level):
    steps = least_steps(50, level)
    assert probability(50, steps) <= level < probability(50, steps - 1)


def test_what_is_too_improbable_for_its_size_cannot_be_found():
    assert least_steps(20, 1e-12) == 21
