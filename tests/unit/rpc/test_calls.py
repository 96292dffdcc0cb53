"""Calls over sockets: how long they may take to arrive, altogether, and to be read; how many there may be."""

import asyncio
import contextlib
import gc
import time

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc
from xai_sidecar.config import ServerConfig
from xai_sidecar.errors import ShuttingDownError
from xai_sidecar.rpc.interceptors import CallInterceptor
from xai_sidecar.rpc.keepers import task_factory
from xai_sidecar.serving.call_records import CallRecords
from xai_sidecar.telemetry import Telemetry

LARGE = 300_000
"""Bytes of an answer that no window of HTTP/2 holds."""

PREDICT = "/xai.v1.ExplanationService/Predict"


class Answers(pb_grpc.ExplanationServiceServicer):
    """Answers as long as it is asked to by `top_k`; a request id has it wait.

    Attributes:
        waiting: Calls that have waited, or do.
        ended: Calls that have ended, one way or another.
    """

    def __init__(self):
        self.waiting = self.ended = 0

    async def _wait(self):
        self.waiting += 1
        await asyncio.sleep(30)

    async def Predict(self, request, context):  # noqa: N802
        try:
            if request.request_id == "wait":
                await self._wait()
            return pb.PredictResponse(model_version="x" * request.top_k)
        finally:
            self.ended += 1

    async def PredictStream(self, request, context):  # noqa: N802
        try:
            yield pb.PredictStreamResponse(request_id="x" * request.request.top_k)
            if request.request.request_id == "wait":
                await self._wait()
            yield pb.PredictStreamResponse(finished=pb.StreamFinished())
        finally:
            self.ended += 1


@pytest.fixture
def serving():
    """Serves `Answers` with some limits; yields the servicer, the calls in progress and a function that connects."""

    @contextlib.asynccontextmanager
    async def serving(**limits):
        asyncio.get_running_loop().set_task_factory(task_factory)
        limits = ServerConfig(**limits)
        calls, servicer = CallRecords(Telemetry(CollectorRegistry(), []), limits), Answers()
        size = [("grpc.max_receive_message_length", limits.max_message_bytes)]
        server = grpc.aio.server(interceptors=[CallInterceptor(calls)], options=size)
        pb_grpc.add_ExplanationServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with contextlib.AsyncExitStack() as channels:

            async def connect():
                options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
                return await channels.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}", options))

            yield servicer, calls, connect
        await server.stop(0)

    return serving


def sent(call):
    """Has a call sent, without reading its answer."""
    sending = asyncio.ensure_future(call.initial_metadata())
    sending.add_done_callback(lambda done: done.cancelled() or done.exception())


async def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def reason_of(error):
    """The reason and the fields that a failed call tells."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


async def failed(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


# ------------------------------------------------------------------------------------------------ who does not read


async def test_a_stream_that_nobody_reads_is_ended(serving):
    async with serving(stall_seconds=0.3) as (servicer, calls, connect):
        stub = pb_grpc.ExplanationServiceStub(await connect())
        other = pb_grpc.ExplanationServiceStub(await connect())
        with capture_logs() as logs:
            idle = stub.PredictStream(pb.PredictStreamRequest(request=pb.PredictRequest(top_k=LARGE)))
            sent(idle)
            await until(lambda: calls._unread.byte_count > LARGE)
            assert servicer.ended == 0
            assert (await other.Predict(pb.PredictRequest())).model_version == "", "others do not wait for it"
            await until(lambda: servicer.ended == 2 and calls._unread.byte_count == 0)
        stalled = [entry for entry in logs if entry["event"] == "stalled"]
        assert [entry["log_level"] for entry in stalled] == ["warning"]
        assert [(e["method"], e["code"]) for e in logs if e["event"] == "request"][-1] == (
            "PredictStream",
            "DEADLINE_EXCEEDED",
        )
        await other.Predict(pb.PredictRequest())  # grpc.aio holds the last call until another one comes
        gc.collect()
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # it is over for its caller, too, and not only for us
            await asyncio.wait_for(asyncio.ensure_future(_read(idle)), 5)
        assert caught.value.code() == grpc.StatusCode.CANCELLED


async def _read(call):
    return [event async for event in call]


async def test_an_answer_that_nobody_reads_is_given_up(serving):
    """The method has long returned; what it answered waits at the gate."""
    async with serving(stall_seconds=0.3) as (servicer, calls, connect):
        channel = await connect()
        # A stream's call reads when it is told to, where a plain call reads at once.
        raw = channel.unary_stream(PREDICT)
        idle = raw(pb.PredictRequest(top_k=LARGE).SerializeToString())
        sent(idle)
        with capture_logs() as logs:
            await until(lambda: calls._unread.byte_count > LARGE)
            assert servicer.ended == 1
            await until(lambda: calls._unread.byte_count == 0)
        assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == ["stalled"]
        other = pb_grpc.ExplanationServiceStub(await connect())
        await other.Predict(pb.PredictRequest())
        gc.collect()
        with pytest.raises(grpc.aio.AioRpcError):
            await asyncio.wait_for(asyncio.ensure_future(_read(idle)), 5)


async def test_who_leaves_what_was_written_is_no_failure(serving):
    async with serving() as (servicer, calls, connect):
        stub = pb_grpc.ExplanationServiceStub(await connect())
        with capture_logs() as logs:
            for number in range(5):
                idle = stub.PredictStream(pb.PredictStreamRequest(request=pb.PredictRequest(top_k=LARGE)))
                sent(idle)
                await until(lambda: calls._unread.byte_count > LARGE)
                idle.cancel()
                await until(lambda count=number: servicer.ended > count and calls._unread.byte_count == 0)
            await until(lambda: len(logs) == 5)
        assert {(entry["event"], entry["code"]) for entry in logs} == {("request", "CANCELLED")}


async def test_who_reads_slowly_but_reads_is_waited_for(serving):
    """A large answer may take longer than a small one."""
    async with serving(stall_seconds=0.2) as (servicer, _, connect):
        stub = pb_grpc.ExplanationServiceStub(await connect())
        call = stub.PredictStream(pb.PredictStreamRequest(request=pb.PredictRequest(top_k=LARGE)))
        sent(call)
        await asyncio.sleep(1)
        assert servicer.ended == 0
        first, last = await _read(call)
        assert (len(first.request_id), last.WhichOneof("event")) == (LARGE, "finished")


async def test_too_much_that_is_not_read(serving):
    async with serving(queue_bytes=2**20, max_message_bytes=2**21) as (servicer, calls, connect):
        stub = pb_grpc.ExplanationServiceStub(await connect())
        other = pb_grpc.ExplanationServiceStub(await connect())
        request = pb.PredictStreamRequest(request=pb.PredictRequest(top_k=1_500_000))
        idle = [stub.PredictStream(request) for _ in range(2)]
        for call in idle:
            sent(call)
        await until(lambda: calls._unread.byte_count > 3_000_000)
        error = await failed(other.Predict(pb.PredictRequest()))
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert "bytes of answers wait to be read" in error.details()
        idle[0].cancel()
        await until(lambda: servicer.ended == 1)
        await other.Predict(pb.PredictRequest())
        idle[1].cancel()


async def test_an_answer_that_is_too_large_to_send(serving):
    async with serving(max_message_bytes=2**16) as (_, _, connect):
        stub = pb_grpc.ExplanationServiceStub(await connect())
        request = pb.PredictRequest(top_k=2**16)
        for call in (stub.Predict(request), _read(stub.PredictStream(pb.PredictStreamRequest(request=request)))):
            error = await failed(call)
            assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
            assert "but the server sends 65,536 in a message" in error.details()


# ------------------------------------------------------------------------------------------------ who does not send


async def test_a_request_that_does_not_arrive(serving):
    async with serving(stall_seconds=0.2, max_message_bytes=2**16) as (servicer, _, connect):
        channel = await connect()
        half = channel.stream_unary(PREDICT)()  # a caller who sends nothing at all, and does not say that it is done
        other = pb_grpc.ExplanationServiceStub(channel)
        sent(half)
        started = time.monotonic()
        await other.Predict(pb.PredictRequest())
        with capture_logs() as logs:
            await until(lambda: any(entry["event"] == "stalled" for entry in logs))
        await other.Predict(pb.PredictRequest())
        gc.collect()
        error = await asyncio.wait_for(failed(half), 5)
        assert error.code() == grpc.StatusCode.CANCELLED
        assert time.monotonic() - started >= 0.2
        assert servicer.ended == 2


async def test_many_requests_that_do_not_arrive(serving):
    """The longest make room, where each could become a message of the largest size."""
    async with serving(queue_bytes=2**20, max_message_bytes=2**20) as (_, calls, connect):
        calls._incoming._since = Aged(calls._incoming._since)
        methods = [(await connect()).stream_unary(PREDICT) for _ in range(4)]
        halves = [methods[number % 4]() for number in range(18)]
        for half in halves:
            sent(half)
            await asyncio.sleep(0.01)
        await until(lambda: len(calls._incoming._since) == 16)
        stub = pb_grpc.ExplanationServiceStub(await connect())
        await stub.Predict(pb.PredictRequest())
        gc.collect()
        await until(lambda: sum(half.done() for half in halves) == 3)
        ended = [half for half in halves if half.done()]
        assert [await half.code() for half in ended] == [grpc.StatusCode.CANCELLED] * 3
        await stub.Predict(pb.PredictRequest())
        for half in halves:
            half.cancel()
        await until(lambda: not calls._incoming._since)


class Aged(dict):
    """Of which all have been there for long."""

    def __setitem__(self, call, since):
        super().__setitem__(call, since - 60)


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05abc", b"\x0a\x02\x0a\x09", b"\x2a\x02\xc3\x28"])
async def test_bytes_that_are_no_message(serving, data):
    async with serving() as (servicer, _, connect):
        error = await failed((await connect()).unary_unary(PREDICT)(data))
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert "are no xai.v1.PredictRequest" in error.details()
        assert servicer.ended == 0


# ------------------------------------------------------------------------------------------------ how long, how many


@pytest.mark.parametrize("method", ["Predict", "PredictStream"])
async def test_the_longest_time_that_a_call_may_take(serving, method):
    async with serving(max_call_seconds=0.3) as (servicer, _, connect):
        stub = pb_grpc.ExplanationServiceStub(await connect())
        request = pb.PredictRequest(request_id="wait")
        started = time.monotonic()
        if method == "Predict":
            error = await failed(stub.Predict(request))
        else:
            error = await failed(_read(stub.PredictStream(pb.PredictStreamRequest(request=request))))
        assert 0.2 < time.monotonic() - started < 10
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.DEADLINE_EXCEEDED, "CALL_TOO_LONG")
        assert "0.3 s" in error.details()
        assert "server.max_call_seconds" in error.details()
        assert servicer.ended == 1


async def test_more_calls_than_the_server_takes(serving):
    async with serving(max_calls=3) as (servicer, _, connect):
        stub = pb_grpc.ExplanationServiceStub(await connect())
        waiting = [stub.Predict(pb.PredictRequest(request_id="wait")) for _ in range(3)]
        await until(lambda: servicer.waiting == 3)
        error = await failed(stub.Predict(pb.PredictRequest()))
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert "3 calls are in progress" in error.details()
        for call in waiting:
            call.cancel()
        await until(lambda: servicer.ended == 3)
        await stub.Predict(pb.PredictRequest())


async def test_calls_that_are_cut_off_are_told_so(serving):
    async with serving() as (servicer, calls, connect):
        stub = pb_grpc.ExplanationServiceStub(await connect())
        request = pb.PredictRequest(request_id="wait")
        call = asyncio.ensure_future(failed(stub.Predict(request)))
        stream = asyncio.ensure_future(failed(_read(stub.PredictStream(pb.PredictStreamRequest(request=request)))))
        await until(lambda: servicer.waiting == 2)
        assert not await calls.finished(0.01)
        calls.cut_off(ShuttingDownError("The server is shutting down. Send the request to another one."))
        for error in await asyncio.gather(call, stream):
            assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
            assert "another one" in error.details()
        assert await calls.finished(5)


# ------------------------------------------------------------------------------------------------ the log


async def test_what_the_log_says_of_a_request(serving):
    async with serving() as (_, _, connect):
        stub = pb_grpc.ExplanationServiceStub(await connect())
        plain = pb.PredictRequest(images=[pb.Image(encoded=b"x" * 100)] * 2)
        named = [pb.ExplanationRequest(explainer=name) for name in ("rise", "gradcam", "x" * 1_000)]
        request = pb.PredictRequest(explanations=named + named[:1] * 30)
        with capture_logs() as logs:
            await stub.Predict(plain)
            await stub.Predict(request)
            await _read(stub.PredictStream(pb.PredictStreamRequest(request=request)))
            await until(lambda: len(logs) == 3)
    first, second, third = logs
    assert (first["pictures"], first["bytes"], first["code"]) == (2, plain.ByteSize(), "OK")
    assert "explainers" not in first
    rises = ",".join(["rise"] * 13)
    assert second["explainers"] == f"rise,gradcam,{'x' * 32} …,{rises} and 17 more"
    assert {key: third[key] for key in ("method", "explainers", "pictures")} == {
        "method": "PredictStream",
        "explainers": second["explainers"],
        "pictures": 0,
    }
