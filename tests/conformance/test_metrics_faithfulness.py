"""Faithfulness on paper, against plain loops, and on models whose best and worst maps are known."""

import itertools
import math

import numpy as np
import pytest
from measuring import NeighboursNet, from_function
from scipy.ndimage import gaussian_filter

from xai_sidecar.engine.work import drive
from xai_sidecar.explainers.activations import sigmoid, softmax
from xai_sidecar.explainers.base import Context
from xai_sidecar.metrics.base import ScoreStatus
from xai_sidecar.metrics.faithfulness import DeletionAuc, InsertionAuc, NaiveFaithfulness, area
from xai_sidecar.metrics.instance import Instance
from xai_sidecar.metrics.perturbation import PerturbationParameters, ranked, rise_blur, step_ends

HALF, RISE = (PerturbationParameters(protocol=protocol) for protocol in ("mindspore_xai", "rise"))
PROTOCOLS = pytest.mark.parametrize("parameters", [HALF, RISE], ids=["mindspore_xai", "rise"])
CURVES = pytest.mark.parametrize("benchmark", [DeletionAuc(), InsertionAuc()], ids=["deletion", "insertion"])


def identity(logits):
    """Probabilities that are the logits, so that sums can be done on paper."""
    return logits.astype(np.float64)


def measured(benchmark, model, subject, parameters=HALF, activation=identity):
    return drive(benchmark.measure(subject, parameters, Context(activation)), from_function(model))


def total(inputs):
    """A model of one class: the sum of all that it sees."""
    return inputs.sum(axis=(1, 2, 3), dtype=np.float64)[:, None]


def picture(rows):
    return np.array([rows], np.float32)


# ----------------------------------------------------------------------------------------------------- on paper

EIGHT = picture([[0.30, 0.05, 0.20, 0.02], [0.03, 0.25, 0.05, 0.10]])
"""Adds up to 1. By size: 0.30, 0.25, 0.20, 0.10, …; half of the pixels in ⌊√8⌋ = 2 steps of 2."""


def test_deletion_on_paper():
    # 1, without the two largest 0.45, without four 0.15: (1 / 2 + 0.45 + 0.15 / 2) / 2.
    score = measured(DeletionAuc(), total, Instance(EIGHT, 0, EIGHT[0]))
    assert score.value == pytest.approx(0.5125, abs=1e-6)
    # The smallest first: 0.02 + 0.03, then 0.05 + 0.05, leave 0.95 and 0.85.
    score = measured(DeletionAuc(), total, Instance(EIGHT, 0, -EIGHT[0]))
    assert score.value == pytest.approx((1 / 2 + 0.95 + 0.85 / 2) / 2, abs=1e-6)


def test_insertion_on_paper():
    score = measured(InsertionAuc(), total, Instance(EIGHT, 0, EIGHT[0]))
    assert score.value == pytest.approx((0 / 2 + 0.55 + 0.85 / 2) / 2, abs=1e-6)
    score = measured(InsertionAuc(), total, Instance(EIGHT, 0, -EIGHT[0]))
    assert score.value == pytest.approx((0 / 2 + 0.05 + 0.15 / 2) / 2, abs=1e-6)


def test_deletion_of_all_pixels_on_paper():
    # Eight steps of a pixel: 1, 0.7, 0.45, 0.25, 0.15, 0.10, 0.05, 0.02, 0.
    score = measured(DeletionAuc(), total, Instance(EIGHT, 0, EIGHT[0]), RISE)
    assert score.value == pytest.approx((0.5 + 0.7 + 0.45 + 0.25 + 0.15 + 0.10 + 0.05 + 0.02 + 0) / 8, abs=1e-6)


def test_naive_on_paper():
    # Four pixels in two steps of one: 3, then 2 of saliency, and drops of 5 and 1: two points always lie on a line.
    image = picture([[5, 1], [7, 7]])
    assert measured(NaiveFaithfulness(), total, Instance(image, 0, image[0] * 0 + [[3, 2], [1, 0]])).value == 1
    assert measured(NaiveFaithfulness(), total, Instance(image, 0, image[0] * 0 + [[2, 3], [1, 0]])).value == -1
    # All pixels: saliency 3, 2, 1, 0 against drops of 4, 1, 2, 1; r = 4 / √(5 · 6).
    image = picture([[4, 1], [2, 1]])
    score = measured(NaiveFaithfulness(), total, Instance(image, 0, np.array([[3, 2], [1, 0]])), RISE)
    assert score.value == pytest.approx(4 / math.sqrt(30), abs=1e-6)


def test_area():
    assert area(np.array([1.0, 0.0])) == 0.5
    assert area(np.array([1.0, 1.0, 1.0])) == 1
    assert area(np.array([0.0, 0.5, 1.0, 0.5])) == pytest.approx((0.25 + 0.75 + 0.75) / 3)


@pytest.mark.parametrize(
    ("shape", "protocol", "steps", "last"),
    [
        ((224, 224), "mindspore_xai", 224, 25088),
        ((224, 224), "rise", 28, 50176),
        ((8, 12), "mindspore_xai", 9, 45),  # ⌊√96⌋ steps of ⌊96 / 18⌋
        ((8, 12), "rise", 24, 96),  # of 4
        ((28, 28), "rise", 28, 784),
        ((30, 31), "rise", 28, 930),  # 27 of 34 and one of 12
        ((1, 1), "mindspore_xai", 1, 1),
        ((1, 1), "rise", 1, 1),
    ],
)
def test_steps(shape, protocol, steps, last):
    ends = step_ends(math.prod(shape), PerturbationParameters(protocol=protocol))
    assert (len(ends) - 1, ends[0], ends[-1]) == (steps, 0, last)
    sizes = np.diff(ends)
    assert len(set(sizes[:-1].tolist())) <= 1
    assert 0 < sizes[-1] <= sizes[0]
    if shape == (224, 224):
        assert set(sizes.tolist()) == {112 if protocol == "mindspore_xai" else 224 * 8}


# ------------------------------------------------------------------------------------------------ by plain loops


def authors_blur(image):
    """A convolution with the authors' kernel, pixel by pixel; SciPy makes the kernel as it does for them."""
    dirac = np.zeros((11, 11))
    dirac[5, 5] = 1
    kernel = gaussian_filter(dirac, 5).astype(np.float32)
    channels, height, width = image.shape
    blurred = np.zeros(image.shape)
    for c, i, j in np.ndindex(channels, height, width):
        for a, b in np.ndindex(11, 11):
            y, x = i + a - 5, j + b - 5
            if 0 <= y < height and 0 <= x < width:
                blurred[c, i, j] += kernel[a, b] * image[c, y, x]
    return blurred


def places_in_order(saliency):
    return sorted(np.ndindex(saliency.shape), key=lambda place: saliency[place], reverse=True)


def loop_sizes(count, parameters):
    """Pixels of each step."""
    if parameters.protocol == "rise":
        step = -(-count // 28)
        return [min(step, count - start) for start in range(0, count, step)]
    steps = int(count**0.5)
    return [int(count * 0.5 / steps)] * steps


def loop_auc(net, image, saliency, target, parameters, *, insertion):
    """As the authors' evaluation.py describes it: copy pixels from finish to start, and look after each step."""
    blank = np.zeros(image.shape)
    if insertion and parameters.protocol == "rise":
        blank = authors_blur(image)
    current, finish = (blank.copy(), image) if insertion else (image.astype(np.float64), blank)
    order = places_in_order(saliency)
    scores = [net.probability(current, target)]
    for size in loop_sizes(saliency.size, parameters):
        for y, x in order[:size]:
            current[:, y, x] = finish[:, y, x]
        order = order[size:]
        scores.append(net.probability(current, target))
    return sum((a + b) / 2 for a, b in itertools.pairwise(scores)) / (len(scores) - 1)


def loop_naive(net, image, saliency, target, parameters):
    whole = net.probability(image, target)
    order, importance, drops = places_in_order(saliency), [], []
    for size in loop_sizes(saliency.size, parameters):
        covered = image.copy()
        for y, x in order[:size]:
            covered[:, y, x] = 0
        importance.append(sum(float(saliency[place]) for place in order[:size]) / size)
        drops.append(whole - net.probability(covered, target))
        order = order[size:]
    return np.corrcoef(importance, drops)[0, 1]


@PROTOCOLS
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("frame", [(8, 12), (7, 5), (1, 29), (30, 31)])  # all but the first end in a smaller step
def test_against_plain_loops(parameters, channels, target, frame):
    generator = np.random.default_rng(4)
    image = generator.normal(0, 1, (channels, *frame)).astype(np.float32)
    saliency = generator.normal(0, 1, frame).astype(np.float32)
    net, subject = NeighboursNet(channels, frame), Instance(image, target, saliency)
    for benchmark, insertion in ((DeletionAuc(), False), (InsertionAuc(), True)):
        expected = loop_auc(net, image, saliency, target, parameters, insertion=insertion)
        assert measured(benchmark, net, subject, parameters, softmax).value == pytest.approx(expected, abs=1e-6)
    expected = loop_naive(net, image, saliency, target, parameters)
    assert measured(NaiveFaithfulness(), net, subject, parameters, softmax).value == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("shape", [(3, 8, 12), (1, 40, 9), (2, 1, 1)])
def test_the_authors_blur(shape):
    image = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
    blurred = rise_blur(image)
    assert blurred.dtype == np.float32
    np.testing.assert_allclose(blurred, authors_blur(image), atol=1e-6)


def test_the_authors_blur_is_even_inside_and_fades_at_the_edges():
    blurred = rise_blur(np.ones((1, 30, 30), np.float32))[0]
    np.testing.assert_allclose(blurred[5:-5, 5:-5], 1, atol=1e-6)
    assert 0.25 < blurred[0, 0] < 0.4


# ---------------------------------------------------------------------------------- the best map, and the worst


def better(benchmark, one, other):
    return one > other if benchmark.higher_is_better else one < other


@CURVES
@PROTOCOLS
def test_no_order_beats_the_best_map_or_loses_to_the_worst(benchmark, parameters):
    image = np.array([[[0.1, -0.3, 0.8], [0.5, 0.35, -0.05]], [[0.1, 0.2, 0.0], [-0.1, 0.3, 0.0]]], np.float32)
    blank = rise_blur(image) if parameters is RISE and benchmark.higher_is_better else 0
    gains = (image - blank).sum(axis=0)  # of the probability, by pixel
    best, worst = (measured(benchmark, total, Instance(image, 0, sign * gains), parameters).value for sign in (1, -1))
    assert better(benchmark, best, worst)
    scores = []
    for values in itertools.permutations(range(6)):
        subject = Instance(image, 0, np.array(values).reshape(2, 3))
        scores.append(measured(benchmark, total, subject, parameters).value)
    extremes = (max(scores), min(scores)) if benchmark.higher_is_better else (min(scores), max(scores))
    assert (best, worst) == pytest.approx(extremes, abs=1e-6)


@PROTOCOLS
@pytest.mark.parametrize("channels", [1, 3])
def test_the_best_map_wins_over_chance_and_chance_over_the_worst(parameters, channels):
    generator = np.random.default_rng(4)
    image = generator.uniform(0.5, 1, (channels, 8, 12)).astype(np.float32)
    weights = generator.normal(0, 1, (channels, 8, 12))
    weights[:, 2:6, 3:8] += 3

    def model(inputs):
        return (inputs * weights).sum(axis=(1, 2, 3))[:, None] / 40

    gains = (image * weights).sum(axis=0)
    for benchmark in (DeletionAuc(), InsertionAuc(), NaiveFaithfulness()):
        best, worst = (
            measured(benchmark, model, Instance(image, 0, sign * gains), parameters, sigmoid).value for sign in (1, -1)
        )
        for _ in range(5):
            chance = generator.permutation(gains.ravel()).reshape(gains.shape)
            score = measured(benchmark, model, Instance(image, 0, chance), parameters, sigmoid).value
            assert better(benchmark, best, score)
            assert better(benchmark, score, worst)


@PROTOCOLS
def test_naive_is_one_for_the_map_that_is_right_and_minus_one_for_its_opposite(parameters):
    image = np.random.default_rng(5).uniform(0, 1, (2, 8, 12)).astype(np.float32)
    gains = image.sum(axis=0)
    for sign in (1, -1):
        score = measured(NaiveFaithfulness(), total, Instance(image, 0, sign * gains), parameters)
        assert score.value == pytest.approx(sign, abs=1e-6)


@CURVES
@PROTOCOLS
def test_only_the_order_of_a_map_counts(benchmark, parameters):
    generator = np.random.default_rng(6)
    image = generator.normal(0, 1, (3, 8, 12)).astype(np.float32)
    saliency = generator.normal(0, 1, (8, 12))
    ranks = saliency.argsort(axis=None).argsort().reshape(8, 12)
    scores = {
        measured(benchmark, NeighboursNet(3), Instance(image, 1, values), parameters, softmax).value
        for values in (saliency, 1e-30 * saliency, np.exp(saliency) + 5, ranks)
    }
    assert len(scores) == 1


# --------------------------------------------------------------------------------------------------------- ties


def test_equally_salient_pixels_come_in_an_order_of_their_own():
    order = ranked(np.zeros((20, 30)))
    assert sorted(order) == list(range(600))
    np.testing.assert_array_equal(order, ranked(np.full((20, 30), 7.0)))
    rows, columns = np.divmod(order[:100], 30)
    assert abs(rows.mean() - 9.5) < 2
    assert abs(columns.mean() - 14.5) < 3


def test_ties_never_go_before_what_is_more_salient():
    saliency = np.random.default_rng(0).integers(0, 4, (20, 30)).astype(np.float64)
    np.testing.assert_array_equal(saliency.ravel()[ranked(saliency)], np.sort(saliency, axis=None)[::-1])
    among_equals = [place for place in ranked(np.zeros((20, 30))) if saliency.ravel()[place] == 2]
    assert [place for place in ranked(saliency) if saliency.ravel()[place] == 2] == among_equals


@CURVES
@PROTOCOLS
def test_a_constant_map_scores_by_chance_wherever_the_object_is(benchmark, parameters):
    # Deleting (or inserting) half of the pixels, or all, by chance takes (or adds) in proportion.
    chance = {HALF: {False: 0.75, True: 0.25}, RISE: {False: 0.5, True: 0.5}}[parameters][benchmark.higher_is_better]
    for corner in (np.s_[:, :20, :20], np.s_[:, :20, 20:], np.s_[:, 20:, :20], np.s_[:, 20:, 20:]):
        image = np.zeros((1, 40, 40), np.float32)
        image[corner] = 1 / 400
        blurred = rise_blur(image).sum() if parameters is RISE and benchmark.higher_is_better else 0
        score = measured(benchmark, total, Instance(image, 0, np.zeros((40, 40))), parameters).value
        assert score == pytest.approx(chance + blurred / 2, abs=0.03)


# -------------------------------------------------------------------------------------------------- no score


@PROTOCOLS
@pytest.mark.parametrize("value", [0, 0.1, -3e-20, 1e30])
def test_naive_of_a_constant_map(parameters, value):
    image = np.random.default_rng(0).normal(0, 1, (1, 8, 12)).astype(np.float32)
    for saliency in (np.full((8, 12), value, np.float32), np.full((8, 12), value) * (1 + 1e-8 * image[0])):
        score = measured(NaiveFaithfulness(), total, Instance(image, 0, saliency), parameters)
        assert (score.value, score.status) == (None, ScoreStatus.MAP_CONSTANT)


def test_naive_of_a_map_whose_top_half_is_constant():
    image = np.random.default_rng(0).normal(0, 1, (1, 8, 12)).astype(np.float32)
    saliency = np.ones((8, 12))
    saliency[6:] = 0
    score = measured(NaiveFaithfulness(), total, Instance(image, 0, saliency))
    assert score.status is ScoreStatus.MAP_CONSTANT
    assert measured(NaiveFaithfulness(), total, Instance(image, 0, saliency), RISE).status is ScoreStatus.OK


@PROTOCOLS
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_a_map_does_not_matter(parameters, scale):
    generator = np.random.default_rng(0)
    image = generator.normal(0, 1, (1, 8, 12)).astype(np.float32)
    saliency = generator.normal(0, 1, (8, 12))
    one, other = (
        measured(NaiveFaithfulness(), NeighboursNet(1), Instance(image, 0, values), parameters, softmax).value
        for values in (saliency, (scale * saliency).astype(np.float32))
    )
    assert one == pytest.approx(other, abs=1e-5)


# ------------------------------------------------------------------------------------------------------ memory


@PROTOCOLS
@pytest.mark.parametrize("benchmark", [NaiveFaithfulness(), DeletionAuc(), InsertionAuc()], ids=lambda b: b.name)
def test_memory_stays_flat(benchmark, parameters):
    image = np.zeros((3, 224, 224), np.float32)
    subject = Instance(image, 0, np.arange(224.0 * 224).reshape(224, 224))
    steps = benchmark.measure(subject, parameters, Context(identity))
    rows, sent = 0, None
    try:
        while True:
            work = steps.send(sent)
            assert work.masks.nbytes <= 2**21
            assert work.masks.dtype == np.float32
            assert work.image is image
            rows += len(work.masks)
            sent = np.arange(rows, rows + len(work.masks), dtype=np.float32)[:, None]
    except StopIteration as stop:
        assert stop.value.status is ScoreStatus.OK
    assert rows == {HALF: 224, RISE: 28}[parameters] + (benchmark.name != "faithfulness/naive")
