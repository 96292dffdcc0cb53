"""ROAD by hand, against plain loops, and on a model whose best map is known."""

import numpy as np
import pytest
from measuring import NeighboursNet, from_function

from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.engine.work import Forward, drive
from xai_sidecar.explainers.activations import softmax
from xai_sidecar.explainers.base import Context, ModelFacts
from xai_sidecar.metrics import imputation
from xai_sidecar.metrics.base import ScoreStatus
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.metrics.imputation import imputed
from xai_sidecar.metrics.instance import Instance
from xai_sidecar.metrics.road import Road, RoadParameters
from xai_sidecar.picture_units import PictureUnits

UNITS = PictureUnits((0.5, 0.25), (0.25, 0.5), (0.75, 0.5))


def measured(net, instance, context=None, **parameters):
    steps = Road().measure(instance, RoadParameters(**parameters), context or Context(softmax, 9, UNITS))
    return drive(steps, from_function(net))


# ------------------------------------------------------------------------------------------------ imputation


def unknown(shape, *places):
    known = np.ones(shape, bool)
    for place in places:
        known[place] = False
    return known


def test_one_pixel_is_the_weighted_mean_of_its_neighbours():
    image = np.arange(18, dtype=np.float32).reshape(2, 3, 3) ** 2
    direct, diagonal = image[:, [0, 1, 1, 2], [1, 0, 2, 1]].sum(1), image[:, [0, 0, 2, 2], [0, 2, 0, 2]].sum(1)
    (found,) = imputed(image, unknown((3, 3), (1, 1))[np.newaxis])
    np.testing.assert_allclose(found[:, 1, 1], direct / 6 + diagonal / 12, rtol=1e-6)
    found[:, 1, 1] = image[:, 1, 1]
    np.testing.assert_array_equal(found, image)


def test_at_the_edge_the_others_weigh_more():
    """In a corner of 2 x 2: 1/6, 1/6 and 1/12 become 2/5, 2/5 and 1/5."""
    image = np.array([[[9, 1], [3, 7]]], np.float32)
    assert imputed(image, unknown((2, 2), (0, 0))[np.newaxis])[0, 0, 0, 0] == pytest.approx(0.4 * 1 + 0.4 * 3 + 0.2 * 7)


def test_between_two_known_pixels_a_line_is_straight():
    image = np.array([[[2, 0, 0, 0, 10]]], np.float32)
    found = imputed(image, unknown((1, 5), *((0, place) for place in (1, 2, 3)))[np.newaxis])
    np.testing.assert_allclose(found[0, 0, 0], [2, 4, 6, 8, 10], rtol=1e-6)


def loop_imputed(image, known):
    """Pixel by pixel, until nothing changes any more."""
    result, (height, width) = np.where(known, image, 0.0).astype(np.float64), known.shape
    for _ in range(3000):
        before = result.copy()
        for y, x in zip(*np.nonzero(~known), strict=True):
            total, weights = 0.0, 0.0
            for other_y in range(max(0, y - 1), min(height, y + 2)):
                for other_x in range(max(0, x - 1), min(width, x + 2)):
                    if (other_y, other_x) != (y, x):
                        weight = 1 / 6 if other_y == y or other_x == x else 1 / 12
                        total, weights = total + weight * result[:, other_y, other_x], weights + weight
            result[:, y, x] = total / weights
        if np.abs(result - before).max() < 1e-9:
            return result
    raise AssertionError("it does not settle")


SHAPES = [((1, 6, 7), 0.3), ((2, 5, 9), 0.7), ((3, 4, 4), 0.9), ((2, 1, 5), 0.5), ((2, 9, 2), 0.6)]


@pytest.mark.parametrize("largest", [imputation.BANDED, -1], ids=["banded", "sparse"])
@pytest.mark.parametrize(("shape", "share"), SHAPES)
def test_imputation_against_plain_loops(shape, share, largest, monkeypatch):
    """Three copies with other pixels known of each."""
    monkeypatch.setattr(imputation, "BANDED", largest)
    generator = np.random.default_rng(0)
    image, known = generator.normal(size=shape).astype(np.float32), generator.random((3, *shape[1:])) >= share
    known[:, 0, 0] = True
    found = imputed(image, known)
    assert (found.shape, found.dtype) == ((3, *shape), np.float32)
    for copy, each in zip(found, known, strict=True):
        np.testing.assert_allclose(copy, loop_imputed(image, each), atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 30, 20), (1, 20, 30)])
def test_both_factorisations_give_the_same_to_rounding(shape, monkeypatch):
    generator = np.random.default_rng(1)
    image = generator.normal(size=shape).astype(np.float32)
    known = np.stack([generator.random(shape[1:]) >= share for share in (0.2, 0.95)])
    known = np.concatenate([known, np.arange(shape[1] * shape[2]).reshape(1, *shape[1:]) < 40])  # a hole, and its rim
    banded = imputed(image, known)
    monkeypatch.setattr(imputation, "BANDED", -1)
    np.testing.assert_allclose(imputed(image, known), banded, rtol=1e-6, atol=1e-7)


def test_a_copy_does_not_depend_on_the_others():
    generator = np.random.default_rng(2)
    image, known = generator.normal(size=(2, 8, 9)).astype(np.float32), generator.random((4, 8, 9)) >= 0.5
    alone = [imputed(image, each[np.newaxis])[0] for each in known]
    np.testing.assert_array_equal(imputed(image, known), alone)


def test_where_all_is_known_nothing_changes_and_where_nothing_is_there_is_nothing():
    image = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
    known = np.ones((2, 2, 2), bool)
    known[1, 0, 0] = False
    np.testing.assert_array_equal(imputed(image, known)[0], image)
    known[1] = False
    with pytest.raises(ValueError, match="of no pixel anything is known"):
        imputed(image, known)


# ------------------------------------------------------------------------------------------------ the score


def loop_road(net, image, saliency, target, steps):
    """Without a rank or a mask of ours."""
    places = sorted(np.ndindex(saliency.shape), key=lambda place: saliency[place])
    differences = []
    for step in range(1, steps + 1):
        count = round(len(places) * step / (steps + 1))
        without = []
        for removed in (places[:count], places[-count:]):
            known = unknown(saliency.shape, *removed)
            without.append(net.probability(loop_imputed(image, known), target))
        differences.append(without[0] - without[1])
    return np.mean(differences) / 2


@pytest.mark.parametrize(("frame", "steps"), [((5, 7), 9), ((6, 4), 3)])
@pytest.mark.parametrize("target", [0, 1])
def test_against_plain_loops(frame, steps, target):
    generator = np.random.default_rng(4)
    image = generator.normal(0, 1, (2, *frame)).astype(np.float32)
    saliency = generator.normal(0, 1, frame).astype(np.float32)
    net = NeighboursNet(2, frame)
    expected = loop_road(net, image, saliency, target, steps)
    assert measured(net, Instance(image, target, saliency), steps=steps, noise=0.0).value == pytest.approx(
        expected, abs=1e-6
    )
    opposite = measured(net, Instance(image, target, -saliency), steps=steps, noise=0.0)
    assert opposite.value == pytest.approx(-expected, abs=1e-6)


def bright_corner(inputs):
    """Logits of two classes: the first is there as far as a corner is bright."""
    corner = inputs[:, 0, :4, :4].mean(axis=(1, 2))
    return np.stack([8 * corner - 4, 4 - 8 * corner], 1)


def test_the_map_of_what_the_model_goes_by_scores_and_noise_does_not():
    image = np.zeros((1, 12, 12), np.float32)
    image[:, :4, :4] = 1
    right = image[0]
    generator = np.random.default_rng(0)
    scores = [measured(bright_corner, Instance(image, 0, right), Context(softmax, seed)).value for seed in range(3)]
    assert min(scores) > 0.25
    noise = [
        measured(bright_corner, Instance(image, 0, generator.random((12, 12))), Context(softmax, seed)).value
        for seed in range(30)
    ]
    assert abs(np.mean(noise)) < 3 * np.std(noise, ddof=1) / np.sqrt(30)


def test_noise_is_of_the_pictures_scale_where_pixels_were_removed():
    """With a deviation of 0.02 of a picture, which is 0.08 and 0.04 of these inputs."""
    image = np.zeros((2, 30, 30), np.float32)
    saliency = np.indices((30, 30))[0].astype(np.float32)
    asked = []

    def run(kind, rows):
        assert kind == Forward.kind
        asked.append(rows[0])
        return (np.zeros((len(rows[0]), 2), np.float32),)

    steps = Road().measure(
        Instance(image, 0, saliency), RoadParameters(steps=1, noise=0.02), Context(softmax, 1, UNITS)
    )
    drive(steps, run)
    least, most = np.concatenate(asked)
    for copy, kept, noisy in ((least, slice(15, 30), slice(15)), (most, slice(15), slice(15, 30))):
        assert not copy[:, kept].any()
        assert copy[:, noisy].std(axis=(1, 2)) == pytest.approx([0.08, 0.04], rel=0.15)
    assert not np.array_equal(least[:, :15], most[:, 15:])


def test_passes_are_as_told_and_the_seed_decides():
    net, saliency = NeighboursNet(2, (6, 6)), np.random.default_rng(0).random((6, 6))
    image = np.random.default_rng(1).normal(size=(2, 6, 6)).astype(np.float32)
    passes = []

    def run(kind, rows):
        passes.append(len(rows[0]))
        return from_function(net)(kind, rows)

    one, again, other = (
        drive(Road().measure(Instance(image, 0, saliency), RoadParameters(), Context(softmax, seed, UNITS)), run).value
        for seed in (1, 1, 2)
    )
    assert sum(passes) == 3 * Road().pass_count(RoadParameters(), ModelFacts(6, 6)) == 3 * 18
    assert one == again != other


def test_an_output_that_is_not_finite_has_no_score():
    def broken(inputs):
        return np.full((len(inputs), 2), np.nan)

    score = measured(broken, Instance(np.zeros((1, 4, 4), np.float32), 0, np.eye(4, dtype=np.float32)))
    assert score.status is ScoreStatus.OUTPUT_NOT_FINITE


def test_it_is_measured_where_it_is_named_alone():
    assert "faithfulness/road" in installed_metrics()
    assert set(installed_metrics()) - set(EvaluatorConfig().metrics) == {"faithfulness/road"}
    assert EvaluatorConfig(metrics=["faithfulness/road"]).metrics == ["faithfulness/road"]
