"""Answers as messages: what maps travel as, what is withheld, and what the model info says."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from xai_proto import explanation_pb2 as pb
from xai_sidecar.engine.backend import OodInfo
from xai_sidecar.errors import PreconditionError
from xai_sidecar.explainers.base import MapStatus, Saliency
from xai_sidecar.imaging import Prepared, Region
from xai_sidecar.service.decode import read_request
from xai_sidecar.service.encode import model_info, predict_response
from xai_sidecar.service.predictor import Explained, Predicted

RAMP = np.linspace(0, 2, 48, dtype=np.float32).reshape(6, 8)


@pytest.fixture
def answer(model):
    """The response to one picture with one explanation, given its maps."""

    def answer(maps, encoding=pb.MAP_ENCODING_FLOAT32, statuses=None, errors=None):
        maps = np.stack(maps)
        wanted = pb.ExplanationRequest(explainer="gradient", name="mine", encoding=encoding)
        asked = read_request(pb.PredictRequest(images=[pb.Image()], explanations=[wanted], top_k=3), model)
        statuses = statuses or (MapStatus.OK,) * len(maps)
        saliency = Saliency(maps, tuple(statuses), errors)
        targets = np.arange(len(maps), dtype=np.int32)
        explained = Explained(asked.plans[0], targets, saliency, 7, 0.25)
        prepared = Prepared(np.zeros((3, 6, 8), np.float32), (40, 30), Region(1, 2, 33, 26))
        logits, probabilities = (np.array(row, np.float32) for row in ((1, 3, 3, 0), (0.1, 0.4, 0.4, 0.1)))
        return predict_response([Predicted(prepared, logits, probabilities, (explained,))], asked, model, "id")

    return answer


def test_a_response(answer):
    response = answer([RAMP])
    assert response.request_id == "id"
    assert re.fullmatch("[0-9a-f]{12}", response.model_version)
    (prediction,) = response.predictions
    assert [(one.class_id, one.label, one.logit) for one in prediction.classes] == [
        (1, "b", 3),
        (2, "c", 3),
        (0, "a", 1),
    ]
    assert (prediction.picture.width, prediction.picture.height) == (40, 30)
    assert (prediction.region.left, prediction.region.bottom) == (1, 26)
    (explanation,) = prediction.explanations
    assert (explanation.name, explanation.explainer, explanation.pass_count) == ("mine", "gradient", 7)
    assert explanation.elapsed.ToNanoseconds() == 250_000_000
    assert explanation.parameters["aggregation"].string_value == "max_abs"


def test_float32_and_float16(answer):
    for encoding, dtype in ((pb.MAP_ENCODING_FLOAT32, "<f4"), (pb.MAP_ENCODING_FLOAT16, "<f2")):
        (one,) = answer([RAMP], encoding).predictions[0].explanations[0].maps
        got = np.frombuffer(one.tensor.data, dtype).reshape(tuple(one.tensor.shape))
        np.testing.assert_allclose(got, RAMP, rtol=1e-3)


@pytest.mark.parametrize("largest", [1e5, 65505, 1e-5, 1e-30])
def test_half_precision_is_refused_where_it_would_be_wrong(answer, largest):
    maps = [RAMP / 2 * np.float32(largest)]
    with pytest.raises(PreconditionError, match="MAP_ENCODING_FLOAT32") as caught:
        answer(maps, pb.MAP_ENCODING_FLOAT16)
    assert caught.value.field == "explanations[0].encoding"
    answer(maps, pb.MAP_ENCODING_FLOAT32)
    answer(maps, pb.MAP_ENCODING_PNG)


@pytest.mark.parametrize(
    "saliency", [RAMP, -RAMP, RAMP - 1, RAMP * 1e-30, RAMP * 1e30, np.full((6, 8), 3.5, np.float32)]
)
def test_png(answer, saliency):
    (one,) = answer([saliency], pb.MAP_ENCODING_PNG).predictions[0].explanations[0].maps
    picture = Image.open(io.BytesIO(one.png.data))
    assert (picture.mode, picture.size) == ("L", (8, 6))
    low, high = one.png.minimum, one.png.maximum
    assert (low, high) == (saliency.min(), saliency.max())
    got = low + np.asarray(picture, np.float64) / 255 * (high - low)
    np.testing.assert_allclose(got, saliency, atol=max(0.51 * (high - low) / 255, abs(high) * 1e-6))


@pytest.mark.parametrize("encoding", [pb.MAP_ENCODING_FLOAT32, pb.MAP_ENCODING_FLOAT16, pb.MAP_ENCODING_PNG])
def test_maps_that_cannot_be_believed_are_withheld(answer, encoding):
    zero, broken = np.zeros((6, 8), np.float32), np.full((6, 8), np.nan, np.float32)
    statuses = (MapStatus.OK, MapStatus.ALL_ZERO, MapStatus.ZERO_GRADIENT, MapStatus.NOT_FINITE)
    maps = answer([RAMP, zero, zero, broken], encoding, statuses).predictions[0].explanations[0].maps
    assert [one.status for one in maps] == [
        pb.MAP_STATUS_OK,
        pb.MAP_STATUS_ALL_ZERO,
        pb.MAP_STATUS_ZERO_GRADIENT,
        pb.MAP_STATUS_NOT_FINITE,
    ]
    assert [one.WhichOneof("map") is not None for one in maps] == [True, True, False, False]
    assert [one.label for one in maps] == ["a", "b", "c", "d"]


def test_standard_errors(answer):
    (one,) = answer([RAMP]).predictions[0].explanations[0].maps
    assert not one.HasField("standard_error")
    maps = answer([RAMP, RAMP], errors=np.array([0.0, 0.5], np.float32)).predictions[0].explanations[0].maps
    assert [(one.HasField("standard_error"), one.standard_error) for one in maps] == [(True, 0), (True, 0.5)]


def test_the_version_tells_apart_what_gives_other_answers(make_model):
    assert make_model().version == make_model().version
    for change in ("model.activation=sigmoid", "model.input.mean=0.5", "model.input.interpolation=nearest"):
        assert make_model(change).version != make_model().version
    assert make_model("server.max_images=3").version == make_model().version


def test_model_info(make_model):
    model = make_model("explainers.gradient.enabled=false", "model.activation=sigmoid")
    info = model_info(model, 1_700_000_000.5)
    assert (info.version, info.device, info.engine) == (model.version, "cpu", "none 1.0")
    assert info.activation == pb.ACTIVATION_SIGMOID
    assert (info.input.height, info.input.width) == (6, 8)
    assert info.ready_time.ToMilliseconds() == 1_700_000_000_500
    assert [(one.batch_size, one.duration.ToMilliseconds()) for one in info.batches] == [(1, 10), (4, 20)]
    explainers = {one.name: one for one in info.explainers}
    assert list(explainers) == [
        "gradient", "guided_backprop", "deconvolution", "gradcam", "occlusion", "rise", "rise_plus"
    ]  # fmt: skip
    gradient, gradcam = explainers["gradient"], explainers["gradcam"]
    assert (gradient.available, gradient.HasField("cost")) == (False, False)
    assert (gradcam.available, gradcam.cost.duration.ToMilliseconds()) == (True, 30)
    layer = {one.name: one for one in gradcam.parameters}["layer"]
    assert (layer.default_value.string_value, list(layer.choices)) == ("late", ["early", "late"])
    rise = {one.name: one for one in explainers["rise"].parameters}
    assert (rise["mask_count"].default_value.number_value, rise["mask_count"].minimum) == (1000, 16)
    assert rise["mask_count"].type == rise["grid_size"].type == pb.PARAMETER_TYPE_INTEGER
    assert (rise["grid_size"].default_value.number_value, rise["grid_size"].maximum) == (6, 6)
    assert (rise["tolerance"].default_value.number_value, rise["tolerance"].maximum) == (0, 0.5)
    assert list(rise["estimator"].choices) == ["regression", "plain"]
    assert explainers["rise"].cost.pass_count == 1000
    assert not explainers["rise_plus"].available
    assert explainers["occlusion"].cost.pass_count == 1 + 4 * 6  # windows of 3 x 3 on 6 x 8, and the whole
    assert not info.HasField("ood")


def test_model_info_with_an_ood_net(make_model):
    model = make_model(ood=OodInfo(100, 1_700_000_000.5, {"noise": 0.9}))
    info = model_info(model, 0)
    assert info.ood.training_sample_count == 100
    assert info.ood.training_time.ToMilliseconds() == 1_700_000_000_500
    assert dict(info.ood.auroc) == {"noise": 0.9}
    assert {one.name: one for one in info.explainers}["rise_plus"].available


def test_ood_scores_and_seeds(model):
    wanted = [pb.ExplanationRequest(explainer=name, seed=5) for name in ("rise", "gradient")]
    asked = read_request(pb.PredictRequest(images=[pb.Image()], explanations=wanted), model)
    saliency = Saliency(RAMP[None], (MapStatus.OK,), None)
    explained = tuple(Explained(plan, np.zeros(1, np.int32), saliency, 7, 0.25) for plan in asked.plans)
    prepared = Prepared(np.zeros((3, 6, 8), np.float32), None, None)
    four = np.full(4, 0.25, np.float32)
    scored, not_scored = Predicted(prepared, four, four, explained, (0.5, 12.5)), Predicted(prepared, four, four, ())
    rise, gradient = predict_response([scored], asked, model, "id").predictions[0].explanations
    assert rise.seed == 5
    assert not gradient.HasField("seed"), "nothing is random in it"
    ood = predict_response([scored], asked, model, "id").predictions[0].ood
    assert (ood.score, ood.percentile) == (0.5, 12.5)
    none = read_request(pb.PredictRequest(images=[pb.Image()]), model)
    assert not predict_response([not_scored], none, model, "id").predictions[0].HasField("ood")
