"""Around every call: whose id it goes by."""

import asyncio
import contextlib
from types import SimpleNamespace

import grpc
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from xai_proto import explanation_pb2 as pb
from xai_sidecar.engine.trace import Trace, current_trace
from xai_sidecar.errors import InvalidRequestError
from xai_sidecar.rpc.interceptors import REQUEST_ID, CallInterceptor, received, request_id_of
from xai_sidecar.serving.call_records import CallRecords
from xai_sidecar.telemetry import Telemetry


class Call:
    """A call's context."""

    def __init__(self, **metadata):
        self._given = tuple(metadata.items())
        self._trailing = ()
        self.written = []

    def invocation_metadata(self):
        return tuple((name.replace("_", "-"), value) for name, value in self._given)

    def set_trailing_metadata(self, metadata):
        self._trailing = metadata

    def trailing_metadata(self):
        return self._trailing

    def time_remaining(self):
        return None

    async def write(self, message):
        self.written.append(message)


async def answered(method, request, context):
    """Calls a method that answers with the id that the call goes by."""

    async def predict(request, context):
        assert received().byte_count == request.ByteSize()
        return pb.PredictResponse(request_id=request_id_of(context))

    async def stream(request, context):
        assert received().byte_count == request.ByteSize()
        yield pb.PredictStreamResponse(request_id=request_id_of(context))

    async def continuation(details):
        if method == "PredictStream":
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(predict)

    records = CallRecords(Telemetry(CollectorRegistry(), []))
    interceptor = CallInterceptor(records)
    details = SimpleNamespace(method=f"/xai.v1.ExplanationService/{method}")
    handler = await interceptor.intercept_service(continuation, details)
    if handler.response_streaming:
        await handler.unary_stream(request.SerializeToString(), context)
        answer = pb.PredictStreamResponse.FromString(context.written.pop()).request_id
    else:
        answer = pb.PredictResponse.FromString(
            await handler.unary_unary(request.SerializeToString(), context)
        ).request_id
    assert context.trailing_metadata() == ((REQUEST_ID, answer),)
    assert await records.finished(1)
    return answer


@pytest.mark.parametrize("method", ["Predict", "PredictStream"])
async def test_a_call_goes_by_the_requests_own_id(method):
    def asked(request_id):
        request = pb.PredictRequest(request_id=request_id)
        return request if method == "Predict" else pb.PredictStreamRequest(request=request)

    assert await answered(method, asked("mine"), Call(x_request_id="theirs")) == "mine"
    assert await answered(method, asked(""), Call(x_request_id="theirs")) == "theirs"
    assert await answered(method, asked("not good"), Call(x_request_id="theirs")) == "theirs"
    made_up = await answered(method, asked(""), Call())
    assert len(made_up) == 32
    assert await answered(method, asked("not good"), Call(x_request_id="not good")) != made_up


async def ask(end, context, interceptor):
    """Calls a method that ends as given: an exception to raise, or nothing; gives the method's name."""
    method = "PredictStream" if end == "stream" else "Predict"

    async def predict(request, context):
        if isinstance(end, BaseException):
            raise end
        return pb.PredictResponse()

    async def stream(request, context):
        yield pb.PredictStreamResponse()

    async def continuation(details):
        if method == "PredictStream":
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(predict)

    details = SimpleNamespace(method=f"/xai.v1.ExplanationService/{method}")
    handler = await interceptor.intercept_service(continuation, details)
    await (handler.unary_stream if method == "PredictStream" else handler.unary_unary)(b"", context)


class Watched(Call):
    """A call's context that looks, when the call's end leaves by it, at what is told of the call by then."""

    def __init__(self, look):
        super().__init__()
        self._look = look

    async def abort(self, code, message, trailing_metadata):
        self._look(code)
        raise grpc.aio.AbortError


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("unary", "OK"),
        ("stream", "OK"),
        (InvalidRequestError("no"), "INVALID_ARGUMENT"),
        (ZeroDivisionError(), "INTERNAL"),
    ],
    ids=["unary", "stream", "refused", "failed"],
)
async def test_a_call_is_told_of_before_its_end_leaves_and_counts_until_then(end, code):
    """Nothing is awaited between a handler's return and the answer's leaving; its error leaves by `abort`."""
    registry = CollectorRegistry()
    records = CallRecords(Telemetry(registry, []))
    interceptor = CallInterceptor(records)
    seen = []

    def look(_=None):
        method = "PredictStream" if end == "stream" else "Predict"
        told = [(entry["method"], entry["code"]) for entry in logs if entry["event"] == "request"]
        counted = registry.get_sample_value("xai_requests_total", {"method": method, "code": code})
        seen.append((told == [(method, code)], counted, records.count))

    with capture_logs() as logs:
        with contextlib.suppress(grpc.aio.AbortError):
            await ask(end, Watched(look), interceptor)
            look()
        assert seen == [(True, 1.0, 1)]
        assert await records.finished(1)
    assert [entry["event"] for entry in logs].count("request") == 1


class Collecting:
    """A tracer that collects the names of steps, by the value of a caller's metadata."""

    def __init__(self):
        self.ended_steps = {}

    def begin(self, method, metadata):
        return None if metadata.get("unsampled") else Trace(metadata["caller"])

    def ended(self, trace):
        assert trace.name not in self.ended_steps
        self.ended_steps[trace.name] = [step.name for step in trace.steps]


async def test_a_traced_call_has_its_steps_until_the_transport_has_the_answer():
    tracer = Collecting()
    interceptor = CallInterceptor(CallRecords(Telemetry(CollectorRegistry(), [])), tracer)
    seen = []

    async def call(caller, request=b"", fails=False, **metadata):
        async def predict(request, context):
            seen.append(current_trace())
            if fails:
                raise InvalidRequestError("no")
            return pb.PredictResponse()

        async def continuation(details):
            return grpc.unary_unary_rpc_method_handler(predict)

        given = tuple({"caller": caller, **metadata}.items())
        details = SimpleNamespace(method="/xai.v1.ExplanationService/Predict", invocation_metadata=given)
        handler = await interceptor.intercept_service(continuation, details)
        context = Call()
        context.abort = aborted
        await handler.unary_unary(request, context)
        assert caller not in tracer.ended_steps  # it has still to be sent

    async def aborted(*_, **__):
        raise AbortError

    ends = {"fine": {}, "refused": {"fails": True}, "malformed": {"request": b"\xff"}, "other": {"unsampled": "1"}}
    for caller, options in ends.items():
        (end,) = await asyncio.gather(asyncio.create_task(call(caller, **options)), return_exceptions=True)
        assert end is None or isinstance(end, AbortError), end
    await asyncio.sleep(0)
    assert tracer.ended_steps == {
        "fine": ["receive", "parse", "answer", "send"],
        "refused": ["receive", "parse", "send"],
        "malformed": ["receive", "send"],
    }
    assert [trace and trace.name for trace in seen] == ["fine", "refused", None]
    assert current_trace() is None


class AbortError(Exception):
    """What grpc.aio raises to end a call."""


@pytest.mark.parametrize("method", ["Predict", "PredictStream"])
async def test_what_a_named_call_asks_is_told_from_other_questions(method):
    """The same bytes have the same fingerprint, and others another; who has not named a call cannot repeat it."""
    seen = []

    async def predict(request, context):
        seen.append(received().fingerprint)
        return pb.PredictResponse()

    async def stream(request, context):
        seen.append(received().fingerprint)
        yield pb.PredictStreamResponse()

    async def continuation(details):
        if method == "PredictStream":
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(predict)

    interceptor = CallInterceptor(CallRecords(Telemetry(CollectorRegistry(), [])))
    details = SimpleNamespace(method=f"/xai.v1.ExplanationService/{method}")
    for picture, context in ((b"a", "one"), (b"b", "one"), (b"a", "other"), (b"a", None)):
        request = pb.PredictRequest(images=[pb.Image(encoded=picture)])
        message = request if method == "Predict" else pb.PredictStreamRequest(request=request)
        handler = await interceptor.intercept_service(continuation, details)
        handle = handler.unary_stream if method == "PredictStream" else handler.unary_unary
        await handle(message.SerializeToString(), Call(x_request_id=context) if context else Call())
    first, another, again, unnamed = seen
    assert first == again
    assert first
    assert another not in (first, "")
    assert unnamed == ""
