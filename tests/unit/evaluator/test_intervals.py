"""Intervals of means, and of shares at 0 and 1."""

import math

import pytest
from scipy.stats import binomtest, t

from xai_sidecar.evaluator.intervals import interval, wilson
from xai_sidecar.evaluator.weighted import ScoreStatistics
from xai_sidecar.metrics.discovery import installed_metrics

SRG, POINTING, DELETION = (
    installed_metrics()[name]
    for name in ("faithfulness/srg", "localization/pointing_game", "faithfulness/deletion_auc")
)


@pytest.mark.parametrize("count", [1, 2, 20, 500])
@pytest.mark.parametrize("part", [0, 0.5, 1])
def test_wilsons_interval_as_scipy_has_it(count, part):
    hits = round(part * count)
    expected = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    found = wilson(hits / count, count)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_nothing_but_hits_is_not_certain():
    found = interval(POINTING, ScoreStatistics(1.0, 0.0, 20, 0.0))
    assert found.high == 1
    assert 0.8 < found.low < 0.85
    assert interval(POINTING, ScoreStatistics(0.0, None, 1, 0.0)).high > 0.7


def test_an_interval_ends_where_the_scores_end():
    found = interval(DELETION, ScoreStatistics(0.02, 0.05, 10, 0.0))
    assert (found.low, found.high) == (0, pytest.approx(0.02 + t.ppf(0.975, 9) * 0.05))
    found = interval(SRG, ScoreStatistics(0.02, 0.05, 10, 0.0))
    assert found.low == pytest.approx(0.02 - t.ppf(0.975, 9) * 0.05)
    assert interval(SRG, ScoreStatistics(0.99, 0.05, 10, 0.0)).high == 1


@pytest.mark.parametrize("count", [2, 20, 300])
def test_equal_scores_do_not_say_that_there_are_no_others(count):
    """As many others as could be missed 1 time in 40, at either end of the range; SciPy has their share."""
    share = binomtest(0, count).proportion_ci(0.95, method="exact").high
    found = interval(SRG, ScoreStatistics(0.5, 0.0, count, 0.0))
    assert (found.low, found.high) == pytest.approx((0.5 - 1.5 * share, 0.5 + 0.5 * share))
    found = interval(DELETION, ScoreStatistics(1.0, 0.0, count, 0.0))
    assert (found.low, found.high) == pytest.approx((1 - share, 1))


@pytest.mark.parametrize(("error", "count"), [(None, 1), (math.nan, 5)])
def test_too_few_to_tell(error, count):
    assert interval(SRG, ScoreStatistics(0.5, error, count, 0.0)) is None
