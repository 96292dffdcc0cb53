"""What every explainer must hold to, and their values against answers found another way."""

import numpy as np
import pytest

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.batching import in_batches
from xai_sidecar.engine.work import LayerGradients, Partial
from xai_sidecar.explainers.base import MapStatus, ModelFacts
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.explainers.gradcam import GradCam, GradCamParameters
from xai_sidecar.explainers.gradient import Gradient, GradientParameters
from xai_sidecar.explainers.resize import resize_bilinear

EVERY = pytest.mark.parametrize("explainer", installed_explainers().values(), ids=installed_explainers())
SIZES = pytest.mark.parametrize("size", [1, 2, 3, 4])


def defaults(explainer, backend):
    """Parameters by default, but for a number of masks that a test has time for."""
    few = {"masks": 40} if "masks" in explainer.parameters_type.model_fields else {}
    return explainer.resolve(explainer.parameters_type(**few), facts(backend))


def facts(backend):
    return ModelFacts(8, 12, backend.layers, backend.default_layer, has_ood=backend.ood is not None)


def ids(*targets):
    return np.array(targets, np.int32)


@EVERY
@SIZES
def test_several_targets_equal_one_at_a_time_at_every_batch_size(explainer, size, small_backend, images, run_in_chunks):
    parameters = defaults(explainer, small_backend)
    together = run_in_chunks(small_backend, explainer.explain(images[0], ids(2, 0, 3), parameters), size)
    assert together.maps.shape == (3, *images.shape[2:])
    assert together.maps.dtype == np.float32
    errors = [0] * 3 if together.standard_errors is None else together.standard_errors
    assert together.statuses == tuple(MapStatus.OK if error <= 0.7 else MapStatus.UNRELIABLE for error in errors)
    for target, saliency in zip((2, 0, 3), together.maps, strict=True):
        alone = run_in_chunks(small_backend, explainer.explain(images[0], ids(target), parameters), 1)
        np.testing.assert_allclose(saliency, alone.maps[0], atol=1e-5 * np.abs(saliency).max())


@EVERY
def test_what_else_is_in_the_batch_does_not_matter(explainer, small_backend, small_engine, images, run_in_chunks):
    parameters = defaults(explainer, small_backend)
    alone = [run_in_chunks(small_backend, explainer.explain(image, ids(1), parameters), 1).maps for image in images]
    jobs = [small_engine.submit(explainer.explain(images[i % 4], ids(1), parameters), Lane.EXPLAIN) for i in range(11)]
    for i, job in enumerate(jobs):
        np.testing.assert_allclose(job.result(60).value.maps, alone[i % 4], rtol=1e-4, atol=1e-6)


@EVERY
def test_the_same_twice(explainer, small_backend, images, run_in_chunks):
    parameters = defaults(explainer, small_backend)
    first, second = (
        run_in_chunks(small_backend, explainer.explain(images[1], ids(0), parameters), 1).maps for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


@EVERY
def test_the_image_is_left_alone(explainer, small_backend, images, run_in_chunks):
    image = images[0].copy()
    image.setflags(write=False)
    run_in_chunks(small_backend, explainer.explain(image, ids(0), defaults(explainer, small_backend)), 2)
    np.testing.assert_array_equal(image, images[0])


@EVERY
def test_normalised_to_the_largest_value(explainer, small_backend, images, run_in_chunks):
    raw = defaults(explainer, small_backend)
    normal = raw.model_copy(update={"normalization": "max"})
    maps = run_in_chunks(small_backend, explainer.explain(images[0], ids(0, 1), raw), 1).maps
    scaled = run_in_chunks(small_backend, explainer.explain(images[0], ids(0, 1), normal), 1).maps
    for before, after in zip(maps, scaled, strict=True):
        assert np.abs(after).max() == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(after * np.abs(before).max(), before, rtol=1e-5, atol=1e-9)


@EVERY
def test_the_passes_it_announces_are_those_it_takes(explainer, small_backend, images, run_in_chunks):
    parameters = defaults(explainer, small_backend)
    counts = explainer.pass_counts(3, parameters, facts(small_backend))
    steps = explainer.explain(images[0], ids(0, 1, 2), parameters)
    run = in_batches(small_backend.run, 1)  # other sizes need not be compiled
    rows, rows_of_partials, sent = 0, [], None
    try:
        while True:
            work = steps.send(sent)
            if isinstance(work, Partial):
                rows_of_partials.append(rows)
                assert work.make().maps.shape == (3, 8, 12)
                sent = None
            else:
                rows += len(work.rows[0])
                assert work.kind == explainer.kind(parameters)
                sent = work.result(run(work.kind, work.rows))
    except StopIteration:
        pass
    assert rows == counts.most == counts.least
    assert counts.first == (rows_of_partials or [rows])[0]
    known = {"gradient": [], "guided_backprop": [], "deconvolution": [], "gradcam": []}
    known |= {"occlusion": [9], "rise": [8, 32], "rise_plus": [10, 34]}
    assert rows_of_partials == known.get(explainer.name, rows_of_partials)


@SIZES
def test_gradient_against_finite_differences(size, small_backend, numpy_net, images, derive, run_in_chunks):
    targets = ids(3, 1)
    for aggregation, over_channels in (("max_abs", np.max), ("sum_abs", np.sum)):
        steps = Gradient().explain(images[0], targets, GradientParameters(aggregation=aggregation))
        maps = run_in_chunks(small_backend, steps, size).maps
        for saliency, target in zip(maps, targets, strict=True):
            slope = derive(lambda x, c=target: numpy_net.logits(x)[c], images[0].astype(np.float64))
            np.testing.assert_allclose(saliency, over_channels(np.abs(slope), axis=0), rtol=1e-3, atol=1e-5)


@SIZES
def test_gradcam_against_finite_differences(size, small_backend, numpy_net, images, derive, run_in_chunks):
    targets = ids(3, 1)
    assert small_backend.default_layer == "features"
    steps = GradCam().explain(images[0], targets, GradCamParameters(layer="features"))
    maps = run_in_chunks(small_backend, steps, size).maps
    activations = numpy_net.layer(images[0].astype(np.float64))
    for saliency, target in zip(maps, targets, strict=True):
        slope = derive(lambda a, c=target: numpy_net.top(a)[c], activations)
        coarse = np.maximum(np.einsum("k,khw->hw", slope.mean(axis=(1, 2)), activations), 0)
        assert coarse.shape == (4, 6)
        np.testing.assert_allclose(saliency, by_hand(coarse, 8, 12), rtol=1e-4, atol=1e-5)


def by_hand(coarse, height, width):
    """Bilinear interpolation pixel by pixel, from its definition."""
    rows, columns = coarse.shape
    fine = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            upper = coarse[top, left] * (1 - x + left) + coarse[top, right] * (x - left)
            lower = coarse[bottom, left] * (1 - x + left) + coarse[bottom, right] * (x - left)
            fine[i, j] = upper * (1 - y + top) + lower * (y - top)
    return fine


def answer(steps, result):
    """Ends a computation of one step with a made-up result."""
    next(steps)
    try:
        steps.send(result)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it asks for more")


def test_gradcam_worked_out_on_paper():
    # Two channels of 1 x 2 cells. The weights are the mean gradients, 2 and -1, so the sum is
    # 2 * (1, 3) - (4, 2) = (-2, 4), rectified (0, 4). Of the four pixels of a row, the outer two lie beyond the
    # cells' centres and hold their values, the inner two lie a quarter and three quarters of the way.
    activations = np.array([[[[1, 3]], [[4, 2]]]], np.float32)
    gradients = np.array([[[[1, 3]], [[-1, -1]]]], np.float32)
    steps = GradCam().explain(np.zeros((3, 2, 4), np.float32), ids(0), GradCamParameters(layer="x"))
    saliency = answer(steps, LayerGradients(activations, gradients))
    np.testing.assert_allclose(saliency.maps[0], [[0, 1, 3, 4], [0, 1, 3, 4]], atol=1e-6)
    assert saliency.statuses == (MapStatus.OK,)


def test_gradient_worked_out_on_paper():
    gradients = np.array([[[[1, -5]], [[-2, 4]]]], np.float32)
    image = np.zeros((2, 1, 2), np.float32)
    largest = answer(Gradient().explain(image, ids(0), GradientParameters()), gradients)
    np.testing.assert_array_equal(largest.maps, [[[2, 5]]])
    total = answer(Gradient().explain(image, ids(0), GradientParameters(aggregation="sum_abs")), gradients)
    np.testing.assert_array_equal(total.maps, [[[3, 9]]])


@pytest.mark.parametrize(
    ("activations", "gradients", "status"),
    [
        ([1, 2], [1, 1], MapStatus.OK),
        ([1, 2], [0, 0], MapStatus.ZERO_GRADIENT),
        ([1, 2], [-1, -1], MapStatus.ALL_ZERO),
        ([1, np.nan], [1, 1], MapStatus.NOT_FINITE),
        ([1, np.inf], [1, 1], MapStatus.NOT_FINITE),
        ([1, 2], [np.nan, 1], MapStatus.NOT_FINITE),
    ],
)
def test_a_map_that_cannot_be_believed_says_so(activations, gradients, status):
    layer = LayerGradients(
        np.array(activations, np.float32).reshape(1, 1, 1, 2), np.array(gradients, np.float32).reshape(1, 1, 1, 2)
    )
    parameters = GradCamParameters(layer="x", normalization="max")
    steps = GradCam().explain(np.zeros((1, 2, 2), np.float32), ids(0), parameters)
    assert answer(steps, layer).statuses == (status,)


def test_resizing_keeps_float_values():
    # Through 8 bits these would collapse to a handful of levels, and values above 1 would wrap round.
    coarse = np.array([[[1e-7, 2e-7], [3e4, -5.0]]], np.float32)
    np.testing.assert_allclose(resize_bilinear(coarse, 7, 5)[0], by_hand(coarse[0].astype(float), 7, 5), rtol=1e-5)
    np.testing.assert_array_equal(resize_bilinear(coarse, 2, 2), coarse)
    assert (resize_bilinear(np.full((2, 1, 1), 3, np.float32), 4, 9) == 3).all()
