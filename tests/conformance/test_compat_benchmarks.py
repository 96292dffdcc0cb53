"""MindSpore XAI's metrics: the same names and signatures, against plain loops and maps whose worth is known."""

import math

import numpy as np
import pytest

from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.compat.explanation import (
    RISE,
    ClassSensitivity,
    Faithfulness,
    GradCAM,
    Gradient,
    Localization,
    Robustness,
    SaliencyWarning,
)

SIDE = 12


class Corner(nn.Cell):
    """Class 1 is the brightness of the left third of the picture, class 2 that of the rest; class 0 little of both."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(4, 4)
        self.flatten = nn.Flatten()
        weight = np.zeros((3, 9), np.float32)
        weight[0, 4:6] = 0.1, 0.2
        weight[1, ::3] = 2
        weight[2, 1::3] = weight[2, 2::3] = 1
        self.dense = nn.Dense(9, 3, weight_init=ms.Tensor(weight), bias_init=ms.Tensor([0.0, 0.0, 0.0], ms.float32))

    def construct(self, x):
        return self.dense(self.flatten(self.pool(x.mean(axis=1, keep_dims=True))))


@pytest.fixture(scope="module")
def net():
    return Corner()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).uniform(0.5, 1, (2, 3, SIDE, SIDE)).astype(np.float32)


def probability(net, images, target):
    rows = net(ms.Tensor(np.asarray(images, np.float32))).asnumpy().astype(np.float64)
    powers = np.exp(rows)
    return (powers / powers.sum(axis=1, keepdims=True))[:, target]


def ideal(count=2):
    """A map that rises within the left third, without ties, and is lower everywhere else."""
    rising = np.arange(SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE) / 1e4
    rising[:, :4] += 1
    return np.repeat(rising[None, None], count, axis=0)


def steps_of(saliency):
    """The pixels of each step, the most salient first: half of them in as many steps as the side has pixels."""
    order = np.argsort(-saliency.ravel(), kind="stable")
    return order[: SIDE * SIDE // 2].reshape(SIDE, -1)


def covered(image, pixels, keep=False):
    flags = np.zeros(SIDE * SIDE, bool)
    flags[pixels] = True
    flags = flags.reshape(SIDE, SIDE)
    return np.where(flags == keep, image, 0)


def trapezoid(curve):
    return (curve.sum() - curve[0] / 2 - curve[-1] / 2) / (len(curve) - 1)


def loop(net, image, saliency, metric):
    groups = steps_of(saliency)
    if metric == "NaiveFaithfulness":
        drops = [probability(net, image[None], 1)[0] - probability(net, covered(image, g)[None], 1)[0] for g in groups]
        means = [saliency.ravel()[g].mean() for g in groups]
        return (1 + np.corrcoef(means, drops)[0, 1]) / 2
    so_far = [groups[:count].ravel().astype(int) for count in range(SIDE + 1)]
    keep = metric == "InsertionAUC"
    curve = probability(net, np.stack([covered(image, pixels, keep) for pixels in so_far]), 1)
    return (1 + (trapezoid(curve) - curve[0] if keep else 1 - trapezoid(curve))) / 2


@pytest.mark.parametrize("metric", ["NaiveFaithfulness", "DeletionAUC", "InsertionAUC"])
def test_faithfulness_by_a_loop(net, images, metric):
    benchmark = Faithfulness(3, nn.Softmax(), metric)
    maps = np.random.default_rng(4).random((2, 1, SIDE, SIDE)).astype(np.float32)
    scores = benchmark.evaluate(Gradient(net), images, 1, maps)
    expected = [loop(net, image, saliency[0], metric) for image, saliency in zip(images, maps, strict=True)]
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


@pytest.mark.parametrize("metric", ["NaiveFaithfulness", "DeletionAUC", "InsertionAUC"])
def test_a_good_map_scores_above_its_reverse(net, images, metric):
    benchmark = Faithfulness(3, nn.Softmax(), metric)
    good, bad = (benchmark.evaluate(Gradient(net), images, 1, maps) for maps in (ideal(), -ideal()))
    assert (good > bad).all()


def test_localization_of_frames_that_are_not_square():
    class Wide(nn.Cell):
        def __init__(self):
            super().__init__()
            self.flatten = nn.Flatten()
            self.dense = nn.Dense(3 * 8 * 20, 2)

        def construct(self, x):
            return self.dense(self.flatten(x))

    maps = np.zeros((1, 1, 8, 20), np.float32)
    maps[0, 0, 2, 17] = 1  # row 2, column 17
    mask = np.zeros((1, 1, 8, 20), np.float32)
    mask[0, 0, :4, 15:] = 1
    explainer, inputs = Gradient(Wide()), np.ones((1, 3, 8, 20), np.float32)
    for metric in ("PointingGame", "IoSR"):
        benchmark = Localization(2, metric)
        assert benchmark.evaluate(explainer, inputs, 1, maps, mask).tolist() == [1.0]
        assert benchmark.evaluate(explainer, inputs, 1, maps, 1 - mask).tolist() == [0.0]
    half = maps.copy()
    half[0, 0, 6, 1] = 0.9
    assert Localization(2, "IoSR").evaluate(explainer, inputs, 1, half, mask).tolist() == [0.5]


def test_robustness_by_hand(net, images):
    """The gradient of a linear net is the same everywhere; that of a picture times itself is not."""
    scores = Robustness(3, nn.Softmax()).evaluate(Gradient(net), images, 1)
    np.testing.assert_allclose(scores, [1, 1], rtol=1e-6)

    class Square(Corner):
        def construct(self, x):
            return super().construct(x * x)

    scores = Robustness(3, nn.Softmax()).evaluate(Gradient(Square()), images, 1)
    # The map is proportional to the picture's largest channel, so its noise is at most 0.2 of values of 0.5 to 1.
    assert (np.exp(-0.4) < scores).all()
    assert (scores < np.exp(-0.05)).all()


def test_class_sensitivity_of_any_explainer(net, images):
    """MindSpore XAI raises for RISE. The maps of a layer of one channel are alike for all classes."""
    rise = RISE(net, nn.Softmax(), masks=200)
    scores = ClassSensitivity().evaluate(rise, ms.Tensor(images))
    assert isinstance(scores, ms.Tensor)
    rows = net(ms.Tensor(images)).asnumpy()
    maps = rise(images, np.stack([rows.argmax(axis=1), rows.argmin(axis=1)], axis=1))
    expected = [(1 - np.corrcoef(*pair.reshape(2, -1))[0, 1]) / 2 for pair in maps]
    np.testing.assert_allclose(scores.asnumpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(ClassSensitivity().evaluate(GradCAM(net, layer="pool"), images), 0, atol=1e-6)


def test_results_add_up(net, images):
    benchmark = Faithfulness(3, nn.Softmax(), "DeletionAUC")
    assert math.isnan(benchmark.performance)
    benchmark.aggregate(np.array([0.25, 0.75]), ms.Tensor([1, 2], ms.int32))
    benchmark.aggregate(0.5, 1)
    benchmark.aggregate(math.nan, 1)
    assert benchmark.performance == pytest.approx(0.5)
    np.testing.assert_equal(benchmark.class_performances, [math.nan, 0.375, 0.75])
    np.testing.assert_equal(benchmark.get_results(), {0: [], 1: [0.25, 0.5, math.nan], 2: [0.75]})
    benchmark.reset()
    assert benchmark.get_results() == {0: [], 1: [], 2: []}
    sensitivity = ClassSensitivity()
    sensitivity.aggregate(ms.Tensor([0.5, 1.0], ms.float32))
    assert sensitivity.performance == 0.75


def test_a_score_that_is_not_defined_is_none(net, images):
    flat = np.ones((2, 1, SIDE, SIDE), np.float32)
    with pytest.warns(SaliencyWarning, match="map constant"):
        scores = Faithfulness(3, nn.Softmax()).evaluate(Gradient(net), images, 1, flat)
    assert np.isnan(scores).all()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda net, x: Faithfulness(3, nn.Softmax(), "AUC"), ValueError, "NaiveFaithfulness, DeletionAUC"),
        (lambda net, x: Faithfulness(0, nn.Softmax()), ValueError, "num_labels"),
        (lambda net, x: Faithfulness(3, "softmax"), TypeError, "activation_fn"),
        (lambda net, x: Localization(3, "IoU"), ValueError, "PointingGame, IoSR"),
        (lambda net, x: Localization(3).evaluate(Gradient(net), x, 1), ValueError, "mask"),
        (lambda net, x: Localization(3).evaluate(Gradient(net), x, 1, mask=x), ValueError, "mask must have the shape"),
        (lambda net, x: Robustness(4, nn.Softmax()).evaluate(Gradient(net), x, 1), ValueError, "net has 3 classes"),
        (lambda net, x: Robustness(3, nn.Softmax()).evaluate(net, x, 1), TypeError, "explainer"),
        (lambda net, x: Robustness(3, nn.Softmax()).aggregate("0.5", 1), TypeError, "result"),
        (lambda net, x: Robustness(3, nn.Softmax()).aggregate(0.5, 3), ValueError, "no class 3"),
        (
            lambda net, x: Faithfulness(3, nn.Softmax()).evaluate(Gradient(net), x, 1, x),
            ValueError,
            "saliency must have the shape",
        ),
    ],
)
def test_wrong_arguments_are_named(net, images, call, error, words):
    with pytest.raises(error, match=words):
        call(net, images)
