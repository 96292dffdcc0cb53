"""Requests as plans: defaults filled in, everything else refused with the path of the field."""

import numpy as np
import pytest

from xai_proto import explanation_pb2 as pb
from xai_sidecar import errors
from xai_sidecar.engine.backend import OodInfo
from xai_sidecar.service.decode import read_image, read_images, read_request, read_tensor, valid_request_id

IMAGE = pb.Image(encoded=b"anything")


def request(*explanations, **fields):
    asked = [pb.ExplanationRequest(**{"explainer": "gradcam", **each}) for each in explanations]
    return pb.PredictRequest(images=[IMAGE], explanations=asked, **fields)


def tensor(array, dtype, **changes):
    return pb.Tensor(**{"dtype": dtype, "shape": array.shape, "data": array.tobytes(), **changes})


def test_defaults(model):
    asked = read_request(request({}), model)
    (plan,) = asked.plans
    assert asked.top_k == 4  # as many classes as there are
    assert asked.encodings == (pb.MAP_ENCODING_FLOAT32,)
    assert (plan.name, plan.explainer.name, plan.parameters.layer) == ("gradcam", "gradcam", "late")
    assert (plan.targets.class_ids, plan.targets.min_probability, plan.targets.top_count) == ((), None, 1)


def test_what_is_given_is_taken(model):
    parameters = pb.GradCamParameters(layer="early", normalization=pb.NORMALIZATION_MAX)
    asked = read_request(
        request(
            {"gradcam": parameters, "targets": pb.Targets(class_ids=[3, 0]), "encoding": pb.MAP_ENCODING_PNG},
            {"name": "other", "targets": pb.Targets(min_probability=0.25)},
            {"explainer": "gradient", "targets": pb.Targets(top_count=2)},
            top_k=1,
        ),
        model,
    )
    one, other, last = asked.plans
    assert asked.top_k == 1
    assert asked.encodings[:2] == (pb.MAP_ENCODING_PNG, pb.MAP_ENCODING_FLOAT32)
    assert (one.parameters.layer, one.parameters.normalization, one.targets.class_ids) == ("early", "max", (3, 0))
    assert (other.name, other.targets.min_probability) == ("other", 0.25)
    assert (last.name, last.targets.top_count) == ("gradient", 2)


def test_the_configs_defaults_hold_where_the_request_says_nothing(make_model):
    model = make_model("explainers.gradcam.layer=early", "explainers.gradcam.normalization=max")
    plain = read_request(request({}), model).plans[0].parameters
    partly = read_request(request({"gradcam": pb.GradCamParameters(layer="late")}), model).plans[0].parameters
    undone = pb.GradCamParameters(normalization=pb.NORMALIZATION_NONE)
    undone = read_request(request({"gradcam": undone}), model).plans[0].parameters
    assert (plain.layer, plain.normalization) == ("early", "max")
    assert (partly.layer, partly.normalization) == ("late", "max")
    assert (undone.layer, undone.normalization) == ("early", "none")


@pytest.mark.parametrize(
    ("asked", "kind", "field"),
    [
        (pb.PredictRequest(), errors.InvalidRequestError, "images"),
        (pb.PredictRequest(images=[IMAGE] * 17), errors.InvalidRequestError, "images"),
        (request(top_k=0), errors.InvalidRequestError, "top_k"),
        (request(top_k=5), errors.InvalidRequestError, "top_k"),
        (request(request_id="a b"), errors.InvalidRequestError, "request_id"),
        (request(ood=True), errors.PreconditionError, "ood"),
        (request({"explainer": "x"}), errors.UnknownExplainerError, "explanations[0].explainer"),
        (request({}, {}), errors.InvalidRequestError, "explanations[1].name"),
        (request({"encoding": 99}), errors.InvalidRequestError, "explanations[0].encoding"),
        (
            request({}, {"name": "b", "targets": pb.Targets(class_ids=[4])}),
            errors.TargetError,
            "explanations[1].targets.class_ids[0]",
        ),
        (
            request({"targets": pb.Targets(class_ids=[1, 1])}),
            errors.TargetError,
            "explanations[0].targets.class_ids[1]",
        ),
        # Four classes: five most probable ones cannot be had.
        (request({"targets": pb.Targets(top_count=5)}), errors.TargetError, "explanations[0].targets.top_count"),
        (request({"gradient": pb.GradientParameters()}), errors.ParameterError, "explanations[0].gradient"),
        (
            request({"gradcam": pb.GradCamParameters(layer="x")}),
            errors.UnknownLayerError,
            "explanations[0].gradcam.layer",
        ),
        (
            request({"gradcam": pb.GradCamParameters(normalization=7)}),
            errors.ParameterError,
            "explanations[0].gradcam.normalization",
        ),
    ],
)
def test_refused(model, asked, kind, field):
    with pytest.raises(errors.SidecarError) as caught:
        read_request(asked, model)
    assert type(caught.value) is kind
    assert caught.value.field == field


def test_explainers_that_are_not_to_be_had(make_model):
    for model, told in (
        (make_model("explainers.gradcam.enabled=false"), "explainers.gradcam.enabled = true"),
        (make_model(layers=()), "No layer with a spatial output"),
    ):
        with pytest.raises(errors.PreconditionError, match=told) as caught:
            read_request(request({}), model)
        assert caught.value.field == "explanations[0].explainer"
        assert "Usable here: gradient, guided_backprop, deconvolution, occlusion, rise." in caught.value.message


def test_perturbing_explainers(make_model):
    model = make_model("explainers.rise.masks=500", "explainers.occlusion.fill=mean")
    rise = pb.RiseParameters(grid_size=3, keep_probability=0.3, tolerance=0.1, estimator=pb.RISE_ESTIMATOR_PLAIN)
    asked = read_request(
        request(
            {"explainer": "rise", "rise": rise, "seed": 7},
            {"explainer": "rise", "name": "as configured"},
            {"explainer": "occlusion", "occlusion": pb.OcclusionParameters(window_size=2)},
        ),
        model,
    )
    given, configured, occlusion = (plan.parameters for plan in asked.plans)
    assert (given.mask_count, given.grid_size, given.keep_probability) == (500, 3, 0.3)
    assert (given.tolerance, given.estimator) == (0.1, "plain")
    assert (configured.mask_count, configured.grid_size, configured.tolerance) == (500, 6, 0)
    assert (occlusion.window_size, occlusion.stride, occlusion.fill) == (2, 1, "mean")
    assert asked.plans[0].seed == 7
    assert asked.plans[1].seed != read_request(request({"explainer": "rise"}), model).plans[0].seed


def test_a_configured_stride_yields_to_the_window_of_a_request(make_model):
    model = make_model("explainers.occlusion.stride=4", "explainers.occlusion.window_size=5")
    smaller = {"explainer": "occlusion", "occlusion": pb.OcclusionParameters(window_size=2)}
    assert read_request(request(smaller), model).plans[0].parameters.stride == 1
    plain = {"explainer": "occlusion", "occlusion": pb.OcclusionParameters(fill=pb.OCCLUSION_FILL_MEAN)}
    assert read_request(request(plain), model).plans[0].parameters.stride == 4


def test_a_configured_tolerance_can_be_switched_off(make_model):
    model = make_model("explainers.rise.tolerance=0.3")
    off = {"explainer": "rise", "rise": pb.RiseParameters(tolerance=0)}
    assert read_request(request(off), model).plans[0].parameters.tolerance == 0
    assert read_request(request({"explainer": "rise"}), model).plans[0].parameters.tolerance == 0.3


def test_too_many_passes(make_model):
    model = make_model("server.max_passes=2000")
    read_request(request({"explainer": "rise"}, {"explainer": "gradcam"}), model)
    with pytest.raises(errors.InvalidRequestError, match="2,500") as caught:
        read_request(request({"explainer": "gradcam"}, {"explainer": "rise", "rise": {"mask_count": 2499}}), model)
    assert caught.value.field == "explanations[1]"
    two = request({"explainer": "rise"}, {"explainer": "gradcam"})
    two.images.append(IMAGE)
    with pytest.raises(errors.InvalidRequestError, match="2,002"):
        read_request(two, model)


def test_rise_plus_and_ood_scores(make_model):
    parameters = pb.RisePlusParameters(rise=pb.RiseParameters(mask_count=64))
    wanted = {"explainer": "rise_plus", "rise_plus": parameters}
    with pytest.raises(errors.PreconditionError, match="train-ood") as caught:
        read_request(request(wanted), make_model())
    assert caught.value.field == "explanations[0].explainer"
    with pytest.raises(errors.PreconditionError, match="train-ood") as caught:
        read_request(request(ood=True), make_model())
    assert caught.value.field == "ood"
    model = make_model(ood=OodInfo(100, 1.7e9, {"noise": 0.9}))
    asked = read_request(request(wanted, ood=True), model)
    assert asked.ood
    assert asked.plans[0].parameters.mask_count == 64
    parameters.rise.grid_size = 17
    with pytest.raises(errors.ParameterError) as caught:
        read_request(request(wanted), model)
    assert caught.value.field == "explanations[0].rise_plus.rise.grid_size"


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"explainer": "rise", "rise": pb.RiseParameters(mask_count=15)}, "rise.mask_count"),
        ({"explainer": "rise", "rise": pb.RiseParameters(mask_count=0)}, "rise.mask_count"),
        ({"explainer": "rise", "rise": pb.RiseParameters(keep_probability=1)}, "rise.keep_probability"),
        ({"explainer": "rise", "rise": pb.RiseParameters(keep_probability=float("nan"))}, "rise.keep_probability"),
        ({"explainer": "rise", "rise": pb.RiseParameters(tolerance=0.6)}, "rise.tolerance"),
        ({"explainer": "rise", "rise": pb.RiseParameters(estimator=9)}, "rise.estimator"),
        ({"explainer": "rise", "rise": pb.RiseParameters(grid_size=7)}, "rise.grid_size"),
        ({"explainer": "occlusion", "occlusion": pb.OcclusionParameters(window_size=7)}, "occlusion.window_size"),
        ({"explainer": "occlusion", "occlusion": pb.OcclusionParameters(window_size=2, stride=3)}, "occlusion.stride"),
        ({"explainer": "occlusion", "rise": pb.RiseParameters()}, "rise"),
    ],
)
def test_parameters_out_of_range(asked, field, model):
    with pytest.raises(errors.ParameterError) as caught:
        read_request(request(asked), model)
    assert caught.value.field == f"explanations[0].{field}"


def test_layers_compiled_at_start(make_model):
    model = make_model("explainers.gradcam.compile_on_demand=false", layers=("first", "second", "third"))
    with pytest.raises(errors.PreconditionError, match=r"explainers\.gradcam\.layers") as caught:
        read_request(request({"gradcam": pb.GradCamParameters(layer="first")}), model)
    assert caught.value.field == "explanations[0].gradcam.layer"
    read_request(request({"gradcam": pb.GradCamParameters(layer="third")}), model)


@pytest.mark.parametrize("good", ["a", "A-Z_0.9:x", "x" * 128])
def test_request_ids_that_can_be_logged(good):
    assert valid_request_id(good)


@pytest.mark.parametrize("bad", ["", " ", "a b", "a\n", "ä", "x" * 129, "a/b", "a\x00", "{}"])
def test_request_ids_that_cannot(bad):
    assert not valid_request_id(bad)


# ------------------------------------------------------------------------------------------------ tensors and images


def test_tensors_are_read_in_their_order():
    for dtype, kind in (("<f4", pb.DATA_TYPE_FLOAT32), ("<f2", pb.DATA_TYPE_FLOAT16), ("u1", pb.DATA_TYPE_UINT8)):
        array = np.arange(24).reshape(2, 3, 4).astype(dtype)
        np.testing.assert_array_equal(read_tensor(tensor(array, kind)), array)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.Tensor(shape=[1], data=b"x"), "dtype"),
        (pb.Tensor(dtype=9, shape=[1], data=b"x"), "dtype"),
        (pb.Tensor(dtype=3, shape=[-1, -1], data=b"x"), "shape"),
        (pb.Tensor(dtype=3, shape=[2], data=b"x"), "data"),
        (pb.Tensor(dtype=3, shape=[2**62, 2**62], data=b"x"), "data"),
        (pb.Tensor(dtype=1, data=b"x"), "data"),
        (pb.Tensor(dtype=3, shape=[1] * 40, data=b"x"), None),
        (pb.Tensor(dtype=3, shape=[2**62, 2**62, 0]), None),
    ],
)
def test_tensors_that_do_not_fit_together(message, field):
    with pytest.raises(errors.TensorError) as caught:
        read_tensor(message)
    assert field is None or caught.value.field == field


def test_images(model):
    limits, spec = model.config.server, model.input
    pixels = pb.Image(pixels=tensor(np.full((10, 12, 3), 255, np.uint8), pb.DATA_TYPE_UINT8))
    ready = np.random.default_rng(0).standard_normal((3, 6, 8)).astype(np.float32)
    one, other = read_images([pixels, pb.Image(model_input=tensor(ready, pb.DATA_TYPE_FLOAT32))], spec, limits)
    assert one.picture_size == (12, 10)
    white = [(1 - mean) / std for mean, std in zip(spec.mean, spec.std, strict=True)]
    np.testing.assert_allclose(one.array, np.broadcast_to(np.reshape(white, (3, 1, 1)), (3, 6, 8)), rtol=1e-5)
    np.testing.assert_array_equal(other.array, ready)
    assert other.region is None
    with pytest.raises(errors.PictureError) as caught:
        read_images([pixels, pb.Image()], spec, limits)
    assert caught.value.field == "images[1]"


def test_too_many_pixels(make_model):
    model = make_model("server.max_pixels=100")
    fits, large = (np.zeros((side, 10, 3), np.uint8) for side in (10, 11))
    read_image(pb.Image(pixels=tensor(fits, pb.DATA_TYPE_UINT8)), model.input, model.config.server)
    with pytest.raises(errors.PictureTooLargeError) as caught:
        read_image(pb.Image(pixels=tensor(large, pb.DATA_TYPE_UINT8)), model.input, model.config.server)
    assert caught.value.field == "pixels"
