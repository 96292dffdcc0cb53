"""SRG on paper, against plain loops, and on models whose best and worst maps are known."""

import itertools

import numpy as np
import pytest
from measuring import NeighboursNet, from_function

from xai_sidecar.engine.work import drive
from xai_sidecar.explainers.activations import sigmoid, softmax
from xai_sidecar.explainers.base import Context, ModelFacts
from xai_sidecar.metrics.base import ScoreStatus
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.metrics.faithfulness import DeletionAuc, InsertionAuc
from xai_sidecar.metrics.instance import Instance
from xai_sidecar.metrics.perturbation import PerturbationParameters, StepParameters, even_ends
from xai_sidecar.metrics.srg import Srg
from xai_sidecar.picture_units import PictureUnits

UNITS = PictureUnits((0.5, 0.25), (0.25, 0.5), (0.75, 0.5))
COLOURS = {"mean_colour": (1.0, 0.5), "black": (-2.0, -0.5)}
"""What covers pixels, in units of the model input, worked out by hand."""


def identity(logits):
    return logits.astype(np.float64)


def total(inputs):
    return inputs.sum(axis=(1, 2, 3), dtype=np.float64)[:, None]


def measured(model, instance, context=None, metric=None, **parameters):
    metric = metric or Srg()
    steps = metric.measure(instance, metric.parameters_type(**parameters), context or Context(identity))
    return drive(steps, from_function(model))


EIGHT = np.array([[[0.30, 0.05, 0.20, 0.02], [0.03, 0.25, 0.06, 0.09]]], np.float32)
"""Adds up to 1."""


def test_on_paper():
    # The largest first leave 0.7, 0.45, 0.25, 0.16, 0.10, 0.05, 0.02; the smallest first what these take.
    most = [1, 0.7, 0.45, 0.25, 0.16, 0.10, 0.05, 0.02, 0]
    least = [1, 0.98, 0.95, 0.90, 0.84, 0.75, 0.55, 0.30, 0]
    expected = (sum(least) - sum(most)) / 8
    assert measured(total, Instance(EIGHT, 0, EIGHT[0])).value == pytest.approx(expected, abs=1e-6)
    assert measured(total, Instance(EIGHT, 0, -EIGHT[0])).value == pytest.approx(-expected, abs=1e-6)
    # In two steps of four pixels: halves of 0.84 and 0.16.
    assert measured(total, Instance(EIGHT, 0, EIGHT[0]), steps=2).value == pytest.approx((0.84 - 0.16) / 2, abs=1e-6)


@pytest.mark.parametrize(("count", "steps"), [(224 * 224, 28), (30 * 31, 28), (96, 28), (29, 28), (5, 28), (7, 2)])
def test_all_pixels_in_even_steps(count, steps):
    ends = even_ends(count, steps)
    assert (ends[0], ends[-1], len(ends)) == (0, count, min(steps, count) + 1)
    assert np.ptp(np.diff(ends)) <= 1
    assert np.diff(ends).min() >= 1


def test_two_passes_for_each_step():
    assert Srg().pass_count(StepParameters(), ModelFacts(224, 224)) == 56


# ------------------------------------------------------------------------------------------------ by plain loops


def loop_blur(image):
    """Pixel by pixel, by weights that add up to 1 inside the picture."""
    channels, height, width = image.shape
    deviation, blurred = min(height, width) / 20, np.zeros(image.shape)
    for c, i, j in np.ndindex(channels, height, width):
        weights = [
            [np.exp(-((y - i) ** 2 + (x - j) ** 2) / (2 * deviation**2)) for x in range(width)] for y in range(height)
        ]
        blurred[c, i, j] = (np.array(weights) * image[c]).sum() / np.sum(weights)
    return blurred


def loop_srg(net, image, saliency, target, fill, steps):
    """Pixel by pixel, without a mask, a rank or an area of ours."""
    blank = loop_blur(image) if fill == "blurred" else np.ones(image.shape) * np.array(COLOURS[fill])[:, None, None]
    places = sorted(np.ndindex(saliency.shape), key=lambda place: saliency[place])
    sizes = np.diff([round(len(places) * step / steps) for step in range(steps + 1)])
    areas = []
    for order in (places, places[::-1]):
        current, left = image.astype(np.float64), list(order)
        heights = [net.probability(current, target)]
        for size in sizes:
            for y, x in left[:size]:
                current[:, y, x] = blank[:, y, x]
            del left[:size]
            heights.append(net.probability(current, target))
        areas.append(sum((a + b) / 2 for a, b in itertools.pairwise(heights)) / steps)
    return areas[0] - areas[1]


@pytest.mark.parametrize("fill", ["blurred", "mean_colour", "black"])
@pytest.mark.parametrize(("frame", "steps"), [((8, 12), 28), ((7, 5), 9), ((16, 19), 28)])
@pytest.mark.parametrize("target", [0, 1])
def test_against_plain_loops(fill, frame, steps, target):
    generator = np.random.default_rng(4)
    image = generator.normal(0, 1, (2, *frame)).astype(np.float32)
    saliency = generator.normal(0, 1, frame).astype(np.float32)
    net, context = NeighboursNet(2, frame), Context(softmax, 9, UNITS)
    score = measured(net, Instance(image, target, saliency), context, fill=fill, steps=steps)
    assert score.value == pytest.approx(loop_srg(net, image, saliency, target, fill, steps), abs=1e-6)


# --------------------------------------------------------------------------------------------------- what it says


def test_no_order_beats_the_best_map_or_loses_to_the_worst():
    image = np.array([[[0.1, -0.3, 0.8], [0.5, 0.35, -0.05]], [[0.1, 0.2, 0.0], [-0.1, 0.3, 0.0]]], np.float32)
    gains = image.sum(axis=0)
    best, worst = (measured(total, Instance(image, 0, sign * gains)).value for sign in (1, -1))
    scores = [
        measured(total, Instance(image, 0, np.array(values).reshape(2, 3))).value
        for values in itertools.permutations(range(6))
    ]
    assert (best, worst) == pytest.approx((max(scores), min(scores)), abs=1e-6)
    assert best == -worst


def test_a_map_and_its_opposite_differ_in_the_sign_alone():
    generator = np.random.default_rng(0)
    image = generator.normal(0, 1, (2, 8, 12)).astype(np.float32)
    saliency = generator.normal(0, 1, (8, 12))
    one, other = (
        measured(NeighboursNet(2, (8, 12)), Instance(image, 1, sign * saliency), Context(softmax)) for sign in (1, -1)
    )
    assert one.value == pytest.approx(-other.value, abs=1e-9)
    assert abs(one.value) > 1e-3


@pytest.mark.parametrize("corner", [np.s_[:, :20, :20], np.s_[:, :20, 20:], np.s_[:, 20:, :20], np.s_[:, 20:, 20:]])
def test_a_constant_map_scores_as_a_random_one(corner):
    """Zero, wherever the object is; and by another order of equals on each sample, so that samples average out."""
    image = np.zeros((1, 40, 40), np.float32)
    image[corner] = 1 / 400
    generator, chance = np.random.default_rng(5), []
    constant = [
        measured(total, Instance(image, 0, np.ones((40, 40))), Context(identity, seed)).value for seed in range(20)
    ]
    for _ in range(20):
        chance.append(measured(total, Instance(image, 0, generator.random((40, 40)))).value)
    assert len(set(constant)) == 20
    assert np.std(constant) == pytest.approx(np.std(chance), rel=0.6)
    for scores in (constant, chance):
        assert abs(np.mean(scores)) < 4 * np.std(scores) / np.sqrt(20)
    assert measured(total, Instance(image, 0, image[0])).value > 0.7 > 10 * np.std(constant)


def test_half_of_a_map_that_is_constant_is_by_chance_as_well():
    """Above the constant half the order counts, below it none is favoured."""
    image = np.ones((1, 20, 20), np.float32) / 400
    image[0, :10, :10] = 0
    saliency = np.zeros((20, 20))
    saliency[:10, :10] = 1  # the least important quarter is called the most important one
    scores = [measured(total, Instance(image, 0, saliency), Context(identity, seed)).value for seed in range(20)]
    # Of a whole of 3/4: the most salient quarter takes nothing, the rest takes alike; and the other way round.
    most, least = 3 / 4 * (1 / 4 + 3 / 8), 3 / 4 * 3 / 8
    assert np.mean(scores) == pytest.approx(least - most, abs=0.01)


# --------------------------------------------------------------------------------------------------- its passes


def test_it_is_insertion_less_deletion_and_shares_their_passes():
    generator = np.random.default_rng(1)
    image = generator.normal(0, 1, (2, 15, 19)).astype(np.float32)  # an odd number of pixels
    net, context = NeighboursNet(2, (15, 19)), Context(sigmoid, 3, UNITS)
    shared = {}
    instance = Instance(image, 0, generator.normal(0, 1, (15, 19)), shared=shared)
    score = measured(net, instance, context).value
    assert len(shared) == 56

    def nothing(inputs):
        raise AssertionError("there are these passes already")

    parts = [measured(nothing, instance, context, metric()).value for metric in (InsertionAuc, DeletionAuc)]
    assert score == pytest.approx(parts[0] - parts[1], abs=1e-12)
    # What is covered otherwise, or in another order of equals, is not the same.
    for other, given in ((context, {"fill": "black"}), (Context(sigmoid, 4, UNITS), {})):
        alone, beside = (
            measured(net, Instance(image, 0, instance.saliency, shared=cache), other, **given).value
            for cache in (None, shared)
        )
        assert beside == pytest.approx(alone, abs=1e-7)


def test_protocols_do_not_mix():
    """Passes that one protocol left do not change what another one measures."""
    generator = np.random.default_rng(2)
    image = generator.normal(0, 1, (2, 8, 12)).astype(np.float32)
    saliency = generator.integers(0, 4, (8, 12)).astype(np.float32)  # with ties, which protocols break otherwise
    context, shared = Context(softmax, 3, UNITS), {}
    for name, protocol in itertools.product(
        ("faithfulness/insertion_auc", "faithfulness/deletion_auc", "faithfulness/naive"),
        ("srg", "rise", "mindspore_xai"),
    ):
        metric, parameters = installed_metrics()[name], PerturbationParameters(protocol=protocol)
        alone, beside = (
            drive(
                metric.measure(Instance(image, 0, saliency, shared=cache), parameters, context),
                from_function(NeighboursNet(2, (8, 12))),
            )
            for cache in (None, shared)
        )
        assert beside.value == pytest.approx(alone.value, abs=1e-7)


def test_the_logits_of_the_picture_save_a_pass():
    image = EIGHT
    instance = Instance(image, 0, image[0], logits=total(image[None])[0].astype(np.float32), shared={})
    rows = []

    def counting(inputs):
        rows.append(len(inputs))
        return total(inputs)

    score = measured(counting, instance)
    assert sum(rows) == 2 * 8 - 1
    assert score.value == pytest.approx(measured(total, Instance(image, 0, image[0])).value, abs=1e-7)


def test_no_score_of_an_output_that_is_not_finite():
    score = measured(lambda inputs: total(inputs) * np.nan, Instance(EIGHT, 0, EIGHT[0]))
    assert (score.value, score.status) == (None, ScoreStatus.OUTPUT_NOT_FINITE)
