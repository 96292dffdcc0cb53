"""Limits from the config: how much a request may ask for, what it may name, and how much is taken on at a time."""

import io

import numpy as np
import pytest
from PIL import Image

from xai_proto import explanation_pb2 as pb

ASKED = "explanations[0]"


def pixels(array):
    return pb.Image(pixels=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=array.shape, data=array.tobytes()))


def one(**fields):
    """A request for one explanation, by gradcam unless said otherwise."""
    return {"explanations": [pb.ExplanationRequest(**{"explainer": "gradcam", **fields})]}


@pytest.fixture(scope="module")
def narrow(start_server, only, sample_config):
    """A server with low limits."""
    limits = (
        "server.max_message_bytes=200000",
        "server.max_pixels=10000",
        "server.max_images=3",
        "server.max_explanations=2",
        "server.max_targets=2",
        "server.max_passes=100",
        "server.queue_capacity=2",
        *only("gradcam", "rise"),
        "explainers.gradcam.compile_on_demand=true",
    )
    with start_server(sample_config, *limits) as running:
        yield running


@pytest.fixture(scope="module")
def narrow_stub(narrow, connect):
    with connect(narrow.grpc) as stub:
        yield stub


@pytest.fixture
def small():
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    return pixels(noise)


def test_limits_come_from_the_config(narrow_stub, small, refused):
    limits = narrow_stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=60).model.limits
    assert (limits.max_message_bytes, limits.max_pixel_count, limits.max_image_count) == (200_000, 10_000, 3)
    assert (limits.max_explanation_count, limits.max_target_count) == (2, 2)
    assert (limits.max_pass_count, limits.max_call_duration.ToSeconds()) == (100, 86_400)
    refusal = refused(narrow_stub.Predict, pb.PredictRequest(images=[small] * 4))
    refusal.check("INVALID_ARGUMENT", "INVALID_REQUEST", "images")
    refusal = refused(narrow_stub.Predict, pb.PredictRequest(images=[small], **one(targets=pb.Targets(top_count=3))))
    refusal.check("INVALID_ARGUMENT", "TARGET", f"{ASKED}.targets.top_count")


@pytest.mark.parametrize("source", ["encoded", "pixels"])
def test_the_limit_of_pixels_holds_for_every_source(source, narrow_stub, small, refused):
    grey = np.zeros((101, 100, 1), np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey[..., 0]).save(file, "PNG")
    large = pb.Image(encoded=file.getvalue()) if source == "encoded" else pixels(grey)
    refusal = refused(narrow_stub.Predict, pb.PredictRequest(images=[large]))
    refusal.check("INVALID_ARGUMENT", "PICTURE_TOO_LARGE", f"images[0].{source}")
    assert narrow_stub.Predict(pb.PredictRequest(images=[small]), timeout=60).predictions


def test_an_explainer_that_is_switched_off(narrow_stub, small, refused):
    info = narrow_stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=60).model
    gradient = {explainer.name: explainer for explainer in info.explainers}["gradient"]
    assert not gradient.available
    assert "explainers.gradient.enabled" in gradient.unavailable_reason
    refusal = refused(narrow_stub.Predict, pb.PredictRequest(images=[small], **one(explainer="gradient")))
    refusal.check("FAILED_PRECONDITION", "PRECONDITION", f"{ASKED}.explainer")


def test_a_layer_named_by_the_request_is_compiled_on_demand(narrow_stub, small, map_of):
    info = narrow_stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=60).model
    gradcam = {explainer.name: explainer for explainer in info.explainers}["gradcam"]
    layer = {parameter.name: parameter for parameter in gradcam.parameters}["layer"]
    assert {"stem", "blocks.0", "blocks.10", "blocks.15", "head"} <= set(layer.choices)
    assert "classifier" not in layer.choices

    def explain(layer):
        asked = one(gradcam=pb.GradCamParameters(layer=layer), encoding=pb.MAP_ENCODING_FLOAT16)
        request = pb.PredictRequest(images=[small], **asked)
        return narrow_stub.Predict(request, timeout=120).predictions[0].explanations[0]

    default, head, middle, again = map(explain, ("", "head", "blocks.10", "blocks.10"))
    used = [each.parameters["layer"].string_value for each in (default, head, middle, again)]
    assert used == ["head", "head", "blocks.10", "blocks.10"]
    default, head, middle, again = (map_of(each.maps[0]) for each in (default, head, middle, again))
    np.testing.assert_allclose(default, head, atol=1e-3 * head.max())
    np.testing.assert_allclose(again, middle, atol=1e-3 * middle.max())
    assert np.abs(middle / middle.max() - head / head.max()).max() > 0.1


def test_conditions_that_need_an_ood_net(narrow_stub, small, refused):
    asked = one(condition=pb.Condition(top_probability_below=1, ood_percentile_below=5))
    refusal = refused(narrow_stub.Predict, pb.PredictRequest(images=[small], **asked))
    refusal.check("FAILED_PRECONDITION", "PRECONDITION", f"{ASKED}.condition.ood_percentile_below")
    assert "train-ood" in refusal.message


def test_more_than_the_queue_holds(narrow_stub, small, read_refusal):
    """Many callers at once: some are told to come back, in time they are all served."""
    request = pb.PredictRequest(images=[small])
    calls = [narrow_stub.Predict.future(request, timeout=60) for _ in range(24)]
    errors = [error for error in (call.exception(timeout=60) for call in calls) if error is not None]
    assert 0 < len(errors) < 24
    refusals = [read_refusal(error) for error in errors]
    assert {(each.code, each.reason, each.fields) for each in refusals} == {("RESOURCE_EXHAUSTED", "OVERLOADED", ())}
    assert all(0 < each.retry_seconds <= 60 for each in refusals)
    assert narrow_stub.Predict(request, timeout=60).predictions


def test_more_passes_than_the_server_gives(narrow_stub, small, refused):
    """Of all pictures and explanations together; the dearest explanation is named."""

    def asked(images, *explainers, masks):
        rise = pb.RiseParameters(mask_count=masks)
        wanted = [pb.ExplanationRequest(explainer=each, encoding=pb.MAP_ENCODING_PNG) for each in explainers]
        wanted[-1].rise.CopyFrom(rise)
        return pb.PredictRequest(images=[small] * images, explanations=wanted)

    refusal = refused(narrow_stub.Predict, asked(1, "gradcam", "rise", masks=100))
    refusal.check("INVALID_ARGUMENT", "INVALID_REQUEST", "explanations[1]")
    assert "101 passes" in refusal.message
    refusal = refused(narrow_stub.Predict, asked(2, "rise", masks=51))
    refusal.check("INVALID_ARGUMENT", "INVALID_REQUEST", "explanations[0]")
    assert "102 passes" in refusal.message
    answer = narrow_stub.Predict(asked(2, "rise", masks=50), timeout=60)
    assert [one.explanations[0].pass_count for one in answer.predictions] == [50, 50]


def test_an_answer_over_the_limit(narrow, narrow_stub, small, refused, read_metrics):
    """A float32 map of 224 x 224 has 200,704 bytes."""
    before = read_metrics(narrow.http)["xai_requests_total", "OK", "Predict"]
    refusal = refused(narrow_stub.Predict, pb.PredictRequest(images=[small], **one()))
    assert (refusal.code, refusal.reason, refusal.fields) == ("INVALID_ARGUMENT", "INVALID_REQUEST", ("explanations",))
    assert "float16" in refusal.message
    assert read_metrics(narrow.http)["xai_requests_total", "OK", "Predict"] == before, "counted as if it had gone well"
    half = narrow_stub.Predict(pb.PredictRequest(images=[small], **one(encoding=pb.MAP_ENCODING_FLOAT16)), timeout=60)
    assert half.predictions[0].explanations[0].maps[0].tensor.data
