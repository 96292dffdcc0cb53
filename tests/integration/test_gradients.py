"""Explanations over a real socket: targets, layers, encodings and scales, with the explainers that take one pass."""

import io

import numpy as np
import pytest
from PIL import Image

from xai_proto import explanation_pb2 as pb
from xai_sidecar.zoo.sample import sample_picture

CAT = (282, 285, 281)
EACH = pytest.mark.parametrize("explainer", ["gradcam", "gradient", "guided_backprop", "deconvolution"])
BOTH = pytest.mark.parametrize("explainer", ["gradcam", "gradient"])


def predict(stub, *images, **fields):
    return stub.Predict(pb.PredictRequest(images=images, **fields), timeout=60)


def explain(stub, image, **fields):
    return predict(stub, image, explanations=[pb.ExplanationRequest(**fields)]).predictions[0].explanations[0]


@pytest.fixture(scope="module")
def cat(photo):
    return pb.Image(encoded=photo)


@EACH
def test_an_explanation_of_the_top_class(stub, cat, explainer, map_of):
    explanation = explain(stub, cat, explainer=explainer)
    assert (explanation.name, explanation.explainer) == (explainer, explainer)
    assert explanation.status == pb.EXPLANATION_STATUS_COMPLETE
    assert (explanation.status_message, explanation.truncated) == ("", False)
    assert explanation.pass_count == 1
    assert 0 < explanation.elapsed.ToNanoseconds() < 60e9
    assert not explanation.HasField("seed")
    (one,) = explanation.maps
    assert (one.class_id, one.label, one.status) == (282, "tiger cat", pb.MAP_STATUS_OK)
    assert not one.HasField("standard_error")
    saliency = map_of(one)
    assert saliency.shape == (224, 224)
    assert saliency.min() >= 0
    assert saliency.max() > 0


def test_gradcam_finds_the_cat_and_not_the_corners(stub, cat, map_of):
    saliency = map_of(explain(stub, cat, explainer="gradcam").maps[0])
    corners = np.mean([saliency[:32, :32], saliency[:32, -32:], saliency[-32:, :32], saliency[-32:, -32:]])
    assert saliency[64:160, 64:160].mean() > 1.2 * corners


@EACH
def test_several_targets_are_one_at_a_time(stub, cat, explainer, map_of):
    ids = [285, 282, 904, 0]
    together = explain(stub, cat, explainer=explainer, targets=pb.Targets(class_ids=ids))
    assert [one.class_id for one in together.maps] == ids
    assert together.pass_count == len(ids)
    maps = [map_of(one) for one in together.maps]
    for class_id, saliency in zip(ids, maps, strict=True):
        (one,) = explain(stub, cat, explainer=explainer, targets=pb.Targets(class_ids=[class_id])).maps
        np.testing.assert_allclose(saliency, map_of(one), atol=1e-4 * saliency.max())
    assert np.abs(maps[0] - maps[3]).max() > 0.01 * maps[0].max(), "the targets make no difference"


def test_targets_by_count_and_by_probability(stub, cat):
    top = explain(stub, cat, explainer="gradcam", targets=pb.Targets(top_count=4))
    assert [one.class_id for one in top.maps[:3]] == list(CAT)
    assert len(top.maps) == 4
    likely = explain(stub, cat, explainer="gradcam", targets=pb.Targets(min_probability=0.1))
    assert [one.class_id for one in likely.maps] == list(CAT)
    single = explain(stub, cat, explainer="gradcam", targets=pb.Targets(min_probability=0.37))
    assert [one.class_id for one in single.maps] == [282]


def test_no_class_is_probable_enough(stub, cat):
    nothing = explain(stub, cat, explainer="gradcam", targets=pb.Targets(min_probability=0.99))
    assert (list(nothing.maps), nothing.pass_count) == ([], 0)
    assert nothing.status == pb.EXPLANATION_STATUS_COMPLETE


def test_targets_by_probability_end_at_the_limit(stub, cat):
    many = explain(stub, cat, explainer="gradcam", targets=pb.Targets(min_probability=1e-9))
    assert len(many.maps) == 16
    assert [one.class_id for one in many.maps[:3]] == list(CAT)


def test_every_image_gets_every_explanation(stub, cat, map_of):
    coffee = pb.Image(encoded=sample_picture("coffee").read_bytes())
    wanted = [pb.ExplanationRequest(explainer=name) for name in ("gradient", "gradcam")]
    response = predict(stub, cat, coffee, explanations=wanted)
    for prediction, image in zip(response.predictions, (cat, coffee), strict=True):
        assert [one.name for one in prediction.explanations] == ["gradient", "gradcam"]
        for one in prediction.explanations:
            assert one.maps[0].class_id == prediction.classes[0].class_id
            want = map_of(explain(stub, image, explainer=one.explainer).maps[0])
            np.testing.assert_allclose(map_of(one.maps[0]), want, atol=1e-4 * want.max())


@BOTH
def test_encodings_carry_the_same_map(stub, cat, explainer, map_of):
    single, half, png = (
        explain(stub, cat, explainer=explainer, encoding=encoding).maps[0]
        for encoding in (pb.MAP_ENCODING_FLOAT32, pb.MAP_ENCODING_FLOAT16, pb.MAP_ENCODING_PNG)
    )
    want = map_of(single)
    assert (single.tensor.dtype, len(single.tensor.data)) == (pb.DATA_TYPE_FLOAT32, 4 * 224 * 224)
    assert (half.tensor.dtype, len(half.tensor.data)) == (pb.DATA_TYPE_FLOAT16, 2 * 224 * 224)
    np.testing.assert_allclose(map_of(half), want, atol=1e-3 * want.max())
    assert Image.open(io.BytesIO(png.png.data)).mode == "L"
    assert (png.png.minimum, png.png.maximum) == pytest.approx((want.min(), want.max()), rel=1e-4)
    np.testing.assert_allclose(map_of(png), want, atol=(want.max() - want.min()) * 0.51 / 255)


@BOTH
def test_normalization_divides_by_the_maximum(stub, cat, explainer, map_of):
    plain = map_of(explain(stub, cat, explainer=explainer).maps[0])
    parameters = {explainer: {"normalization": pb.NORMALIZATION_MAX}}
    scaled = explain(stub, cat, explainer=explainer, **parameters)
    assert scaled.parameters["normalization"].string_value == "max"
    assert map_of(scaled.maps[0]).max() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(map_of(scaled.maps[0]), plain / plain.max(), atol=1e-4)


def test_aggregations_of_the_gradient(stub, cat, map_of):
    kinds = (pb.CHANNEL_AGGREGATION_UNSPECIFIED, pb.CHANNEL_AGGREGATION_MAX_ABS, pb.CHANNEL_AGGREGATION_SUM_ABS)
    default, largest, total = (
        explain(stub, cat, explainer="gradient", gradient=pb.GradientParameters(aggregation=kind)) for kind in kinds
    )
    names = [one.parameters["aggregation"].string_value for one in (default, largest, total)]
    assert names == ["max_abs", "max_abs", "sum_abs"]
    default, largest, total = (map_of(one.maps[0]) for one in (default, largest, total))
    np.testing.assert_allclose(default, largest, atol=1e-4 * largest.max())
    assert (total >= largest - 1e-4 * largest.max()).all()
    assert (total <= 3 * largest + 1e-4 * largest.max()).all()
    assert total.mean() > 1.1 * largest.mean()


def test_a_layer_that_was_not_compiled(stub, cat, refused):
    asked = pb.ExplanationRequest(explainer="gradcam", gradcam=pb.GradCamParameters(layer="blocks.10"))
    refusal = refused(stub.Predict, pb.PredictRequest(images=[cat], explanations=[asked]))
    refusal.check("FAILED_PRECONDITION", "PRECONDITION", "explanations[0].gradcam.layer")
    assert "explainers.gradcam.layers" in refusal.message
    info = stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=60).model
    gradcam = {explainer.name: explainer for explainer in info.explainers}["gradcam"]
    layer = {parameter.name: parameter for parameter in gradcam.parameters}["layer"]
    assert list(layer.choices) == ["head"]
    named, default = (
        explain(stub, cat, explainer="gradcam", gradcam=pb.GradCamParameters(layer=layer)) for layer in ("head", "")
    )
    assert [one.parameters["layer"].string_value for one in (named, default)] == ["head", "head"]
    assert named.maps == default.maps


def test_two_explanations_of_one_explainer(stub, cat, map_of):
    wanted = [
        pb.ExplanationRequest(explainer="gradcam", name="tiger cat", targets=pb.Targets(class_ids=[282])),
        pb.ExplanationRequest(explainer="gradcam", targets=pb.Targets(class_ids=[285])),
    ]
    one, other = predict(stub, cat, explanations=wanted).predictions[0].explanations
    assert (one.name, one.explainer, one.maps[0].class_id) == ("tiger cat", "gradcam", 282)
    assert (other.name, other.explainer, other.maps[0].class_id) == ("gradcam", "gradcam", 285)
    assert np.abs(map_of(one.maps[0]) - map_of(other.maps[0])).max() > 0
