"""All explainers of a served classifier at once: what they answer, what it depends on, and what it does not."""

import concurrent.futures

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from xai_client import Client, Explain, MapWithheldError
from xai_proto import explanation_pb2 as pb
from xai_sidecar import imaging
from xai_sidecar.explainers.masks import MaskGrid
from xai_sidecar.zoo.sample import sample_picture

SPEC = imaging.InputSpec(3, 224, 224, 256, 256, False, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3)
IDS = [282, 285]
RISE = pb.RiseParameters(mask_count=64)
PARAMETERS = {
    "gradient": {},
    "guided_backprop": {},
    "deconvolution": {},
    "gradcam": {},
    "occlusion": {"occlusion": pb.OcclusionParameters(window_size=56, stride=56)},
    "rise": {"rise": RISE},
    "rise_plus": {"rise_plus": pb.RisePlusParameters(rise=RISE)},
}
PASSES = {
    "gradient": 2,
    "guided_backprop": 2,
    "deconvolution": 2,
    "gradcam": 2,
    "occlusion": 1 + 16,
    "rise": 64,
    "rise_plus": 2 + 64,
}
RANDOM = pytest.mark.parametrize("explainer", ["rise", "rise_plus"])
ROUNDING = {"rise": 0, "rise_plus": 1e-6}  # an OoD score depends in its last bit on the batch size
ASKED = "explanations[0]"


def wanted(explainer, **fields):
    """What to ask of an explainer: cheap, and two targets unless said otherwise."""
    fields = {"targets": pb.Targets(class_ids=IDS), **PARAMETERS[explainer], **fields}
    return pb.ExplanationRequest(explainer=explainer, **fields)


def explain(stub, image, explainer, **fields):
    request = pb.PredictRequest(images=[image], explanations=[wanted(explainer, **fields)])
    return stub.Predict(request, timeout=120).predictions[0].explanations[0]


def rise(**fields):
    return {"rise": pb.RiseParameters(**{"mask_count": 64, **fields})}


def close(one, other, tolerance=1e-4):
    """That maps (t, H, W) are the same but for rounding."""
    assert one.shape == other.shape
    np.testing.assert_allclose(one, other, atol=tolerance * np.abs(other).max())


@pytest.fixture(scope="module")
def cat(photo):
    return pb.Image(encoded=photo)


@pytest.fixture(scope="module")
def array(photo):
    """The cat as a model input, (3, 224, 224)."""
    return imaging.prepare(imaging.decode(photo, 10_000_000), SPEC).array


@pytest.fixture(scope="module")
def maps_of(map_of):
    """The maps of an explanation, (t, H, W)."""
    return lambda explanation: np.stack([map_of(one) for one in explanation.maps])


@pytest.fixture(scope="module")
def together(stub, cat):
    """The prediction of a call for all explainers at once."""
    explanations = [wanted(name, seed=5) for name in PARAMETERS]
    request = pb.PredictRequest(images=[cat], explanations=explanations, ood=True)
    return stub.Predict(request, timeout=120).predictions[0]


@pytest.fixture(scope="module")
def asked(stub):
    """Probabilities (n, 1000) and OoD scores (n,) of model inputs, each asked for as anyone would."""

    def asked(inputs):
        images = [
            pb.Image(model_input=pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=one.shape, data=one.tobytes()))
            for one in inputs.astype(np.float32)
        ]
        probabilities, scores = np.empty((len(images), 1000)), np.empty(len(images))
        for start in range(0, len(images), 8):
            request = pb.PredictRequest(images=images[start : start + 8], top_k=1000, ood=True)
            for index, one in enumerate(stub.Predict(request, timeout=120).predictions, start):
                scores[index] = one.ood.score
                for each in one.classes:
                    probabilities[index, each.class_id] = each.probability
        return probabilities, scores

    return asked


# ------------------------------------------------------------------------------------------------ all at once


def test_all_in_one_call(together, maps_of):
    assert [one.name for one in together.explanations] == list(PARAMETERS)
    for one in together.explanations:
        assert (one.explainer, one.status) == (one.name, pb.EXPLANATION_STATUS_COMPLETE)
        assert (one.status_message, one.truncated) == ("", False)
        assert one.pass_count == PASSES[one.name]
        assert [each.class_id for each in one.maps] == IDS
        for each in one.maps:
            assert each.status == (pb.MAP_STATUS_UNRELIABLE if each.standard_error > 0.7 else pb.MAP_STATUS_OK)
        assert [each.label for each in one.maps] == ["tiger cat", "Egyptian cat"]
        assert {(each.tensor.dtype, *each.tensor.shape) for each in one.maps} == {(pb.DATA_TYPE_FLOAT32, 224, 224)}
        maps = maps_of(one)
        assert np.isfinite(maps).all()
        assert np.abs(maps[0] - maps[1]).max() > 0.01 * np.abs(maps).max(), "the targets make no difference"
        sampled = one.name in ("rise", "rise_plus")
        assert (one.HasField("seed"), one.seed) == (sampled, 5 if sampled else 0)
        errors = [each.standard_error for each in one.maps if each.HasField("standard_error")]
        assert len(errors) == (2 if sampled else 0)
        assert all(0 < error < 10 for error in errors)


def test_the_parameters_are_those_used(together):
    used = {one.name: {key: _plain(value) for key, value in one.parameters.items()} for one in together.explanations}
    gradient = {"aggregation": "max_abs", "normalization": "none"}
    sampled = {"masks": 64, "grid_size": 7, "keep_probability": 0.5}
    sampled |= {"tolerance": 0, "estimator": "regression", "normalization": "none"}
    assert used == {
        "gradient": gradient,
        "guided_backprop": gradient,
        "deconvolution": gradient,
        "gradcam": {"layer": "head", "normalization": "none"},
        "occlusion": {"window_size": 56, "stride": 56, "fill": "zero", "normalization": "none"},
        "rise": sampled,
        "rise_plus": sampled,
    }


def _plain(value):
    return getattr(value, value.WhichOneof("kind"))


@pytest.mark.parametrize("explainer", PARAMETERS)
def test_a_map_is_the_same_without_the_others(explainer, stub, cat, together, maps_of):
    want = maps_of({one.name: one for one in together.explanations}[explainer])
    close(maps_of(explain(stub, cat, explainer, seed=5)), want)
    for index, class_id in enumerate(IDS):
        single = explain(stub, cat, explainer, seed=5, targets=pb.Targets(class_ids=[class_id]))
        assert single.pass_count == PASSES[explainer] // (2 if PASSES[explainer] == 2 else 1)
        close(maps_of(single), want[index : index + 1])


def test_company_changes_no_map(server, connect, cat, maps_of):
    """Calls of all kinds at once share launches, and wait for each other."""
    coffee = pb.Image(encoded=sample_picture("coffee").read_bytes())
    calls = [(image, name, {"seed": seed}) for seed, name in enumerate(PARAMETERS) for image in (cat, coffee)][-10:]
    calls += [(cat, "rise", {"seed": 99, "targets": pb.Targets(class_ids=[904])})]

    def ask(call):
        image, explainer, fields = call
        with connect(server.grpc) as own:
            return maps_of(explain(own, image, explainer, **fields))

    alone = [ask(call) for call in calls]
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        for got, want in zip(pool.map(ask, calls), alone, strict=True):
            close(got, want)


# ------------------------------------------------------------------------------------------------ chance


@RANDOM
def test_seeds(explainer, stub, cat, maps_of):
    first, again, other = (explain(stub, cat, explainer, seed=seed) for seed in (2**64 - 1, 2**64 - 1, 6))
    assert (first.seed, other.seed) == (2**64 - 1, 6)
    np.testing.assert_allclose(maps_of(first), maps_of(again), rtol=ROUNDING[explainer])
    assert np.abs(maps_of(first) - maps_of(other)).max() > 0.01 * maps_of(first).max()


@RANDOM
def test_a_drawn_seed_gives_the_map_again(explainer, stub, cat, maps_of):
    drawn, other = (explain(stub, cat, explainer) for _ in range(2))
    assert drawn.HasField("seed")
    assert drawn.seed != other.seed
    again = explain(stub, cat, explainer, seed=drawn.seed)
    np.testing.assert_allclose(maps_of(again), maps_of(drawn), rtol=ROUNDING[explainer])
    assert np.abs(maps_of(drawn) - maps_of(other)).max() > 0.01 * maps_of(drawn).max()


def test_a_tolerance_ends_it_early(stub, cat):
    rough, fine = (explain(stub, cat, "rise", seed=1, **rise(mask_count=3000, tolerance=at)) for at in (0.5, 0.3))
    for one, tolerance in ((rough, 0.5), (fine, 0.3)):
        assert all(0 < each.standard_error <= tolerance for each in one.maps)
        assert one.parameters["tolerance"].number_value == pytest.approx(tolerance)
        assert one.parameters["masks"].number_value == 3000
        assert one.status == pb.EXPLANATION_STATUS_COMPLETE
    assert 128 <= rough.pass_count < fine.pass_count < 3000


# ------------------------------------------------------------------------------------------------ worked out by hand


def test_rise_is_the_average_of_its_masks(stub, cat, array, asked, together, maps_of):
    """Both kinds of RISE by the paper's formula, out of predictions that anyone could ask for."""
    grid = MaskGrid(224, 224, 7, 0.5)
    masks = np.concatenate([grid.enlarge(block) for block in grid.draw(5, 64)])
    probabilities, scores = asked(np.concatenate([array * masks[:, None], 0 * array[None], array[None]]))
    low, high = scores[-2:]
    weights = (np.clip(scores[:-2], low, high) - low) / (high - low)
    assert low < high
    assert weights.std() > 0.02
    for explainer, weight in (("rise", np.ones(64)), ("rise_plus", weights)):
        want = np.einsum("nt,nhw->thw", weight[:, None] * probabilities[:-2, IDS], masks) / (64 * 0.5)
        parameters = pb.RiseParameters(mask_count=64, estimator=pb.RISE_ESTIMATOR_PLAIN)
        parameters = {explainer: parameters if explainer == "rise" else pb.RisePlusParameters(rise=parameters)}
        plain = explain(stub, cat, explainer, seed=5, **parameters)
        assert plain.parameters["estimator"].string_value == "plain"
        close(maps_of(plain), want, 1e-3)
        regression = {one.name: one for one in together.explanations}[explainer]
        for got, smooth, one, other in zip(want, maps_of(regression), plain.maps, regression.maps, strict=True):
            assert smooth.mean() == pytest.approx(got.mean(), rel=0.1)
            assert np.corrcoef(got.ravel(), smooth.ravel())[0, 1] > 0.2
            assert other.standard_error * smooth.std() < one.standard_error * got.std(), "it is no better"


@pytest.mark.parametrize("fill", ["zero", "mean", "blur"])
def test_occlusion_is_the_drop_under_each_window(fill, stub, cat, array, asked, maps_of):
    parameters = pb.OcclusionParameters(window_size=56, stride=56, fill=f"OCCLUSION_FILL_{fill.upper()}")
    got = explain(stub, cat, "occlusion", occlusion=parameters)
    assert got.parameters["fill"].string_value == fill
    maps = maps_of(got)
    squares = maps.reshape(2, 4, 56, 4, 56)
    close(np.broadcast_to(squares[:, :, :1, :, :1], squares.shape), squares)
    drops = squares[:, :, 0, :, 0].reshape(2, 16).T
    blurred = gaussian_filter(array, (0, 28, 28), mode="constant", truncate=8)
    blurred /= gaussian_filter(np.ones_like(array), (0, 28, 28), mode="constant", truncate=8)
    mean = np.broadcast_to(array.mean(axis=(1, 2), keepdims=True), array.shape)
    filled = {"zero": np.zeros_like(array), "mean": mean, "blur": blurred}
    covered = np.repeat(array[None], 17, axis=0)
    for index, (top, left) in enumerate((top, left) for top in range(0, 224, 56) for left in range(0, 224, 56)):
        window = (slice(None), slice(top, top + 56), slice(left, left + 56))
        covered[index][window] = filled[fill][window]
    probabilities, _ = asked(covered)
    close(drops, (probabilities[-1] - probabilities[:-1])[:, IDS], 1e-3)


# ------------------------------------------------------------------------------------------------ how a map travels


def test_encodings_and_scales_of_rise(stub, cat, together, maps_of):
    want = maps_of({one.name: one for one in together.explanations}["rise"])
    half = explain(stub, cat, "rise", seed=5, encoding=pb.MAP_ENCODING_FLOAT16)
    assert {one.tensor.dtype for one in half.maps} == {pb.DATA_TYPE_FLOAT16}
    close(maps_of(half), want, 1e-3)
    png = explain(stub, cat, "rise", seed=5, encoding=pb.MAP_ENCODING_PNG)
    assert [one.png.minimum for one in png.maps] == pytest.approx(want.min(axis=(1, 2)).tolist(), rel=1e-3)
    close(maps_of(png), want, 0.51 / 255 + 1e-3)
    assert all(one.HasField("standard_error") for one in (*half.maps, *png.maps))
    scaled = explain(stub, cat, "rise", seed=5, **rise(normalization=pb.NORMALIZATION_MAX))
    assert maps_of(scaled).max(axis=(1, 2)).tolist() == [1, 1]
    close(maps_of(scaled), want / want.max(axis=(1, 2), keepdims=True))


def test_a_blank_picture_has_no_range_to_weigh_by(server, stub, read_metrics):
    """Under every mask it is the same: RISE finds nothing to choose, and RISEPlus says that it cannot weigh."""
    blank = np.zeros((3, 224, 224), np.float32)
    before = read_metrics(server.http)["xai_maps_total", "rise_plus", "no_ood_range"]
    with Client(server.grpc, timeout=60) as client:
        answer = client.predict(blank, explain=[Explain(name, masks=16) for name in ("rise", "rise_plus")])
    flat, withheld = answer.explanations["rise"], answer.explanations["rise_plus"]
    assert np.ptp(flat.saliency) < 1e-4 * flat.saliency.max()
    assert withheld.maps[0].status == "no_ood_range"
    with pytest.raises(MapWithheldError) as caught:
        withheld.saliency  # noqa: B018 - it is the property that raises
    assert caught.value.reason == "no_ood_range"
    assert read_metrics(server.http)["xai_maps_total", "rise_plus", "no_ood_range"] == before + 1


# ------------------------------------------------------------------------------------------------ what is refused


def occlusion(**fields):
    return {"occlusion": pb.OcclusionParameters(**fields)}


def rise_plus(**fields):
    return {"rise_plus": pb.RisePlusParameters(rise=pb.RiseParameters(**fields))}


WRONG = {
    "too few masks": ("rise", rise(mask_count=15), "rise.mask_count"),
    "no masks": ("rise", rise(mask_count=0), "rise.mask_count"),
    "too many masks": ("rise", rise(mask_count=100_001), "rise.mask_count"),
    "a grid of one cell": ("rise", rise(grid_size=1), "rise.grid_size"),
    "too fine a grid": ("rise", rise(grid_size=17), "rise.grid_size"),
    "nothing kept": ("rise", rise(keep_probability=0), "rise.keep_probability"),
    "everything kept": ("rise", rise(keep_probability=1), "rise.keep_probability"),
    "a probability of NaN": ("rise", rise(keep_probability=np.nan), "rise.keep_probability"),
    "a tolerance below 0": ("rise", rise(tolerance=-0.1), "rise.tolerance"),
    "too much tolerance": ("rise", rise(tolerance=0.6), "rise.tolerance"),
    "an unknown estimator": ("rise", rise(estimator=9), "rise.estimator"),
    "too few masks of RISEPlus": ("rise_plus", rise_plus(mask_count=15), "rise_plus.rise.mask_count"),
    "an unknown scale of RISEPlus": ("rise_plus", rise_plus(normalization=9), "rise_plus.rise.normalization"),
    "parameters of RISE for RISEPlus": ("rise_plus", rise(), "rise"),
    "no window": ("occlusion", occlusion(window_size=0), "occlusion.window_size"),
    "a window beyond the picture": ("occlusion", occlusion(window_size=225), "occlusion.window_size"),
    "no stride": ("occlusion", occlusion(stride=0), "occlusion.stride"),
    "gaps between windows": ("occlusion", occlusion(window_size=56, stride=57), "occlusion.stride"),
    "an unknown fill": ("occlusion", occlusion(fill=9), "occlusion.fill"),
}


@pytest.mark.parametrize("case", WRONG)
def test_parameters_out_of_range(case, stub, cat, refused):
    explainer, parameters, path = WRONG[case]
    asked = pb.ExplanationRequest(explainer=explainer, **parameters)
    refusal = refused(stub.Predict, pb.PredictRequest(images=[cat], explanations=[asked]))
    refusal.check("INVALID_ARGUMENT", "PARAMETER", f"{ASKED}.{path}")
