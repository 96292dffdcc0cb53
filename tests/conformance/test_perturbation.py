"""Occlusion, RISE and RISEPlus against plain loops, explicit masks and toy models whose answer is known."""

import numpy as np
import pytest

from xai_sidecar.engine.batching import masked
from xai_sidecar.engine.work import drive
from xai_sidecar.errors import ParameterError, PreconditionError
from xai_sidecar.explainers.activations import sigmoid, softmax
from xai_sidecar.explainers.base import Context, MapStatus, ModelFacts
from xai_sidecar.explainers.blur import gaussian_blur
from xai_sidecar.explainers.masks import CoarseMasks, MaskGrid
from xai_sidecar.explainers.occlusion import Occlusion
from xai_sidecar.explainers.rise import Rise, RisePlus
from xai_sidecar.explainers.rise_estimate import PlainMean, Regression


def ids(*targets):
    return np.array(targets, np.int32)


def resolved(explainer, height, width, has_ood=True, **values):
    return explainer.resolve(explainer.parameters_type(**values), ModelFacts(height, width, has_ood=has_ood))


def ask(explainer, model, image, targets, parameters, activation=softmax, seed=0, ood=None):
    """Runs an explainer on a model that is a function of inputs (n, C, H, W); returns what it says, and the passes."""
    passes = 0

    def run(kind, rows):
        nonlocal passes
        inputs = masked(*rows) if kind.name.startswith("masked") else rows[0]
        passes += len(inputs)
        logits = np.asarray(model(inputs), np.float32)
        return (logits,) if "ood" not in kind.name else (np.asarray(ood(inputs), np.float32), logits[:, 0], logits)

    return drive(explainer.explain(image, targets, parameters, Context(activation, seed)), run), passes


def exactly(probabilities):
    """The logits of which a sigmoid makes these probabilities."""
    return np.log(probabilities) - np.log1p(-probabilities)


# -------------------------------------------------------------------------------------------------------- occlusion


def loop_occlusion(net, image, target, window, stride, fill):
    """Window by window, pixel by pixel, in float64."""
    channels, height, width = image.shape

    def probability(x):
        powers = np.exp(net.logits(x))
        return powers[target] / powers.sum()

    drops, coverage = np.zeros((height, width)), np.zeros((height, width))
    tops = sorted({min(top, height - window) for top in range(0, height, stride)})
    lefts = sorted({min(left, width - window) for left in range(0, width, stride)})
    for top in tops:
        for left in lefts:
            covered = image.copy()
            for c in range(channels):
                covered[c, top : top + window, left : left + window] = fill[c, top : top + window, left : left + window]
            drop = probability(image) - probability(covered)
            drops[top : top + window, left : left + window] += drop
            coverage[top : top + window, left : left + window] += 1
    assert coverage.min() >= 1
    return drops / coverage


def blurred_by_hand(image, deviation):
    channels, height, width = image.shape
    result = np.zeros_like(image)
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                total = weights = 0.0
                for a in range(height):
                    for b in range(width):
                        weight = np.exp(-((i - a) ** 2 + (j - b) ** 2) / (2 * deviation**2))
                        total += weight * image[c, a, b]
                        weights += weight
                result[c, i, j] = total / weights
    return result


@pytest.mark.parametrize(
    ("window", "stride", "fill"),
    [(3, 1, "zero"), (4, 3, "mean"), (5, 5, "zero"), (2, 2, "blur"), (8, 1, "zero"), (1, 1, "zero")],
)
def test_occlusion_by_a_plain_loop(window, stride, fill, small_backend, numpy_net, images, run_in_chunks):
    image = images[0].astype(np.float64)
    fills = {
        "zero": np.zeros_like(image),
        "mean": np.broadcast_to(image.mean(axis=(1, 2), keepdims=True), image.shape),
        "blur": blurred_by_hand(image, window / 2) if fill == "blur" else None,
    }
    parameters = resolved(Occlusion(), 8, 12, window_size=window, stride=stride, fill=fill)
    maps = run_in_chunks(small_backend, Occlusion().explain(images[0], ids(2, 1), parameters), 3).maps
    for saliency, target in zip(maps, (2, 1), strict=True):
        expected = loop_occlusion(numpy_net, image, target, window, stride, fills[fill])
        np.testing.assert_allclose(saliency, expected, atol=2e-6)
        assert (expected < 0).any(), "the test would not see a lost sign"


def test_occlusion_on_paper():
    # The probability is the mean of the first row's two left pixels, 0.2 and 0.6, so 0.4 in all. Windows of 2 x 2 with
    # stride 1 on 2 x 3 pixels: the left one covers both (drop 0.4), the right one the second (drop 0.3).
    image = np.array([[[0.2, 0.6, 0.9], [0.5, 0.5, 0.5]]], np.float32)

    def model(inputs):
        return exactly(np.clip(inputs[:, 0, 0, :2].mean(axis=1, keepdims=True), 1e-7, 1))

    parameters = resolved(Occlusion(), 2, 3, window_size=2, stride=1)
    saliency, passes = ask(Occlusion(), model, image, ids(0), parameters, sigmoid)
    np.testing.assert_allclose(saliency.maps[0], [[0.4, 0.35, 0.3]] * 2, atol=1e-6)
    assert passes == 3


def test_occlusion_by_default():
    large = resolved(Occlusion(), 224, 320)
    assert (large.window_size, large.stride) == (7, 7)
    assert Occlusion().pass_counts(1, large, ModelFacts(224, 320)).most == 1 + 32 * 46
    small = resolved(Occlusion(), 32, 40)
    assert (small.window_size, small.stride) == (3, 1)
    assert resolved(Occlusion(), 2, 2).window_size == 2
    assert resolved(Occlusion(), 224, 224, window_size=32).stride == 7
    assert resolved(Occlusion(), 224, 224, window_size=4).stride == 4


@pytest.mark.parametrize(
    ("values", "field"), [({"window_size": 9}, "window_size"), ({"window_size": 2, "stride": 3}, "stride")]
)
def test_occlusion_refuses_what_does_not_fit(values, field):
    with pytest.raises(ParameterError) as caught:
        resolved(Occlusion(), 8, 12, **values)
    assert caught.value.field == field


def test_blur():
    image = np.random.default_rng(1).random((2, 5, 7)).astype(np.float32)
    np.testing.assert_allclose(gaussian_blur(image, 1.5), blurred_by_hand(image.astype(np.float64), 1.5), atol=1e-6)
    np.testing.assert_allclose(gaussian_blur(np.full((1, 4, 4), 3, np.float32), 9.0), 3, rtol=1e-6)


# ------------------------------------------------------------------------------------------------------------ masks


def mask_by_hand(grid, cells, shift):
    """Enlarges to (side + 1) cells bilinearly and crops, pixel by pixel."""
    side = grid.side
    cell_height, cell_width = -(-grid.height // side), -(-grid.width // side)
    mask = np.zeros((grid.height, grid.width))
    for i in range(grid.height):
        for j in range(grid.width):
            y = (i + shift[0] + 0.5) * side / ((side + 1) * cell_height) - 0.5
            x = (j + shift[1] + 0.5) * side / ((side + 1) * cell_width) - 0.5
            y, x = min(max(y, 0), side - 1), min(max(x, 0), side - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, side - 1), min(left + 1, side - 1)
            upper = cells[top, left] * (1 - x + left) + cells[top, right] * (x - left)
            lower = cells[bottom, left] * (1 - x + left) + cells[bottom, right] * (x - left)
            mask[i, j] = upper * (1 - y + top) + lower * (y - top)
    return mask


def drawn(grid, seed, count):
    blocks = list(grid.draw(seed, count))
    return CoarseMasks(np.concatenate([b.cells for b in blocks]), np.concatenate([b.shifts for b in blocks]))


@pytest.mark.parametrize(("height", "width", "side"), [(8, 12, 3), (9, 7, 7), (30, 20, 4), (5, 5, 5)])
def test_masks_by_their_definition(height, width, side):
    grid = MaskGrid(height, width, side, 0.5)
    masks = drawn(grid, 3, 40)
    enlarged = grid.enlarge(masks)
    assert enlarged.shape == (40, height, width)
    assert enlarged.dtype == np.float32
    for mask, cells, shift in zip(enlarged, masks.cells, masks.shifts, strict=True):
        np.testing.assert_allclose(mask, mask_by_hand(grid, cells, shift), atol=1e-6)


def test_masks_are_as_random_as_they_should_be():
    grid = MaskGrid(24, 36, 4, 0.3)
    masks = drawn(grid, 11, 8000)
    assert set(np.unique(masks.cells)) == {0, 1}
    assert abs(masks.cells.mean() - 0.3) < 0.005  # three standard deviations are 0.004
    assert set(masks.shifts[:, 0]) == set(range(6))  # of a whole cell
    assert set(masks.shifts[:, 1]) == set(range(9))
    np.testing.assert_allclose(grid.enlarge(masks).mean(axis=0), 0.3, atol=0.02)
    flat = masks.cells.reshape(8000, -1)
    assert np.abs(np.corrcoef(flat.T) - np.eye(16)).max() < 0.05


def test_masks_depend_on_the_seed_only():
    grid = MaskGrid(8, 12, 3, 0.5)
    many, few = drawn(grid, 5, 100), drawn(grid, 5, 37)
    np.testing.assert_array_equal(many.cells[:37], few.cells)
    np.testing.assert_array_equal(many.shifts[:37], few.shifts)
    assert (drawn(grid, 6, 100).cells != many.cells).any()
    assert len(few.cells) == 37
    assert drawn(grid, 2**64 - 1, 1).cells.shape == (1, 3, 3)
    assert len(np.unique(many.cells.reshape(100, -1), axis=0)) > 50, "blocks repeat"


# ------------------------------------------------------------------------------------------------------------- RISE


def test_plain_rise_is_the_sum_over_its_masks(small_backend, numpy_net, images, run_in_chunks):
    parameters = resolved(Rise(), 8, 12, mask_count=70, grid_size=3, keep_probability=0.4, estimator="plain")
    steps = Rise().explain(images[1], ids(0, 3), parameters, Context(softmax, 9))
    maps = run_in_chunks(small_backend, steps, 4).maps
    grid = MaskGrid(8, 12, 3, 0.4)
    masks = drawn(grid, 9, 70)
    expected = np.zeros((2, 8, 12))
    for cells, shift in zip(masks.cells, masks.shifts, strict=True):
        mask = mask_by_hand(grid, cells, shift)
        powers = np.exp(numpy_net.logits(images[1].astype(np.float64) * mask))
        for row, target in enumerate((0, 3)):
            expected[row] += powers[target] / powers.sum() * mask
    np.testing.assert_allclose(maps, expected / (70 * 0.4), rtol=1e-5)


def linear_truth(grid, weights):
    """RISE's map, with infinitely many masks, of a model whose score is 0.5 + Σ weights (M - q).

    The covariance of two pixels of a mask, by the definition of its expectation: over all shifts, Σ_k w_k(x) w_k(y)
    q (1 - q).
    """
    rows, columns = grid.windows()
    down = np.einsum("shk,sgl->hgkl", rows.astype(np.float64), rows)
    across = np.einsum("shk,sgl->hgkl", columns.astype(np.float64), columns)
    # Shifts of both axes are independent, and only equal cells covary.
    both = np.einsum("ackk,bdll->abcd", down, across) / (len(rows) * len(columns))
    q = grid.keep_probability
    return 0.5 + (1 - q) * np.einsum("abcd,cd->ab", both, weights)


def linear_model(weights, q):
    def model(inputs):
        return exactly(0.5 + ((inputs[:, 0] - q) * weights).sum(axis=(1, 2)))[:, None]

    return model


@pytest.mark.parametrize("estimator", ["regression", "plain"])
@pytest.mark.parametrize(("grid_size", "keep"), [(4, 0.5), (6, 0.3)])
def test_rise_on_a_model_whose_map_is_known(estimator, grid_size, keep):
    height, width = 24, 36
    grid = MaskGrid(height, width, grid_size, keep)
    weights = np.zeros((height, width))
    weights[4:10, 20:30] = 1
    weights[15:20, 5:10] = -0.5
    weights *= 0.4 / np.abs(weights).sum()
    truth = linear_truth(grid, weights)
    parameters = resolved(
        Rise(), height, width, mask_count=20_000, grid_size=grid_size, keep_probability=keep, estimator=estimator
    )
    image = np.ones((1, height, width), np.float32)
    saliency, _ = ask(Rise(), linear_model(weights, keep), image, ids(0), parameters, sigmoid, seed=4)
    spread = truth.std()
    error = np.sqrt(np.mean((saliency.maps[0] - truth - (saliency.maps[0] - truth).mean()) ** 2)) / spread
    told = float(saliency.standard_errors[0])
    if estimator == "plain":
        # The plain average's error is dominated by the sum of all masks, which hardly varies from pixel to pixel.
        assert error < 3 * told
        assert error < 0.5
    else:
        assert error < 0.02, "what is linear in the cells is found by regression"
    assert saliency.maps[0].mean() == pytest.approx(truth.mean(), abs=0.02)


def test_regression_has_the_same_limit_as_the_plain_average():
    """A model that is far from linear, many masks: the two estimates differ by no more than their errors allow."""
    grid = MaskGrid(14, 14, 7, 0.5)
    masks = drawn(grid, 2, 60_000)
    enlarged = grid.enlarge(masks)
    scores = (
        (enlarged[:, 3:6, 3:6].mean(axis=(1, 2)) > 0.6) & (enlarged[:, 9:12, 8:12].mean(axis=(1, 2)) > 0.4)
    ).astype(np.float32)[:, None]
    estimates = {}
    for name, estimator in (("plain", PlainMean(grid, 1)), ("regression", Regression(grid, 1))):
        for start in range(0, 60_000, 1000):
            chunk = slice(start, start + 1000)
            estimator.add(CoarseMasks(masks.cells[chunk], masks.shifts[chunk]), enlarged[chunk], scores[chunk])
        estimates[name] = estimator.estimate()
    plain, regression = (estimates[name].maps[0] - estimates[name].maps[0].mean() for name in estimates)
    assert np.sqrt(np.mean((plain - regression) ** 2)) / plain.std() < 2 * estimates["plain"].standard_errors[0]
    assert np.corrcoef(plain.ravel(), regression.ravel())[0, 1] > 0.998
    assert estimates["regression"].standard_errors[0] < 0.75 * estimates["plain"].standard_errors[0]


def threshold_model(inputs):
    """Sure of itself when enough of a corner and of the middle is there; no bit linear."""
    corner, middle = inputs[:, 0, :8, :8].mean(axis=(1, 2)), inputs[:, 0, 12:20, 12:22].mean(axis=(1, 2))
    return np.stack([12 * (corner - 0.5) + 20 * corner * (middle - 0.4), np.zeros(len(inputs))], axis=1)


def test_standard_errors_are_honest():
    """Over many seeds, the error really made is about the error told."""
    image = np.ones((1, 28, 28), np.float32)
    best = resolved(Rise(), 28, 28, mask_count=40_000)
    truth = ask(Rise(), threshold_model, image, ids(0), best, seed=999)[0].maps[0]
    truth = truth - truth.mean()
    for count in (100, 400):
        parameters = resolved(Rise(), 28, 28, mask_count=count)
        made, told = [], []
        for seed in range(12):
            saliency = ask(Rise(), threshold_model, image, ids(0), parameters, seed=seed)[0]
            one = saliency.maps[0] - saliency.maps[0].mean()
            made.append(np.mean((one - truth) ** 2))
            told.append((float(saliency.standard_errors[0]) * one.std()) ** 2)
        assert 0.5 < np.sqrt(np.mean(made) / np.mean(told)) < 2, count


def test_a_map_of_nothing_but_noise_is_not_called_good():
    """A model without any linear effect: whatever stands out, stands out by chance."""
    grid = MaskGrid(28, 28, 7, 0.5)
    told = []
    for seed in range(40):
        masks = drawn(grid, seed, 128)
        estimator = Regression(grid, 1)
        scores = np.random.default_rng(seed).random((128, 1))
        estimator.add(masks, grid.enlarge(masks), scores)
        told.append(float(estimator.estimate().standard_errors[0]))
    assert min(told) > 0.5


def test_regression_needs_far_fewer_masks():
    image = np.ones((1, 28, 28), np.float32)
    best = resolved(Rise(), 28, 28, mask_count=40_000)
    truth = ask(Rise(), threshold_model, image, ids(0), best, seed=999)[0].maps[0].ravel()

    def error(estimator, count):
        parameters = resolved(Rise(), 28, 28, mask_count=count, estimator=estimator)
        maps = [ask(Rise(), threshold_model, image, ids(0), parameters, seed=seed)[0].maps[0] for seed in range(6)]
        return np.mean([1 - np.corrcoef(one.ravel(), truth)[0, 1] for one in maps])

    assert error("regression", 250) < error("plain", 1000)


def test_tolerance_stops_as_soon_as_the_map_is_good_enough():
    image = np.ones((1, 28, 28), np.float32)
    parameters = resolved(Rise(), 28, 28, mask_count=20_000, tolerance=0.2)
    saliency, passes = ask(Rise(), threshold_model, image, ids(0, 1), parameters, seed=1)
    assert (saliency.standard_errors <= 0.2).all()
    assert 128 <= passes < 10_000
    exact = resolved(Rise(), 28, 28, mask_count=passes)
    np.testing.assert_array_equal(ask(Rise(), threshold_model, image, ids(0, 1), exact, seed=1)[0].maps, saliency.maps)
    out_of_reach = resolved(Rise(), 28, 28, mask_count=300, tolerance=0.001)
    saliency, passes = ask(Rise(), threshold_model, image, ids(0), out_of_reach, seed=1)
    assert passes == 300
    assert saliency.standard_errors[0] > 0.001


@pytest.mark.parametrize("estimator", ["regression", "plain"])
def test_a_model_that_does_not_care(estimator):
    """A constant score has a constant map, of which no error can be told; it never counts as good enough."""
    parameters = resolved(Rise(), 8, 12, mask_count=200, estimator=estimator, tolerance=0.5)
    image = np.ones((3, 8, 12), np.float32)
    saliency, passes = ask(Rise(), lambda inputs: np.zeros((len(inputs), 2)), image, ids(0), parameters)
    if estimator == "regression":
        np.testing.assert_allclose(saliency.maps, 0.5, rtol=1e-6)
        assert np.isinf(saliency.standard_errors).all()
        assert passes == 200
        assert saliency.statuses == (MapStatus.OK,)
    else:  # what the masks make of a constant is noise
        assert saliency.statuses == (MapStatus.UNRELIABLE,)


@pytest.mark.parametrize("explainer", [Rise(), RisePlus()], ids=["rise", "rise_plus"])
@pytest.mark.parametrize("estimator", ["regression", "plain"])
def test_scores_that_are_not_finite_are_told(explainer, estimator):
    def model(inputs):
        logits = np.zeros((len(inputs), 3))
        logits[:, 1] = np.where(np.arange(len(inputs)) == 3, np.nan, inputs.mean(axis=(1, 2, 3)))
        return logits

    image = np.ones((3, 8, 12), np.float32)
    parameters = resolved(explainer, 8, 12, mask_count=64, estimator=estimator)
    saliency, _ = ask(explainer, model, image, ids(0, 1), parameters, sigmoid, ood=lambda x: x.mean(axis=(1, 2, 3)))
    assert saliency.statuses[0] is not MapStatus.NOT_FINITE
    assert saliency.statuses[1] is MapStatus.NOT_FINITE


def test_an_input_too_small_for_masks_is_refused():
    with pytest.raises(PreconditionError, match="1 pixel"):
        resolved(Rise(), 1, 12)
    two = resolved(Rise(), 2, 12, mask_count=64)
    saliency, _ = ask(Rise(), threshold_free, np.ones((1, 2, 12), np.float32), ids(0), two)
    assert saliency.statuses == (MapStatus.OK,)


def threshold_free(inputs):
    return np.stack([inputs.mean(axis=(1, 2, 3)), np.zeros(len(inputs))], axis=1)


def test_scores_next_to_nothing_count_as_well():
    """Probabilities of 1e-30 have a map like others, and an error that is not zero."""
    for estimator in ("plain", "regression"):
        parameters = resolved(Rise(), 28, 28, mask_count=200, estimator=estimator)
        image = np.ones((1, 28, 28), np.float32)
        small, _ = ask(Rise(), lambda x: threshold_model(x) - [70, 0], image, ids(0), parameters, sigmoid, seed=1)
        large, _ = ask(Rise(), threshold_model, image, ids(0), parameters, lambda z: np.exp(np.float64(z)), seed=1)
        np.testing.assert_allclose(small.standard_errors, large.standard_errors, rtol=1e-2)
        assert small.standard_errors[0] > 0.05


def near_one(inputs):
    return 20 * inputs[:, 0, :2, :2].mean(axis=(1, 2))[:, None]


def test_occlusion_sees_how_little_is_left_of_one():
    """A drop from 1 - 1e-9, which float32 cannot tell from 1."""
    image = np.ones((1, 4, 4), np.float32)
    parameters = resolved(Occlusion(), 4, 4, window_size=2, stride=2)
    saliency, _ = ask(Occlusion(), near_one, image, ids(0), parameters, sigmoid)
    assert saliency.statuses == (MapStatus.OK,)


def test_a_grid_finer_than_the_input_is_refused():
    with pytest.raises(ParameterError) as caught:
        resolved(Rise(), 8, 12, grid_size=9)
    assert caught.value.field == "grid_size"


# --------------------------------------------------------------------------------------------------------- RISEPlus


def test_rise_plus_by_a_plain_loop():
    image = np.random.default_rng(3).random((2, 8, 12)).astype(np.float32)

    def model(inputs):
        return np.stack([inputs[:, 0].mean(axis=(1, 2)), inputs[:, 1].max(axis=(1, 2))], axis=1)

    def ood(inputs):
        return inputs[:, :, 2:5, 3:9].mean(axis=(1, 2, 3)) ** 2 - 0.1

    parameters = resolved(RisePlus(), 8, 12, mask_count=50, grid_size=3, estimator="plain")
    saliency, passes = ask(RisePlus(), model, image, ids(1, 0), parameters, softmax, seed=2, ood=ood)
    assert passes == 52
    grid = MaskGrid(8, 12, 3, 0.5)
    low, high = -0.1, float(ood(image[None])[0])
    expected = np.zeros((2, 8, 12))
    for cells, shift in zip(*(lambda m: (m.cells, m.shifts))(drawn(grid, 2, 50)), strict=True):
        mask = mask_by_hand(grid, cells, shift)
        x = (image * mask)[None]
        weight = (min(max(float(ood(x)[0]), low), high) - low) / (high - low)
        powers = np.exp(model(x)[0])
        for row, target in enumerate((1, 0)):
            expected[row] += weight * powers[target] / powers.sum() * mask
    np.testing.assert_allclose(saliency.maps, expected / 25, rtol=1e-4)


def test_rise_plus_is_rise_where_every_mask_is_an_inlier():
    """Scores of 1 but for the blank picture's 0: all weights are 1."""
    image = np.ones((1, 28, 28), np.float32)
    few = {"mask_count": 200, "estimator": "regression"}
    ood = lambda inputs: (inputs.reshape(len(inputs), -1).max(axis=1) > 0).astype(float)  # noqa: E731
    plus, _ = ask(RisePlus(), threshold_model, image, ids(0), resolved(RisePlus(), 28, 28, **few), seed=3, ood=ood)
    rise, _ = ask(Rise(), threshold_model, image, ids(0), resolved(Rise(), 28, 28, **few), seed=3)
    np.testing.assert_allclose(plus.maps, rise.maps, rtol=1e-5)


@pytest.mark.parametrize(("blank", "whole"), [(0.5, 0.5), (0.7, 0.2)])
def test_rise_plus_says_when_the_blank_picture_is_no_outlier(blank, whole):
    image = np.ones((1, 8, 12), np.float32)
    ood = lambda inputs: np.where(inputs.reshape(len(inputs), -1).any(axis=1), whole, blank)  # noqa: E731
    parameters = resolved(RisePlus(), 8, 12, mask_count=50)
    saliency, passes = ask(RisePlus(), lambda x: np.zeros((len(x), 2)), image, ids(0, 1), parameters, ood=ood)
    assert saliency.statuses == (MapStatus.NO_OOD_RANGE,) * 2
    assert passes == 2, "no passes are spent in vain"


def test_rise_plus_needs_an_ood_net():
    with pytest.raises(PreconditionError, match="train-ood"):
        resolved(RisePlus(), 8, 12, has_ood=False)


def test_ood_scores_come_from_the_same_passes(small_backend, images, run_in_chunks):
    kinds = []

    def run(kind, rows):
        kinds.extend([kind.name] * len(rows[0]))
        outputs = [small_backend.run(kind, tuple(array[i : i + 1] for array in rows)) for i in range(len(rows[0]))]
        return tuple(np.concatenate(column) for column in zip(*outputs, strict=True))

    drive(RisePlus().explain(images[0], ids(0), resolved(RisePlus(), 8, 12, mask_count=48)), run)
    assert kinds == ["masked_ood_score"] * 50
