"""Which calls are made again, when, and how often: against a real socket, by both clients."""

import socket
import struct
import threading
import time
from itertools import pairwise

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2

import xai_client
from xai_client.calls import MAX_ATTEMPTS, Connection
from xai_proto import explanation_pb2 as pb

RESOURCE_EXHAUSTED, UNAVAILABLE = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE
CALLS = [
    ("predict", (b"x",), "Predict"),
    ("predict_many", ([b"x"],), "Predict"),
    ("report_ground_truth", ("r", "cat"), "ReportGroundTruth"),
    ("model_info", (), "GetModelInfo"),
]


def info(reason):
    return error_details_pb2.ErrorInfo(domain="xai-sidecar", reason=reason)


def pixels():
    return np.zeros((5, 6, 3), np.uint8)


@pytest.fixture
def refusal(failure):
    """Makes what an xai-sidecar refuses with, and asks for the call again after so many seconds."""

    def make(seconds, code=RESOURCE_EXHAUSTED, reason="OVERLOADED", pushback=None):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(seconds * 1e9))
        pushback = str(round(seconds * 1000)) if pushback is None else pushback
        return failure(code, "full", (info(reason), retry), (("grpc-retry-pushback-ms", pushback),))

    return make


def short_stream(request):
    yield pb.PredictStreamResponse(predicted=pb.PredictResponse(predictions=[pb.Prediction()]))
    yield pb.PredictStreamResponse(finished=pb.StreamFinished())


# ------------------------------------------------------------------------------------------------ refusals


async def test_a_refused_call_is_made_again_when_the_server_says(fake, connect, refusal, cat):
    fake.script = [refusal(0.05)] * 3
    assert (await connect(fake.address).call("predict", cat)).classes
    assert len(fake.received) == 4
    arrivals = [each.arrived for each in fake.received]
    assert all(later - earlier >= 0.05 for earlier, later in pairwise(arrivals))


async def test_a_refused_stream_is_begun_again_too(fake, connect, refusal):
    fake.script = [refusal(0.2), short_stream]
    assert len(await connect(fake.address).stream(pixels())) == 2
    first, second = fake.received
    assert 0.2 <= second.arrived - first.arrived < 1
    assert first.metadata["x-request-id"] == second.metadata["x-request-id"]


async def test_a_refused_call_is_made_five_times_at_most(fake, connect, refusal):
    client = connect(fake.address)
    fake.script = [refusal(0.01)] * 20
    with pytest.raises(xai_client.OverloadedError) as caught:
        await client.call("predict", b"x")
    assert len(fake.received) == 5
    assert caught.value.retry_after == pytest.approx(0.01)
    with pytest.raises(xai_client.OverloadedError):
        await client.stream(b"x")
    assert len(fake.received) == 10


async def test_a_pushback_says_whether_and_when(fake, connect, refusal):
    """Also of what is repeated otherwise: a call that may be run twice, and a server that shuts down."""
    client = connect(fake.address)
    for pushback in ("-1", "soon"):
        for code, reason in ((UNAVAILABLE, "SHUTTING_DOWN"), (RESOURCE_EXHAUSTED, "OVERLOADED")):
            fake.received.clear()
            fake.script = [refusal(0.01, code, reason, pushback)] * 5
            with pytest.raises(xai_client.ServiceError) as caught:
                await client.call("model_info")
            assert (caught.value.reason, caught.value.retry_after) == (reason, pytest.approx(0.01))
            assert len(fake.received) == 1
    fake.received.clear()
    fake.script = [refusal(0.2, UNAVAILABLE, "STORE")]
    assert (await client.call("predict", pixels())).classes
    first, second = fake.received
    assert 0.2 <= second.arrived - first.arrived < 1.5


async def test_a_pushback_is_for_the_codes_that_gRPC_retries(fake, connect, refusal):  # noqa: N802
    fake.script = [refusal(0.01, grpc.StatusCode.INTERNAL, "DEVICE")] * 5
    with pytest.raises(xai_client.InternalError):
        await connect(fake.address).call("model_info")
    assert len(fake.received) == 1


async def test_a_server_that_is_shutting_down_is_tried_five_times(fake, connect, failure):
    fake.script = [failure(UNAVAILABLE, "draining", (info("SHUTTING_DOWN"),))] * 20
    with pytest.raises(xai_client.UnavailableError, match="draining"):
        await connect(fake.address).call("predict", b"x")
    assert len(fake.received) == 5
    assert len({each.metadata["x-request-id"] for each in fake.received}) == 1


async def test_every_call_gets_over_a_server_that_is_replaced(fake, connect, failure, cat):
    client = connect(fake.address)
    for method, arguments, wire in CALLS:
        fake.received.clear()
        fake.script = [failure(UNAVAILABLE, details=(info("SHUTTING_DOWN"),))]
        await client.call(method, *((cat,) if method == "predict" else ([cat],) if "many" in method else arguments))
        assert len(fake.requests(wire)) == 2
    fake.script = [failure(UNAVAILABLE, details=(info("SHUTTING_DOWN"),)), short_stream]
    assert len(await client.stream(cat)) == 2


async def test_a_large_request_is_repeated_too(fake, connect, failure):
    fake.script = [failure(UNAVAILABLE, details=(info("SHUTTING_DOWN"),))] * 2
    large = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    assert (await connect(fake.address).call("predict", large)).classes
    assert len(fake.received) == 3


# ----------------------------------------------------------------------------------------- what may have run


async def test_what_may_have_been_run_is_repeated_only_where_that_is_cheap(fake, connect, failure):
    """Nobody says whether the server has begun; a picture that ends servers must not go from one to the next."""
    client = connect(fake.address)
    untold = failure(UNAVAILABLE, "upstream reset")
    lost = failure(UNAVAILABLE, "The device hung.", (info("DEVICE_LOST"),))
    for refused in (untold, lost):
        for method, arguments, wire in CALLS:
            fake.received.clear()
            fake.script = [refused] if wire in ("ReportGroundTruth", "GetModelInfo") else [refused] * 9
            if len(fake.script) == 1:
                await client.call(method, *arguments)
                assert len(fake.requests(wire)) == 2
            else:
                with pytest.raises(xai_client.UnavailableError, match=refused.message):
                    await client.call(method, *arguments)
                assert len(fake.requests(wire)) == 1
        fake.script = [refused] * 9
        with pytest.raises(xai_client.UnavailableError, match=refused.message):
            await client.stream(b"x")
        assert len(fake.requests("PredictStream")) == 1
        fake.received.clear()


async def test_a_stream_that_breaks_after_its_first_event_is_not_begun_again(fake, connect, failure, refusal, answer):
    client = connect(fake.address)
    for broken in (failure(UNAVAILABLE, "gone"), refusal(0.01)):
        fake.received.clear()
        fake.script = [
            lambda request, broken=broken: iter([pb.PredictStreamResponse(predicted=answer(request.request)), broken])
        ]
        with pytest.raises(xai_client.ServiceError) as caught:
            await client.stream(pixels())
        assert caught.value.code == broken.code.name
        assert len(fake.received) == 1


class Resetting:
    """As much of an HTTP/2 server (RFC 9113) as it takes to read calls and to reset each, after a while."""

    SETTINGS, PING, RST_STREAM, HEADERS, ACK = 4, 6, 3, 1, 1

    def __init__(self, error_code, seconds):
        self.calls = 0
        self._error_code, self._seconds = error_code, seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, connection.makefile("rb") as stream:
            stream.read(24)  # the preface
            connection.sendall(self._frame(self.SETTINGS))
            while len(head := stream.read(9)) == 9:
                payload = stream.read(int.from_bytes(head[:3], "big"))
                kind, flags, number = head[3], head[4], int.from_bytes(head[5:], "big")
                if kind in (self.SETTINGS, self.PING) and not flags & self.ACK:
                    connection.sendall(self._frame(kind, self.ACK, 0, payload if kind == self.PING else b""))
                elif kind == self.HEADERS:
                    self.calls += 1
                    time.sleep(self._seconds)
                    connection.sendall(self._frame(self.RST_STREAM, 0, number, struct.pack(">I", self._error_code)))

    @staticmethod
    def _frame(kind, flags=0, number=0, payload=b""):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", number) + payload

    def close(self):
        self._listener.close()


@pytest.mark.parametrize(
    ("error_code", "error"),
    [
        (2, xai_client.InternalError),  # INTERNAL_ERROR
        (8, xai_client.CallCancelledError),  # CANCEL
        (11, xai_client.OverloadedError),  # ENHANCE_YOUR_CALM, of which gRPC's own retry policies make five runs
    ],
)
async def test_a_call_that_is_reset_while_it_runs_is_not_repeated(connect, error_code, error):
    peer = Resetting(error_code, 0.05)
    client = connect(peer.address, timeout=5)
    with pytest.raises(error):
        await client.call("predict", b"x")
    assert peer.calls == 1
    with pytest.raises(error):
        await client.stream(b"x")
    assert peer.calls == 2
    peer.close()


async def test_a_stream_that_is_refused_unseen_is_made_again(connect):
    peer = Resetting(7, 0.0)  # REFUSED_STREAM
    with pytest.raises(xai_client.UnavailableError):
        await connect(peer.address, timeout=5).call("predict", b"x")
    assert peer.calls >= 5
    peer.close()


# ----------------------------------------------------------------------------------------------- deadlines


async def test_a_refusal_is_reported_at_once_when_waiting_would_pass_the_deadline(fake, connect, refusal):
    fake.script = [refusal(25)] * 5
    start = time.monotonic()
    with pytest.raises(xai_client.OverloadedError):
        await connect(fake.address, timeout=20).call("predict", b"x")
    assert len(fake.received) == 1
    assert time.monotonic() - start < 10


async def test_a_stream_is_not_begun_again_after_its_deadline(fake, connect, refusal):
    fake.script = [refusal(1.2)] * 20
    with pytest.raises(xai_client.OverloadedError) as caught:
        await connect(fake.address).stream(b"x", timeout=2.2)
    raised = time.monotonic()
    assert len(fake.received) == 2
    assert raised - fake.received[-1].arrived < 1.0  # at once: a third one, or the deadline, would be waited for
    assert caught.value.retry_after == pytest.approx(1.2)


async def test_the_deadline_bounds_all_attempts_together(fake, connect, refusal, allowance):
    def slow(request):
        time.sleep(1.5)
        return pb.PredictResponse()

    fake.script = [refusal(0.1), refusal(0.1), slow]
    start = time.monotonic()
    with pytest.raises(xai_client.DeadlineError, match=r"0\.7 s") as caught:
        await connect(fake.address, timeout=0.7).call("predict", b"x", request_id="slow")
    assert 0.6 < time.monotonic() - start < 0.7 + allowance(0.4)
    assert caught.value.request_id == "slow"
    remaining = [each.time_remaining for each in fake.received]
    assert len(remaining) == 3
    assert remaining[0] > remaining[1] > remaining[2]
    assert remaining[2] < 0.55


class Gone(grpc.RpcError):
    """What a call raises whose server is away."""

    def code(self):
        return UNAVAILABLE

    def details(self):
        return "gone"

    def trailing_metadata(self):
        return ()


def test_a_watch_that_begins_again_keeps_its_deadline_and_has_all_its_attempts():
    call = Connection("127.0.0.1:1", None, (), False).lasting(30)
    left = [call.arguments()["timeout"] for _ in range(MAX_ATTEMPTS)]
    with pytest.raises(xai_client.UnavailableError):
        call.retry_delay(Gone())
    call.begin_again()
    left.append(call.arguments()["timeout"])
    assert left == sorted(left, reverse=True)
    assert 0 < left[-1] < 30
    assert call.retry_delay(Gone()) > 0
