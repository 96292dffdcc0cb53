"""Activations, ranking and the choice of targets, at their extremes too."""

import numpy as np
import pytest

from xai_sidecar.explainers.activations import sigmoid, softmax
from xai_sidecar.service.predictor import Targets, deadline_of, ranked

EXTREME = np.array([3e38, -3e38, 0, 88, -104, 1e4], np.float32)


def array(*values):
    return np.array(values, np.float32)


def test_softmax():
    np.testing.assert_allclose(softmax(array(0, np.log(3))), [0.25, 0.75], rtol=1e-6)
    np.testing.assert_allclose(softmax(array(1000, 1000 + np.log(3))), [0.25, 0.75], rtol=1e-4)
    assert softmax(array(5)).tolist() == [1]
    assert softmax(array(1, 2)).dtype == np.float64


def test_sigmoid():
    np.testing.assert_allclose(sigmoid(array(0, np.log(3), -np.log(3))), [0.5, 0.75, 0.25], rtol=1e-6)
    assert sigmoid(array(1)).dtype == np.float64


@pytest.mark.filterwarnings("error")
def test_extreme_logits():
    for activation in (softmax, sigmoid):
        probabilities = activation(EXTREME)
        assert np.isfinite(probabilities).all()
        assert probabilities.min() >= 0
        assert probabilities.max() <= 1
    assert softmax(EXTREME).tolist() == [1, 0, 0, 0, 0, 0]
    assert sigmoid(EXTREME)[[0, 1]].tolist() == [1, 0]
    assert 0 < sigmoid(array(-10))[0] < 1e-4


def test_ties_are_ranked_by_class_id():
    assert ranked(array(0.2, 0.4, 0.2, 0.4)).tolist() == [1, 3, 0, 2]
    assert ranked(np.full(1000, 0.001, np.float32)).tolist() == list(range(1000))
    assert ranked(array(0.5)).dtype == np.int32


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (Targets(), [1]),
        (Targets(top_count=3), [1, 3, 0]),
        (Targets(class_ids=(2, 0)), [2, 0]),
        (Targets(min_probability=0.2), [1, 3, 0]),
        (Targets(min_probability=0.25), [1, 3]),
        (Targets(min_probability=0.5), []),
        (Targets(min_probability=0.01), [1, 3, 0]),  # the limit
    ],
)
def test_targets(targets, expected):
    probabilities = array(0.2, 0.35, 0.15, 0.3)
    assert targets.of(probabilities, 3).tolist() == expected
    assert targets.of(probabilities, 3).dtype == np.int32


def test_deadlines():
    assert deadline_of(None) == float("inf")
    assert deadline_of(2) - deadline_of(1) == pytest.approx(1, abs=0.1)
