"""A device that fails now and then, answers nonsense, or does not answer at all: each caller gets what is due to it."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from xai_proto import explanation_pb2 as pb
from xai_sidecar.engine.batching import in_batches
from xai_sidecar.engine.work import drive
from xai_sidecar.explainers.base import Context
from xai_sidecar.explainers.gradcam import GradCam, GradCamParameters
from xai_sidecar.explainers.rise import Rise, RiseParameters

pytestmark = pytest.mark.timed

MASKS, SEED, TARGET = 20, 5, 1
TARGETS = pb.Targets(class_ids=[TARGET])
RISE = pb.ExplanationRequest(
    explainer="rise", targets=TARGETS, seed=SEED, rise=pb.RiseParameters(mask_count=MASKS, grid_size=4)
)
GRADCAM = pb.ExplanationRequest(explainer="gradcam", targets=TARGETS)
ENDLESS = pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=100_000))
TOGETHER = "server.batch_delay_milliseconds=40"
"""Has predictions that come at about the same time share a launch."""

HANG_SECONDS = 1
SMALL_WINDOW = ("grpc.http2.bdp_probe", 0)
"""Has a channel hold no more than 64 KiB for a reader who dawdles; the server has to hold back the rest."""


def asked(*images, explain=()):
    return pb.PredictRequest(images=images, explanations=explain)


def streamed(*images, explain=()):
    return pb.PredictStreamRequest(request=asked(*images, explain=explain))


def array_of(image):
    return np.frombuffer(image.model_input.data, np.float32).reshape(tuple(image.model_input.shape))


def code_of(call):
    """The code and details that a call ended with, answered or not."""
    error = call.exception(timeout=60)
    return error, "OK" if error is None else error.code().name


@pytest.fixture(scope="module")
def server(start_misbehaving):
    """A server that all of the tests share after which it still works."""
    with start_misbehaving(TOGETHER) as running:
        yield running


@pytest.fixture(scope="module")
def stub(server, connect):
    with connect(server.grpc) as stub:
        yield stub


@pytest.fixture(scope="module")
def check_logits(misbehaving):
    """That a prediction is right."""

    def check_logits(prediction, image):
        got = [one.logit for one in sorted(prediction.classes, key=lambda one: one.class_id)]
        np.testing.assert_array_equal(np.float32(got), misbehaving.logits_of(array_of(image)[None])[0])

    return check_logits


@pytest.fixture(scope="module")
def check_map(misbehaving, map_of):
    """That an explanation is right: what the backend comes to without an engine, and without others."""

    def check_map(explanation, image):
        if explanation.explainer == "rise":
            explainer, parameters = Rise(), RiseParameters(mask_count=MASKS, grid_size=4)
        else:
            explainer, parameters = GradCam(), GradCamParameters(layer="pixels")
        steps = explainer.explain(array_of(image), np.asarray([TARGET], np.int32), parameters, Context(seed=SEED))
        want = drive(steps, in_batches(misbehaving.Arithmetic().run, 8))
        assert explanation.maps[0].status == pb.MapStatus.Value(f"MAP_STATUS_{want.statuses[0].name}")
        np.testing.assert_array_equal(map_of(explanation.maps[0]), want.maps[0])

    return check_map


# ------------------------------------------------------------------------------------------------ it raises


def test_each_seventh_launch_raises(
    start_misbehaving, connect, picture, read_refusal, check_logits, check_map, check_unharmed
):
    def check_failed(error):
        refusal = read_refusal(error)
        assert (refusal.code, refusal.reason, refusal.retry_seconds) == ("INTERNAL", "DEVICE", None)
        assert "RuntimeError: launch" in refusal.message

    def ask(stub, number, explain=()):
        """Whether it was answered; then the answer is right."""
        image = picture(number)
        try:
            (prediction,) = stub.Predict(asked(image, explain=explain), timeout=60).predictions
        except grpc.RpcError as error:
            check_failed(error)
            return False
        check_logits(prediction, image)
        for one in prediction.explanations:
            check_map(one, image)
        return True

    with start_misbehaving("model.arguments={every=7}") as own, connect(own.grpc) as stub:
        one_by_one = [ask(stub, number) for number in range(21)]
        first = one_by_one.index(False)  # the model was tried at start, too
        assert first < 7
        assert [number for number, good in enumerate(one_by_one) if not good] == [first, first + 7, first + 14]
        with ThreadPoolExecutor(8) as pool:
            crowd = list(pool.map(lambda number: ask(stub, number), range(120)))
        assert crowd.count(True) >= 120 * 6 / 7 - 1
        explained = [ask(stub, number, [RISE]) for number in range(12)]
        assert {*explained} == {True, False}
        check_unharmed_but_for_chance(check_unharmed, own, asked(picture(0)))
        failed = [entry for entry in own.log if entry["event"] == "request_failed"]
        assert len(failed) == [*one_by_one, *crowd, *explained].count(False)
        assert all("RuntimeError: launch" in entry["exception"] for entry in failed)


def check_unharmed_but_for_chance(check_unharmed, server, request):
    """Each seventh launch raises, but no two in a row."""
    with contextlib.suppress(grpc.RpcError):
        check_unharmed(server, request)
        return
    check_unharmed(server, request)


def test_a_poisoned_picture_fails_alone(
    server, stub, picture, read_refusal, check_logits, check_unharmed, read_metrics
):
    """Those that share its launches are run again without it."""
    images = [picture(number, "raise" if number in (3, 8) else None) for number in range(12)]
    before = read_metrics(server.http)
    calls = [stub.Predict.future(asked(image), timeout=60) for image in images]
    for number, (call, image) in enumerate(zip(calls, images, strict=True)):
        error, code = code_of(call)
        if number in (3, 8):
            refusal = read_refusal(error)
            assert (code, refusal.reason) == ("INTERNAL", "DEVICE")
            assert "the picture is poisoned" in refusal.message
        else:
            check_logits(call.result().predictions[0], image)
    check_unharmed(server, asked(picture(0)))
    after = read_metrics(server.http)
    launches = after["xai_launches_total", "forward"] - before["xai_launches_total", "forward"]
    assert launches - 1 < 10, "no two pictures shared a launch, so that this says nothing"


@pytest.mark.parametrize("explanation", [RISE, GRADCAM], ids=["rise", "gradcam"])
def test_a_poisoned_explanation_fails_alone(
    explanation, server, stub, picture, read_refusal, check_logits, check_map, check_unharmed
):
    images = [picture(number, "raise when explained" if number == 2 else None) for number in range(6)]
    calls = [stub.Predict.future(asked(image, explain=[explanation]), timeout=60) for image in images]
    poisoned = stub.PredictStream(streamed(images[2], explain=[explanation]), timeout=60)
    for number, (call, image) in enumerate(zip(calls, images, strict=True)):
        error, code = code_of(call)
        if number == 2:
            assert (code, read_refusal(error).reason) == ("INTERNAL", "DEVICE")
        else:
            check_map(call.result().predictions[0].explanations[0], image)
    check_logits(next(poisoned).predicted.predictions[0], images[2])
    with pytest.raises(grpc.RpcError) as caught:
        list(poisoned)
    assert read_refusal(caught.value).code == "INTERNAL"
    check_unharmed(server, asked(picture(0)))


# ------------------------------------------------------------------------------------------------ it answers nonsense


def test_nan_for_a_picture_fails_its_request_and_names_it(server, stub, picture, refused, check_logits, check_unharmed):
    good = [picture(number) for number in range(4)]
    bad = picture(9, "nan")
    calls = [stub.Predict.future(asked(image), timeout=60) for image in good]
    refusal = refused(stub.Predict, asked(good[0], bad, good[1]))
    refusal.check("INTERNAL", "DEVICE", "images[1]")
    assert "NaN" in refusal.message
    refused(stub.PredictStream, streamed(bad, explain=[RISE])).check("INTERNAL", "DEVICE", "request.images[0]")
    for call, image in zip(calls, good, strict=True):
        check_logits(call.result(timeout=60).predictions[0], image)
    check_unharmed(server, asked(picture(0)))


@pytest.mark.parametrize("explanation", [RISE, GRADCAM], ids=["rise", "gradcam"])
def test_nan_in_an_explanation_withholds_its_map(
    explanation, server, stub, picture, check_logits, check_map, check_unharmed, read_metrics
):
    counted = ("xai_maps_total", explanation.explainer, "not_finite")
    before = read_metrics(server.http)[counted]
    images = [picture(0), picture(1, "nan when explained"), picture(2)]
    answer = stub.Predict(asked(*images, explain=[explanation]), timeout=60)
    last = {}
    for event in stub.PredictStream(streamed(*images, explain=[explanation]), timeout=60):
        if event.HasField("explained"):
            last[event.explained.image_index] = event.explained.explanation
    for number, (prediction, image) in enumerate(zip(answer.predictions, images, strict=True)):
        check_logits(prediction, image)
        for one in (prediction.explanations[0], last[number]):
            assert one.status == pb.EXPLANATION_STATUS_COMPLETE
            if number == 1:
                assert [each.status for each in one.maps] == [pb.MAP_STATUS_NOT_FINITE]
                assert one.maps[0].WhichOneof("map") is None
                assert not one.maps[0].HasField("standard_error")
            else:
                check_map(one, image)
    assert read_metrics(server.http)[counted] == before + 2
    check_unharmed(server, asked(picture(0)))


def test_nan_in_an_explanation_that_is_cut_short(stub, picture):
    """What it had in hand when its budget ended is no better than the whole."""
    hurried = pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=100_000))
    hurried.budget.FromMilliseconds(700)
    (one,) = stub.Predict(asked(picture(1, "nan when explained"), explain=[hurried]), timeout=60).predictions
    explanation = one.explanations[0]
    assert explanation.status == pb.EXPLANATION_STATUS_TRUNCATED
    assert [each.status for each in explanation.maps] == [pb.MAP_STATUS_NOT_FINITE]
    assert explanation.maps[0].WhichOneof("map") is None


# ------------------------------------------------------------------------------------------------ it hangs


def health(address):
    """What gRPC's health service says; its code if it is gone."""
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError as error:
            return error.code().name
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


@pytest.fixture
def probe(get):
    """What a path says: its HTTP status, or "gone"."""

    def probe(address, path):
        try:
            return get(address, path)[0]
        except OSError:
            return "gone"

    return probe


@pytest.mark.parametrize("poison", ["hang", "hang when explained"])
def test_a_launch_that_does_not_come_back(
    poison, start_misbehaving, connect, picture, read_refusal, check_logits, eventually, probe, read_metrics
):
    """All callers are told soon, probes say so, and the process ends though its device thread cannot."""
    explain = [RISE] if poison == "hang when explained" else []
    with start_misbehaving(f"server.hang_seconds={HANG_SECONDS}") as own, connect(own.grpc) as stub:
        busy = pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=2000))
        (prediction,) = stub.Predict(asked(picture(0), explain=[busy]), timeout=60).predictions
        elapsed = prediction.explanations[0].elapsed.ToNanoseconds() / 1e9
        assert elapsed > HANG_SECONDS, "many quick launches are no hang; but these were done too soon to tell"
        assert probe(own.http, "/healthz") == probe(own.http, "/readyz") == 200
        assert health(own.grpc) == "SERVING"

        streams = [stub.PredictStream(streamed(picture(number), explain=[ENDLESS])) for number in range(2)]
        for number, stream in enumerate(streams):
            check_logits(next(stream).predicted.predictions[0], picture(number))
        others = [stub.Predict.future(asked(picture(number), explain=[ENDLESS])) for number in range(3)]
        eventually(lambda: read_metrics(own.http)["xai_open_explanations",] == 5)
        started = time.monotonic()
        hung = stub.Predict.future(asked(picture(5, poison), explain=explain))
        time.sleep(0.3)
        late = [stub.Predict.future(asked(picture(number))) for number in range(3)]
        with ThreadPoolExecutor() as pool:
            errors = [pool.submit(failure, stream) for stream in streams]
            errors = [*(error.result(30) for error in errors), *(call.exception(30) for call in (hung, *others, *late))]
        assert time.monotonic() - started < HANG_SECONDS + 10
        for error in errors:
            assert error is not None, "it was answered"
            refusal = read_refusal(error)
            assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "DEVICE_LOST")
            assert "has not come back" in refusal.message
        eventually(lambda: probe(own.http, "/healthz") in (503, "gone"))
        eventually(lambda: probe(own.http, "/readyz") in (503, "gone"))
        eventually(lambda: health(own.grpc) in ("NOT_SERVING", "UNAVAILABLE"))
        assert own.wait() == 1
        assert time.monotonic() - started < HANG_SECONDS + 15
    (lost,) = (entry for entry in own.log if entry["event"] == "device_lost")
    assert "has not come back" in lost["error"]
    assert own.other_output == []


def failure(stream):
    """The error that a stream ends with."""
    try:
        for _ in stream:
            pass
    except grpc.RpcError as error:
        return error
    return None


def test_a_reader_who_dawdles_does_not_keep_a_hanging_server_alive(
    start_misbehaving, connect, picture, read_metrics, eventually
):
    """It cannot be told before it reads, and it may never."""
    every_class = pb.Targets(top_count=5)
    rise = pb.RiseParameters(mask_count=50_000)
    wanted = [
        pb.ExplanationRequest(explainer="rise", name=f"{number}", targets=every_class, rise=rise) for number in range(4)
    ]
    request = streamed(picture(0), explain=wanted)
    request.progress_interval.FromMilliseconds(20)
    overrides = (f"server.hang_seconds={HANG_SECONDS}", "server.drain_seconds=20")
    with start_misbehaving(*overrides) as own, connect(own.grpc, SMALL_WINDOW) as stub:
        dawdled = stub.PredictStream(request)
        assert next(dawdled).HasField("predicted")
        eventually(lambda: read_metrics(own.http)["xai_launch_rows_total", "masked_forward"] > 1000)
        started = time.monotonic()
        hung = stub.Predict.future(asked(picture(1, "hang")))
        assert hung.exception(30).code() == grpc.StatusCode.UNAVAILABLE
        assert own.wait() == 1
        assert time.monotonic() - started < HANG_SECONDS + 15
    assert own.other_output == []
