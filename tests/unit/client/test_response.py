"""Answers become the right results; maps that were withheld or damaged never pass for maps."""

import io
from datetime import datetime, timezone

import numpy as np
import pytest
from PIL import Image

from xai_client import (
    Accuracy,
    Advantage,
    ArgumentError,
    AutoChoice,
    ClassConfusion,
    EvaluatorInfo,
    Explained,
    Finished,
    MapWithheldError,
    MetricInfo,
    PictureSize,
    Predicted,
    Progress,
    Region,
    ResponseError,
    Skill,
    Standing,
)
from xai_client.model_info import LayerInfo, model_info
from xai_client.response import EventDecoder, predictions
from xai_proto import explanation_pb2 as pb

VALUES = np.array([[0.0, 0.25, 1.5], [-2.0, 3.0, 4.0]], np.float32)


def answer_with(*maps, status=pb.EXPLANATION_STATUS_COMPLETE, **fields):
    explanation = pb.Explanation(name="mine", explainer="rise", status=status, maps=maps, **fields)
    return pb.PredictResponse(request_id="r", predictions=[pb.Prediction(explanations=[explanation])])


def decode(response):
    return predictions(response, "sent", 1)[0].explanations["mine"]


def tensor_map(values, dtype, number, class_id=1):
    tensor = pb.Tensor(dtype=number, shape=values.shape, data=values.astype(dtype).tobytes())
    return pb.SaliencyMap(class_id=class_id, label="cat", status=pb.MAP_STATUS_OK, tensor=tensor)


def png_map(grey, minimum, maximum):
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    png = pb.PngMap(data=buffer.getvalue(), minimum=minimum, maximum=maximum)
    return pb.SaliencyMap(class_id=1, status=pb.MAP_STATUS_OK, png=png)


def withheld(status, class_id=1):
    return pb.SaliencyMap(class_id=class_id, label="cat", status=status)


def test_a_prediction_with_everything():
    response = pb.PredictResponse(request_id="r", model_version="v")
    prediction = response.predictions.add()
    prediction.classes.add(class_id=3, label="cat", probability=0.5, logit=-1.25)
    prediction.ood.score, prediction.ood.percentile = 2.5, 40
    prediction.picture.width, prediction.picture.height = 640, 480
    prediction.region.left, prediction.region.right, prediction.region.bottom = 80.5, 559.5, 480
    result = predictions(response, "sent", 1)[0]
    assert (result.request_id, result.model_version) == ("r", "v")
    (score,) = result.classes
    assert (score.class_id, score.label, score.probability, score.logit) == (3, "cat", 0.5, -1.25)
    assert (result.ood_score, result.ood_percentile) == (2.5, 40)
    assert result.picture_size == PictureSize(640, 480) == (640, 480)
    assert result.region == Region(80.5, 0, 559.5, 480)
    assert result.explanations == {}


def test_what_was_not_sent_is_none():
    result = predictions(pb.PredictResponse(predictions=[pb.Prediction()]), "sent", 1)[0]
    assert result.request_id == "sent"
    assert (result.ood_score, result.ood_percentile, result.region, result.picture_size) == (None, None, None, None)


def test_an_explanation_with_everything():
    first = tensor_map(VALUES, "<f4", pb.DATA_TYPE_FLOAT32, 5)
    first.standard_error = 0.125
    response = answer_with(
        first,
        tensor_map(VALUES * 2, "<f4", pb.DATA_TYPE_FLOAT32, 2),
        status=pb.EXPLANATION_STATUS_TRUNCATED,
        status_message="the budget ended it",
        seed=2**63,
        pass_count=12,
        truncated=True,
    )
    message = response.predictions[0].explanations[0]
    message.elapsed.FromMilliseconds(1250)
    message.parameters["masks"].number_value = 4000
    message.parameters["tolerance"].number_value = 0.5
    message.parameters["layer"].string_value = "layer4"
    result = decode(response)
    assert (result.name, result.explainer, result.status) == ("mine", "rise", "truncated")
    assert (result.status_message, result.seed, result.passes) == ("the budget ended it", 2**63, 12)
    assert (result.truncated, result.elapsed, result.standard_error) == (True, 1.25, 0.125)
    assert result.parameters == {"masks": 4000, "tolerance": 0.5, "layer": "layer4"}
    assert isinstance(result.parameters["masks"], int)
    assert result.targets == (5, 2)
    assert np.array_equal(result.saliency, VALUES)
    assert np.array_equal(result.saliencies, np.stack([VALUES, VALUES * 2]))
    assert result.saliencies.dtype == np.float32
    assert result.maps[1].standard_error is None
    assert (result.maps[0].label, result.maps[0].status) == ("cat", "ok")


def test_whether_a_request_was_sampled():
    two = [pb.Prediction(), pb.Prediction()]
    for sampled in (True, False):
        response = pb.PredictResponse(predictions=two, sampled=sampled)
        assert [each.sampled for each in predictions(response, "r", 2)] == [sampled, sampled]
        event = EventDecoder("r").decode(
            pb.PredictStreamResponse(predicted=pb.PredictResponse(predictions=two[:1], sampled=sampled))
        )
        assert event.prediction.sampled is sampled


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (pb.AUTO_CHOICE_KIND_BEST, "best"),
        (pb.AUTO_CHOICE_KIND_BEST_OF_CLASS, "best_of_class"),
        (pb.AUTO_CHOICE_KIND_FALLBACK, "fallback"),
        (pb.AUTO_CHOICE_KIND_UNSPECIFIED, "unknown"),
    ],
)
def test_what_auto_chose(kind, word):
    choice = pb.AutoChoice(reason="because", kind=kind)
    assert decode(answer_with(auto_choice=choice)).choice == AutoChoice("because", word, None)
    choice.composite_score = 0.0
    assert decode(answer_with(auto_choice=choice)).choice == AutoChoice("because", word, 0.0)
    assert decode(answer_with()).choice is None


def test_auto_is_found_by_its_own_name():
    chosen = pb.Explanation(name="auto", explainer="gradcam", auto_choice=pb.AutoChoice(reason="because"))
    other = pb.Explanation(name="gradcam", explainer="gradcam")
    response = pb.PredictResponse(predictions=[pb.Prediction(explanations=[chosen, other])])
    explanations = predictions(response, "r", 1)[0].explanations
    assert {name: (each.explainer, bool(each.choice)) for name, each in explanations.items()} == {
        "auto": ("gradcam", True),
        "gradcam": ("gradcam", False),
    }


def test_seed_zero_differs_from_no_seed():
    assert decode(answer_with(seed=0)).seed == 0
    assert decode(answer_with()).seed is None


def test_float16_and_png_become_float32():
    half = decode(answer_with(tensor_map(VALUES, "<f2", pb.DATA_TYPE_FLOAT16))).saliency
    assert half.dtype == np.float32
    assert np.array_equal(half, VALUES)
    grey = np.array([[0, 51, 255]], np.uint8)
    png = decode(answer_with(png_map(grey, -1.0, 4.0))).saliency
    assert png.dtype == np.float32
    assert np.allclose(png, [[-1.0, 0.0, 4.0]])


def test_maps_may_be_written_to():
    saliency = decode(answer_with(tensor_map(VALUES, "<f4", pb.DATA_TYPE_FLOAT32))).saliency
    saliency[0, 0] = 9
    assert saliency[0, 0] == 9


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (pb.MAP_STATUS_ZERO_GRADIENT, "zero_gradient", "no gradient"),
        (pb.MAP_STATUS_NOT_FINITE, "not_finite", "NaN"),
        (pb.MAP_STATUS_NO_OOD_RANGE, "no_ood_range", "OoD net"),
    ],
)
def test_a_withheld_map_says_why(status, reason, words):
    good = tensor_map(VALUES, "<f4", pb.DATA_TYPE_FLOAT32, 2)
    result = decode(answer_with(withheld(status), good))
    assert result.maps[0].status == reason
    for access in (
        lambda: result.saliency,
        lambda: result.saliencies,
        lambda: result.maps[0].saliency,
        lambda: result.overlay(np.zeros(VALUES.shape, np.uint8)),
    ):
        with pytest.raises(MapWithheldError, match=words) as caught:
            access()
        assert caught.value.reason == reason
    assert np.array_equal(result.maps[1].saliency, VALUES)
    assert result.overlay(np.zeros(VALUES.shape, np.uint8), target=2).size == VALUES.shape[::-1]


def test_a_map_sent_against_its_status_is_not_shown():
    message = tensor_map(VALUES, "<f4", pb.DATA_TYPE_FLOAT32)
    message.status = pb.MAP_STATUS_NOT_FINITE
    with pytest.raises(MapWithheldError):
        _ = decode(answer_with(message)).saliency


def test_an_all_zero_map_is_a_map():
    message = tensor_map(VALUES * 0, "<f4", pb.DATA_TYPE_FLOAT32)
    message.status = pb.MAP_STATUS_ALL_ZERO
    result = decode(answer_with(message))
    assert result.maps[0].status == "all_zero"
    assert np.array_equal(result.saliency, VALUES * 0)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (
            {"standard_error": 1.25, "standard_error_bound": 0.7},
            "mostly noise, its standard error of 1.25 is above 0.7",
        ),
        ({"standard_error": 0.5, "standard_error_bound": 0.7}, "too few passes"),  # too few to know the error
        ({"standard_error_bound": 0.7}, "too few passes"),
        ({}, "too few passes"),  # of an exact method
    ],
)
def test_an_unreliable_map_is_there_and_says_so(fields, why):
    sent = tensor_map(VALUES, "<f4", pb.DATA_TYPE_FLOAT32)
    sent.MergeFrom(pb.SaliencyMap(status=pb.MAP_STATUS_UNRELIABLE, **fields))
    explanation = decode(answer_with(sent))
    (one,) = explanation.maps
    np.testing.assert_array_equal(explanation.saliency, VALUES)
    assert (one.status, one.reliable, explanation.reliable) == ("unreliable", False, False)
    assert f"class 1 (cat) is unreliable: {why}" in one.warning
    assert one.standard_error_bound == pytest.approx(fields.get("standard_error_bound"))


def test_what_is_reliable_has_no_warning():
    good, zero = tensor_map(VALUES, "<f4", pb.DATA_TYPE_FLOAT32), tensor_map(VALUES * 0, "<f4", pb.DATA_TYPE_FLOAT32, 2)
    zero.status = pb.MAP_STATUS_ALL_ZERO
    explanation = decode(answer_with(good, zero))
    assert explanation.reliable
    assert [(one.reliable, one.warning) for one in explanation.maps] == [(True, "")] * 2
    partly = decode(answer_with(good, withheld(pb.MAP_STATUS_ZERO_GRADIENT, 2)))
    assert not partly.reliable
    assert [(one.reliable, one.warning) for one in partly.maps] == [(True, ""), (False, "")]
    assert not decode(answer_with()).reliable


def test_no_maps_say_why():
    skipped = decode(answer_with(status=pb.EXPLANATION_STATUS_SKIPPED, status_message="top probability is 0.9"))
    with pytest.raises(MapWithheldError, match=r"0\.9") as caught:
        _ = skipped.saliency
    assert caught.value.reason == "skipped"
    assert (skipped.targets, skipped.standard_error) == ((), None)
    cut = decode(answer_with(status=pb.EXPLANATION_STATUS_TRUNCATED, status_message="1 s is over", truncated=True))
    with pytest.raises(MapWithheldError, match="'mine' has no map: 1 s is over") as caught:
        cut.overlay(np.zeros((2, 2), np.uint8))
    assert caught.value.reason == "truncated"
    with pytest.raises(MapWithheldError, match="budget ended before"):
        _ = decode(answer_with(status=pb.EXPLANATION_STATUS_TRUNCATED)).saliency
    with pytest.raises(MapWithheldError, match="no class qualified") as caught:
        _ = decode(answer_with()).saliencies
    assert caught.value.reason == "no_targets"


def test_a_target_that_was_not_explained_is_refused():
    result = decode(answer_with(tensor_map(VALUES, "<f4", pb.DATA_TYPE_FLOAT32, 5)))
    with pytest.raises(ArgumentError, match="targets are 5"):
        result.overlay(np.zeros((2, 2), np.uint8), target=6)


def damaged():
    short = tensor_map(VALUES, "<f4", pb.DATA_TYPE_FLOAT32)
    short.tensor.data = short.tensor.data[:-1]
    typed = tensor_map(VALUES, "<f4", pb.DATA_TYPE_UINT8)
    flat = tensor_map(VALUES.ravel(), "<f4", pb.DATA_TYPE_FLOAT32)
    missing = withheld(pb.MAP_STATUS_OK)
    png = png_map(np.zeros((2, 2), np.uint8), 0, 1)
    png.png.data = png.png.data[:40]
    return [short, typed, flat, missing, png]


@pytest.mark.parametrize("index", range(5))
def test_damaged_maps_are_refused(index):
    with pytest.raises(ResponseError):
        decode(answer_with(damaged()[index]))


def test_answers_against_the_contract_are_refused():
    with pytest.raises(ResponseError, match="2 pictures"):
        predictions(pb.PredictResponse(predictions=[pb.Prediction()]), "r", 2)
    for region in (pb.Region(), pb.Region(left=2, right=1, bottom=1), pb.Region(right=float("inf"), bottom=1)):
        with pytest.raises(ResponseError, match="region"):
            predictions(pb.PredictResponse(predictions=[pb.Prediction(region=region)]), "r", 1)


def test_a_status_of_a_newer_server_is_unknown():
    response = answer_with()
    response.predictions[0].explanations[0].status = 77
    assert decode(response).status == "unknown"


def test_every_event():
    decoder = EventDecoder("sent")
    inner = pb.Prediction(region=pb.Region(right=3, bottom=2), picture=pb.PictureSize(width=3, height=2))
    first = decoder.decode(
        pb.PredictStreamResponse(request_id="r", predicted=pb.PredictResponse(request_id="r", predictions=[inner]))
    )
    assert isinstance(first, Predicted)
    assert (first.request_id, first.prediction.request_id) == ("r", "r")

    progress = pb.ExplanationProgress(name="mine", pass_count=3, planned_pass_count=9, standard_error=0.5)
    progress.remaining.FromMilliseconds(1500)
    assert decoder.decode(pb.PredictStreamResponse(request_id="r", progress=progress)) == Progress(
        "r", "mine", 3, 9, 0.5, 1.5
    )
    bare = decoder.decode(pb.PredictStreamResponse(progress=pb.ExplanationProgress(name="mine")))
    assert bare == Progress("sent", "mine", 0, 0, None, None)

    for status in pb.ExplanationStatus.values():
        final = status != pb.EXPLANATION_STATUS_PARTIAL
        explanation = pb.Explanation(name="mine", status=status, maps=[tensor_map(VALUES, "<f4", pb.DATA_TYPE_FLOAT32)])
        update = pb.PredictStreamResponse(explained=pb.ExplanationUpdate(explanation=explanation))
        event = decoder.decode(update)
        assert isinstance(event, Explained)
        assert event.final is final
        assert event.explanation.region == (0, 0, 3, 2)
        assert event.explanation.picture_size == (3, 2)

    assert decoder.decode(pb.PredictStreamResponse(finished=pb.StreamFinished())) == Finished("sent")
    assert decoder.decode(pb.PredictStreamResponse()) is None


def test_an_explanation_before_the_prediction_is_refused():
    update = pb.PredictStreamResponse(explained=pb.ExplanationUpdate())
    with pytest.raises(ResponseError):
        EventDecoder("r").decode(update)


def test_model_info(described_model):
    info = model_info(described_model)
    assert (info.name, info.version, info.class_count, info.labels) == ("lite0", "abc123", 2, ("cat", "dog"))
    assert (info.activation, info.device, info.engine) == ("softmax", "cpu", "mindspore 2.10.0")
    assert info.server_version == "0.1.0"
    assert info.ready_time == datetime(2024, 5, 1, 12, tzinfo=timezone.utc)
    assert (info.input.channels, info.input.height, info.input.width, info.input.stretch) == (3, 224, 224, False)
    assert (info.input.resize_height, info.input.resize_width, info.input.interpolation) == (256, 256, "bicubic")
    assert (info.input.mean, info.input.std) == ((0.5, 0.25, 0.125), (1.0, 0.5, 0.25))
    assert info.input.mean_colour == (0.25, 0.5, 0.75)
    limits = info.limits
    assert (limits.max_image_count, limits.max_pixel_count, limits.max_message_bytes) == (8, 1000, 2000)
    assert (limits.max_explanation_count, limits.max_target_count) == (4, 5)
    assert (limits.max_pass_count, limits.max_call_seconds) == (6000, 7.5)
    assert [(each.batch_size, each.seconds) for each in info.batches] == [(8, 0.04)]
    assert info.layers == (
        LayerInfo("stem", 16, 112, 112, available=True, compiled=False, is_default=False),
        LayerInfo("head", 320, 7, 7, available=True, compiled=True, is_default=True),
    )
    assert info.weights == "Of lite0.ckpt, all 240 parameters."
    assert info.ood is not None
    assert (info.ood.training_sample_count, info.ood.training_time, info.ood.auroc) == (5000, None, {"noise": 0.75})


def test_explainer_info(described_model):
    explainers = model_info(described_model).explainers
    assert list(explainers) == ["rise", "rise_plus"]
    rise = explainers["rise"]
    assert (rise.available, rise.cost.passes, rise.cost.seconds) == (True, 4000, 2.5)
    masks = rise.parameters["masks"]
    assert (masks.type, masks.default, masks.minimum, masks.maximum, masks.choices) == ("integer", 4000, 1, 32000, ())
    scale = rise.parameters["normalization"]
    assert (scale.type, scale.default, scale.minimum, scale.choices) == ("string", "none", None, ("none", "max"))
    (quality,) = rise.quality
    assert (quality.metric, quality.mean, quality.confidence_half_width) == ("faithfulness/deletion_auc", 0.25, 0.125)
    assert (quality.sample_count, quality.higher_is_better, quality.goodness) == (50, False, 0.75)
    assert quality.update_time == datetime(2024, 5, 2, tzinfo=timezone.utc)
    assert rise.composite_score == 0.625
    plus = explainers["rise_plus"]
    assert (plus.composite_score, plus.quality) == (None, ())
    assert (plus.available, plus.unavailable_reason, plus.cost) == (False, "there is no OoD net", None)


def test_controls_and_how_explainers_compare_with_them(described_model):
    (before,) = model_info(described_model).explainers["rise"].quality
    assert (before.interval, before.skill) == (None, None)
    measure = described_model.explainers[0].quality[0]
    measure.interval_low, measure.interval_high = 0, 0.5
    measure.skill.CopyFrom(pb.Skill(control="control/blob", value=-0.5, confidence_half_width=0.25))
    advantage = pb.Advantage(over="control/edges", mean=-0.125, confidence_half_width=0.25)
    described_model.explainers[0].standing.CopyFrom(pb.Standing(objection="is bad", advantage=advantage))
    control = described_model.evaluator.controls.add(name="control/blob", description="A blob.")
    control.quality.add(metric="faithfulness/srg", mean=0.25, sample_count=3)
    described_model.evaluator.controls.add(name="control/edges", composite_score=0)
    info = model_info(described_model)
    rise = info.explainers["rise"]
    assert rise.quality[0].interval == (0, 0.5)
    assert rise.quality[0].skill == Skill("control/blob", -0.5, 0.25)
    assert rise.standing == Standing(False, "is bad", Advantage("control/edges", -0.125, 0.25))
    assert info.explainers["rise_plus"].standing is None
    blob, edges = info.evaluator.controls.values()
    assert (blob.name, blob.description, blob.composite_score) == ("control/blob", "A blob.", None)
    assert (blob.quality[0].metric, blob.quality[0].mean) == ("faithfulness/srg", 0.25)
    assert (edges.quality, edges.composite_score) == ((), 0)


def test_evaluator_info(described_model):
    assert model_info(described_model).evaluator == EvaluatorInfo(
        sample_rate=0.01,
        state="up_to_date",
        last_sample_time=datetime(2024, 5, 2, 1, 2, 3, tzinfo=timezone.utc),
        window=86400,
        window_sample_count=50,
        note="Objects were reported for none of them.",
        metrics={
            "faithfulness/deletion_auc": MetricInfo(
                "faithfulness/deletion_auc", "How fast the probability falls.", False, 0, 1
            )
        },
        accuracy=Accuracy(4, 0.75, (ClassConfusion(1, "dog", 3, 1, 0, 0, 0.75, 1.0),)),
    )
    described_model.evaluator.ClearField("last_sample_time")
    for state, word in ((1, "no_traffic"), (3, "working"), (9, "unknown")):
        described_model.evaluator.state = state
        evaluator = model_info(described_model).evaluator
        assert (evaluator.state, evaluator.last_sample_time) == (word, None)
    described_model.ClearField("evaluator")
    assert model_info(described_model).evaluator is None
