"""Scores, and what many of them come to."""

import math

import numpy as np
import pytest
from measuring import Summary, summary

from xai_sidecar.metrics.base import Score, ScoreStatus


def test_mean_and_standard_error_on_paper():
    # Mean 3; squared deviations 4 + 0 + 1 + 1 + 4 = 10, over 4; over 5 again.
    summed = summary(Score(value) for value in (1.0, 3, 2, 4, 5))
    assert summed.mean == 3
    assert summed.standard_error == pytest.approx(math.sqrt(10 / 4 / 5))
    assert (summed.count, summed.skipped) == (5, {})


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), np.array(0.5), True])
def test_a_score_is_a_plain_float(value):
    assert type(Score(value).value) is float


def test_what_could_not_be_measured_is_counted_by_reason():
    scores = [
        Score(0.5),
        Score(None, ScoreStatus.MAP_CONSTANT),
        Score(None, ScoreStatus.NO_OBJECTS),
        Score(None, ScoreStatus.MAP_CONSTANT),
    ]
    assert summary(scores) == Summary(0.5, None, 1, {ScoreStatus.MAP_CONSTANT: 2, ScoreStatus.NO_OBJECTS: 1})


def test_of_nothing():
    assert summary([]) == Summary(None, None, 0, {})
    assert summary([Score(None, ScoreStatus.MAP_ZERO)]) == Summary(None, None, 0, {ScoreStatus.MAP_ZERO: 1})


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (math.nan, ScoreStatus.OK),
        (math.inf, ScoreStatus.OK),
        (math.nan, ScoreStatus.OUTPUT_NOT_FINITE),
        (0.5, ScoreStatus.MAP_ZERO),
        (None, ScoreStatus.OK),
    ],
)
def test_no_score_without_a_value_and_no_value_without_a_score(value, status):
    with pytest.raises(ValueError, match="a score of"):
        Score(value, status)


def test_zero_is_a_score():
    assert summary([Score(0.0), Score(1.0)]) == Summary(0.5, 0.5, 2, {})
