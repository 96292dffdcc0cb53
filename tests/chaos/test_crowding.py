"""Callers who want more than their part, or never take what they asked for: others go on as if they were not there."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc

pytestmark = pytest.mark.timed

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
CLASSES = 2000
"""So many that no window of HTTP/2 holds an answer with all of them."""

STALL_SECONDS = 1


@pytest.fixture(scope="module")
def server(start_misbehaving):
    overrides = (
        f"server.stall_seconds={STALL_SECONDS}",
        "server.max_calls=400",
        "evaluator.sample_rate=1",
        "evaluator.interval_seconds=3600",  # of one sample after the other, the device would not be seen idle
        "evaluator.metrics=['localization/iosr']",
        f"model.arguments={{classes={CLASSES}}}",
    )
    with start_misbehaving(*overrides) as running:
        yield running


@pytest.fixture(scope="module")
def stub(server, connect):
    with connect(server.grpc, *OWN_CONNECTION) as stub:
        yield stub


@pytest.fixture
def served(stub, picture):
    """That plain predictions are served: one, a request of many, and many requests at a time."""

    def predict(count):
        return len(stub.Predict(pb.PredictRequest(images=[picture(0)] * count), timeout=20).predictions)

    def served():
        assert [predict(1), predict(16)] == [1, 16]
        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(predict, [1] * 64)) == [1] * 64

    return served


def test_a_flood_of_explanations(server, connect, picture, served, check_unharmed, eventually, read_metrics, allowance):
    """Of one picture each: as many of them as the server takes, for as long as it likes."""
    rise = pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=10_000))
    with connect(server.grpc, *OWN_CONNECTION) as other:
        calls = [other.Predict.future(pb.PredictRequest(images=[picture(1)], explanations=[rise])) for _ in range(300)]
        streams = [
            other.PredictStream(
                pb.PredictStreamRequest(request=pb.PredictRequest(images=[picture(2)], explanations=[rise]))
            )
            for _ in range(20)
        ]
        eventually(lambda: sum(call.done() for call in calls) > 40)
        served()
        lag = lag_of(read_metrics(server.http))
        time.sleep(1.5)
        metrics = read_metrics(server.http)
        late, looks = (after - before for after, before in zip(lag_of(metrics), lag, strict=True))
        assert looks
        assert late / looks < allowance(0.05), "the event loop waits for explanations"
        assert metrics["xai_open_explanations",] > 50, "the flood has run off"
        assert metrics["xai_open_images",] < 20
        for call in calls + streams:
            call.cancel()
    check_unharmed(server, pb.PredictRequest(images=[picture(0)]))


def test_streams_and_answers_that_nobody_reads(
    server, connect, picture, served, eventually, read_metrics, check_unharmed
):
    """Each on a connection of its own, whose window is full."""
    whole = pb.PredictRequest(images=[picture(0)] * 4, top_k=CLASSES)
    with contextlib.ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(server.grpc, OWN_CONNECTION)) for _ in range(16)]
        idle = [
            pb_grpc.ExplanationServiceStub(one).PredictStream(pb.PredictStreamRequest(request=whole))
            for one in channels
        ]
        # An answer read as if it were a stream waits until somebody asks for it.
        idle += [one.unary_stream("/xai.v1.ExplanationService/Predict")(whole.SerializeToString()) for one in channels]
        served()
        eventually(lambda: sum(entry["event"] == "stalled" for entry in server.log) == 2 * len(channels))
        assert read_metrics(server.http)["xai_open_images",] == 0
        check_unharmed(server, pb.PredictRequest(images=[picture(0)]))
        for call in (*idle[:2], *idle[-2:]):
            with pytest.raises(grpc.RpcError) as caught:
                list(call)
            assert caught.value.code() == grpc.StatusCode.CANCELLED, "it was ended, not forgotten"


def lag_of(metrics):
    """The seconds by which the event loop was late so far, and how often it was looked at."""
    return [metrics[f"xai_event_loop_lag_seconds_{name}",] for name in ("sum", "count")]


HOSTILE = {
    "axes": lambda: predict(pb.Image(model_input=pb.Tensor(dtype=1, shape=[2**62] * 20_000, data=b"x"))),
    "more axes": lambda: predict(pb.Image(pixels=pb.Tensor(dtype=3, shape=[-1] * 1_000_000))),
    "pictures": lambda: predict(*[pb.Image()] * 2_000_000),
    "classes": lambda: predict(explain=[explained(explainer="rise", targets=pb.Targets(class_ids=[1] * 2_000_000))]),
    "explanations": lambda: predict(explain=[explained()] * 2_000_000),
    "a name": lambda: predict(explain=[explained(explainer="x" * 10_000_000)]),
    "boxes": lambda: report(boxes=[pb.Region()] * 2_000_000),
    "corners": lambda: report(objects=[pb.GroundTruthObject(polygon=pb.Polygon(points=[pb.Point()] * 2_000_000))]),
    "labels": lambda: report(labels=["x"] * 2_000_000),
    "a label": lambda: report(labels=["x" * 10_000_000]),
}
"""Makes each when it is asked for: they take seconds."""


def predict(*images, explain=()):
    return "Predict", pb.PredictRequest(images=images or [pb.Image()], explanations=explain)


def explained(**fields):
    return pb.ExplanationRequest(**fields)


def report(**fields):
    return "ReportGroundTruth", pb.ReportGroundTruthRequest(request_id="a", **fields)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sizes(server, stub, picture, refused, allowance, name):
    """Another caller's predictions do not notice. All that a request of megabytes costs is its way through a socket."""
    plain = pb.PredictRequest(images=[picture(0)])
    longest, stop = [0.0], threading.Event()
    method, request = HOSTILE[name]()
    message = request.SerializeToString()  # once, since it keeps this process from anything else

    def ask():
        while not stop.is_set():
            started = time.monotonic()
            stub.Predict(plain, timeout=20)
            longest[0] = max(longest[0], time.monotonic() - started)

    with grpc.insecure_channel(server.grpc, OWN_CONNECTION) as other, ThreadPoolExecutor(1) as pool:
        send = other.unary_unary(f"/xai.v1.ExplanationService/{method}")
        asking = pool.submit(ask)
        try:
            for _ in range(3):
                refusal = refused(send, message, timeout=20)
                assert refusal.code == "INVALID_ARGUMENT", refusal
                assert len(refusal.message) < 700
        finally:
            stop.set()
        asking.result(20)
    assert longest[0] < allowance(0.5)
    assert max(len(str(entry)) for entry in server.log) < 5000


def test_crowds_at_other_doors(server, stub, connect, picture, served, eventually, check_unharmed):
    """Reports with large masks, descriptions of the model, watchers of its health, and readers of its contract."""
    answer = stub.Predict(pb.PredictRequest(images=[picture(0)], request_id="masked"), timeout=20)
    assert answer.sampled
    masks = [pb.GroundTruthObject(mask_png=b"\x89PNG\r\n\x1a\n" + bytes(150_000))] * 30
    report = pb.ReportGroundTruthRequest(request_id="masked", objects=masks)
    with contextlib.ExitStack() as stack:
        # As many connections as streams of one may need.
        channel, *more = [stack.enter_context(grpc.insecure_channel(server.grpc, OWN_CONNECTION)) for _ in range(4)]
        other = pb_grpc.ExplanationServiceStub(channel)
        reports = [other.ReportGroundTruth.future(report, timeout=30) for _ in range(40)]
        infos = [other.GetModelInfo.future(pb.GetModelInfoRequest(), timeout=30) for _ in range(100)]
        health = [health_pb2_grpc.HealthStub(one) for one in more]
        watched = health_pb2.HealthCheckRequest(service="x" * 1000)
        watches = [health[number % 3].Watch(watched) for number in range(450)]
        reading = reflection_pb2_grpc.ServerReflectionStub(channel)
        served()
        codes = {call.exception(30).code() for call in reports}
        assert codes <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert grpc.StatusCode.INVALID_ARGUMENT in codes
        infos_codes = {call.code() for call in infos}
        assert infos_codes <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        eventually(lambda: sum(watch.done() for watch in watches) >= 50)
        refused = [watch for watch in watches if watch.done()]
        assert {watch.code() for watch in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(refused) == 50
        with pytest.raises(grpc.RpcError):
            list(reading.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")])))
        served()
        for watch in watches:
            watch.cancel()
        eventually(
            lambda: list(reading.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")])))
        )
    check_unharmed(server, pb.PredictRequest(images=[picture(0)]))


def test_more_connections_than_the_server_takes(start_misbehaving, picture):
    """They are closed at once, and taken when others have gone."""
    plain = pb.PredictRequest(images=[picture(0)])
    with start_misbehaving("server.max_calls=3") as own, contextlib.ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(own.grpc, OWN_CONNECTION)) for _ in range(4)]
        *taken, late = [pb_grpc.ExplanationServiceStub(channel) for channel in channels]
        assert [len(stub.Predict(plain, timeout=20).predictions) for stub in taken] == [1] * 3
        with pytest.raises(grpc.RpcError) as caught:
            late.Predict(plain, timeout=20)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        channels[0].close()
        assert late.Predict(plain, timeout=20, wait_for_ready=True).predictions
