"""Intervals in which a mean lies 95 times in 100."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

from xai_sidecar.evaluator.weighted import ScoreStatistics
from xai_sidecar.metrics.base import Metric

_FEW = 20
"""Fewer equal scores than this say nothing of how far others may be."""

_Z = 1.959963984540054
"""The standard normal distribution's 97.5th percentile."""


@dataclass(frozen=True)
class Interval:
    """An interval of 95 % confidence, within the range of what it is of."""

    low: float
    high: float


def confidence_half_width(standard_error: float | None, count: float) -> float:
    """Half the width of the 95 % confidence interval of a mean, by Student's t; NaN of one score, or of few equal ones.

    Args:
        standard_error: Of the mean; None of one score.
        count: Number of scores; of scores of unequal weights, how many of equal ones say as much.
    """
    if standard_error is None or (standard_error == 0 and count < _FEW):
        return math.nan
    return t_value(count - 1) * standard_error


@functools.lru_cache(maxsize=4096)
def t_value(freedom: float) -> float:
    """The 97.5th percentile of Student's t distribution with some degrees of freedom, above 0."""
    from scipy.special import stdtrit  # importing it takes a tenth of a start

    return float(stdtrit(freedom, 0.975))


def interval(metric: Metric[Any], statistics: ScoreStatistics) -> Interval | None:
    """The interval of a metric's mean score; None where the scores are too few to tell.

    Of a metric whose scores are hits and misses it is Wilson's, which is right where all are hits, too: Brown, Cai,
    DasGupta: Interval Estimation for a Binomial Proportion, 2001. Of others it is by Student's t, as far as that lies
    within the range of the metric; of scores that are all the same, it is `of_equal`.
    """
    count = statistics.effective_count
    if metric.is_proportion:
        return wilson(statistics.mean, count)
    if statistics.standard_error == 0:
        return of_equal(statistics.mean, count, *metric.value_range)
    half = confidence_half_width(statistics.standard_error, count)
    if math.isnan(half):
        return None
    low, high = metric.value_range
    return Interval(max(low, statistics.mean - half), min(high, statistics.mean + half))


def of_equal(score: float, count: float, low: float, high: float) -> Interval:
    """The interval of the mean of scores in a range of which some, at least one, were seen, and all are the same.

    If a share q of all pictures had other scores, none of n would show with probability (1 - q)ⁿ. So q is at most
    1 - 0.025^(1/n) with 97.5 % confidence (Clopper, Pearson 1934; the rule of three), and the others are at the one or
    the other end of the range at the most.
    """
    others = 1 - 0.025 ** (1 / count)
    return Interval(score - others * (score - low), score + others * (high - score))


def wilson(share: float, count: float) -> Interval:
    """Wilson's score interval of a share in [0, 1] of some trials, at least one."""
    weight = _Z * _Z / count
    middle = (share + weight / 2) / (1 + weight)
    half = _Z / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))
