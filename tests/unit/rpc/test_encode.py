"""Answers as messages: what maps travel as, what is withheld, and how an explanation came to its end."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from xai_proto import explanation_pb2 as pb
from xai_sidecar.engine.backend import OodTraining
from xai_sidecar.errors import PreconditionError
from xai_sidecar.explainers.base import MapStatus, Saliency
from xai_sidecar.imaging import Prepared, Region
from xai_sidecar.rpc import decode, encode
from xai_sidecar.rpc.encode import finished_event
from xai_sidecar.serving.answers import AnswerBuilder
from xai_sidecar.serving.checking import check_request
from xai_sidecar.serving.plan import ExplanationResult, ModelOutput, Stage
from xai_sidecar.serving.streaming import ExplanationKey, ExplanationProgress, ExplanationVersion


def read_request(message, model):
    return check_request(decode.read_request(message), model)


def predict_response(predicted, explained, asked, model, request_id):
    return encode.predict_response(AnswerBuilder(request_id, asked, model).answer(predicted, explained, sampled=False))


def predicted_event(predicted, asked, model, request_id):
    return encode.stream_event(request_id)(
        AnswerBuilder(request_id, asked, model).answer(predicted, None, sampled=False)
    )


def explaining_event(event, asked, model, request_id):
    return encode.stream_event(request_id)(AnswerBuilder(request_id, asked, model).event(event))


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
        explained = ExplanationResult(asked.plans[0], targets, saliency, 7, 0.25)
        prepared = Prepared(np.zeros((3, 6, 8), np.float32), (40, 30), Region(1, 2, 33, 26))
        logits, probabilities = (np.array(row, np.float32) for row in ((1, 3, 3, 0), (0.1, 0.4, 0.4, 0.1)))
        return predict_response([ModelOutput(prepared, logits, probabilities)], [[explained]], asked, model, "id")

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


def test_saturated_classes_come_by_their_logits(model):
    asked = read_request(pb.PredictRequest(images=[pb.Image()], top_k=3), model)
    prepared = Prepared(np.zeros((3, 6, 8), np.float32), None, None)
    one = ModelOutput(prepared, np.array([18, 40, -130, -120], np.float32), np.array([1, 1, 0, 0], np.float32))
    (prediction,) = predict_response([one], [[]], asked, model, "id").predictions
    assert [(each.class_id, each.logit) for each in prediction.classes] == [(1, 40), (0, 18), (3, -120)]


def test_float32_and_float16(answer):
    for encoding, dtype in ((pb.MAP_ENCODING_FLOAT32, "<f4"), (pb.MAP_ENCODING_FLOAT16, "<f2")):
        (one,) = answer([RAMP], encoding).predictions[0].explanations[0].maps
        got = np.frombuffer(one.tensor.data, dtype).reshape(tuple(one.tensor.shape))
        np.testing.assert_allclose(got, RAMP, rtol=1e-3)


@pytest.mark.parametrize("largest", [1e5, 65505, 1e-5, 1e-30])
def test_half_precision_is_refused_where_it_would_be_wrong(answer, largest):
    maps = [RAMP / 2 * np.float32(largest)]
    with pytest.raises(PreconditionError, match="Ask for the encoding float32") as caught:
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
    (unsure,) = answer([RAMP], encoding, (MapStatus.UNRELIABLE,)).predictions[0].explanations[0].maps
    assert (unsure.status, unsure.WhichOneof("map") is not None) == (pb.MAP_STATUS_UNRELIABLE, True)
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
    assert not one.HasField("standard_error_bound")
    errors = np.array([0.0, 0.5, np.inf], np.float32)
    maps = answer([RAMP] * 3, errors=errors).predictions[0].explanations[0].maps
    told = [(one.HasField("standard_error"), one.standard_error) for one in maps]
    assert told == [(True, 0), (True, 0.5), (False, 0)]
    assert [one.standard_error_bound for one in maps] == [pytest.approx(0.7)] * 3


# ------------------------------------------------------------------------------------------------ what was asked for


FOUR = np.full(4, 0.25, np.float32)
OOD = OodTraining(100, 1.7e9, {"noise": 0.9})


@pytest.fixture
def asked(make_model):
    """A request for two explanations, and the model that it was made to."""

    def asked(encoding=pb.MAP_ENCODING_FLOAT32, **fields):
        model = make_model(ood=OOD)
        wanted = [
            pb.ExplanationRequest(explainer="rise", name="masks", seed=5, encoding=encoding),
            pb.ExplanationRequest(explainer="gradient", name="slopes", seed=5, encoding=encoding),
        ]
        request = pb.PredictRequest(images=[pb.Image()] * 2, explanations=wanted, **fields)
        return read_request(request, model), model

    return asked


def one_picture(ood=None):
    return ModelOutput(Prepared(np.zeros((3, 6, 8), np.float32), None, None), FOUR, FOUR, ood)


def explained(plan, maps=(RAMP,), **fields):
    maps = np.reshape(maps, (-1, 6, 8)).astype(np.float32)
    saliency = Saliency(maps, (MapStatus.OK,) * len(maps), fields.pop("errors", None))
    return ExplanationResult(plan, np.arange(len(maps), dtype=np.int32), saliency, 7, 0.25, **fields)


def test_seeds_are_told_where_something_is_random(asked):
    wanted, model = asked()
    response = predict_response([one_picture()], [[explained(plan) for plan in wanted.plans]], wanted, model, "id")
    rise, gradient = response.predictions[0].explanations
    assert (rise.seed, rise.name, rise.explainer) == (5, "masks", "rise")
    assert (gradient.HasField("seed"), gradient.name) == (False, "slopes")


def test_several_pictures_keep_their_explanations(asked):
    wanted, model = asked()
    rows = [[explained(plan, [RAMP * factor]) for plan in wanted.plans] for factor in (1, 2)]
    response = predict_response([one_picture()] * 2, rows, wanted, model, "id")
    largest = [
        [np.frombuffer(each.maps[0].tensor.data, "<f4").max() for each in one.explanations]
        for one in response.predictions
    ]
    assert largest == [[2, 2], [4, 4]]


def test_ood_scores_are_told_to_who_asks_for_them(asked):
    picture = one_picture(ood=(0.5, 12.5))
    wanted, model = asked(ood=True)
    for response in (
        predict_response([picture], [()], wanted, model, "id"),
        predicted_event([picture], wanted, model, "id").predicted,
    ):
        ood = response.predictions[0].ood
        assert (ood.score, ood.percentile) == (0.5, 12.5)
    assert not predict_response([one_picture()], [()], wanted, model, "id").predictions[0].HasField("ood")


def test_ood_scores_for_a_condition_only_are_kept_back(make_model):
    model = make_model(ood=OOD)
    conditioned = pb.ExplanationRequest(explainer="gradient", condition=pb.Condition(ood_percentile_below=5))
    wanted = read_request(pb.PredictRequest(images=[pb.Image()], explanations=[conditioned]), model)
    assert wanted.needs_ood
    response = predict_response([one_picture(ood=(0.5, 12.5))], [()], wanted, model, "id")
    assert not response.predictions[0].HasField("ood")


# ------------------------------------------------------------------------------------------------ how it ended


def test_how_an_explanation_ended(asked):
    wanted, model = asked()
    plan = wanted.plans[0]
    ends = [
        explained(plan),
        explained(plan, stage=Stage.TRUNCATED, message="Too late."),
        explained(plan, (), stage=Stage.TRUNCATED, message="Nothing yet."),
        explained(plan, (), stage=Stage.SKIPPED, message="No need."),
        explained(plan, ()),
        explained(plan, stage=Stage.PARTIAL),
    ]
    got = [
        explaining_event(ExplanationVersion(ExplanationKey(0, 0), end), wanted, model, "id").explained.explanation
        for end in ends
    ]  # fmt: skip
    assert [(one.status, one.truncated, one.status_message, len(one.maps)) for one in got] == [
        (pb.EXPLANATION_STATUS_COMPLETE, False, "", 1),
        (pb.EXPLANATION_STATUS_TRUNCATED, True, "Too late.", 1),
        (pb.EXPLANATION_STATUS_TRUNCATED, True, "Nothing yet.", 0),
        (pb.EXPLANATION_STATUS_SKIPPED, False, "No need.", 0),
        (pb.EXPLANATION_STATUS_COMPLETE, False, "", 0),
        (pb.EXPLANATION_STATUS_PARTIAL, False, "", 1),
    ]
    assert all((one.pass_count, one.seed) == (7, 5) for one in got)
    assert all(one.parameters["grid_size"].number_value == 6 for one in got)


# ------------------------------------------------------------------------------------------------ events


def test_the_first_and_the_last_event(asked):
    wanted, model = asked(top_k=2)
    first = predicted_event([one_picture(), one_picture()], wanted, model, "id")
    assert (first.request_id, first.WhichOneof("event")) == ("id", "predicted")
    assert (first.predicted.request_id, first.predicted.model_version) == ("id", model.version)
    assert [[each.class_id for each in one.classes] for one in first.predicted.predictions] == [[0, 1], [0, 1]]
    assert not any(one.explanations for one in first.predicted.predictions)
    last = finished_event("id")
    assert (last.request_id, last.WhichOneof("event")) == ("id", "finished")


def test_progress_events(asked):
    wanted, model = asked()
    event = explaining_event(
        ExplanationProgress(ExplanationKey(1, 0), "masks", 40, 1000, 0.25, 1.5), wanted, model, "id"
    )
    progress = event.progress
    assert (event.request_id, event.WhichOneof("event")) == ("id", "progress")
    assert (progress.image_index, progress.name) == (1, "masks")
    assert (progress.pass_count, progress.planned_pass_count) == (40, 1000)
    assert (progress.standard_error, progress.remaining.ToMilliseconds()) == (0.25, 1500)
    without = explaining_event(
        ExplanationProgress(ExplanationKey(0, 1), "slopes", 1, 2, None, 0.0), wanted, model, "id"
    ).progress
    assert (without.name, without.HasField("standard_error")) == ("slopes", False)
    assert (without.image_index, without.remaining.ToNanoseconds()) == (0, 0)


def test_versions(asked):
    wanted, model = asked()
    version = explained(wanted.plans[1], stage=Stage.PARTIAL, errors=np.array([0.5], np.float32))
    event = explaining_event(ExplanationVersion(ExplanationKey(1, 1), version), wanted, model, "id")
    assert (event.request_id, event.WhichOneof("event")) == ("id", "explained")
    assert event.explained.image_index == 1
    got = event.explained.explanation
    assert (got.name, got.status) == ("slopes", pb.EXPLANATION_STATUS_PARTIAL)
    np.testing.assert_array_equal(np.frombuffer(got.maps[0].tensor.data, "<f4").reshape(6, 8), RAMP)
    assert got.maps[0].standard_error == 0.5


def test_a_version_that_its_encoding_cannot_carry(asked):
    wanted, model = asked(pb.MAP_ENCODING_FLOAT16)
    with pytest.raises(PreconditionError) as caught:
        explaining_event(
            ExplanationVersion(ExplanationKey(0, 1), explained(wanted.plans[1], [RAMP * 1e6])), wanted, model, "id"
        )
    assert caught.value.field == "explanations[1].encoding"
