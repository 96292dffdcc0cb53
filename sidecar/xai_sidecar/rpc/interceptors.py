"""Around every call: its record, the reading of its request, and its error as a google.rpc.Status with details."""

from __future__ import annotations

import asyncio
import secrets
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc

from xai_proto import explanation_pb2 as pb
from xai_proto import open_inference_pb2 as open_inference
from xai_proto import quality_pb2 as qpb
from xai_sidecar.engine.trace import mark, traced
from xai_sidecar.errors import SidecarError
from xai_sidecar.rpc.keepers import keepers
from xai_sidecar.rpc.messages import Reader
from xai_sidecar.rpc.status import status_metadata, status_of
from xai_sidecar.serving.call_records import AskedPredictions, CallRecord, CallRecords
from xai_sidecar.serving.calls import Call
from xai_sidecar.serving.request_ids import new_request_id, valid_request_id
from xai_sidecar.telemetry import METHODS, OPEN_INFERENCE_METHODS, QUALITY_METHODS
from xai_sidecar.telemetry.tracing import Tracer

REQUEST_ID = "x-request-id"
_SALT = secrets.token_bytes(16)
"""Makes fingerprints of requests what nobody outside can foresee."""

_SERVICES = ("/xai.v1.ExplanationService/", "/xai.v1.QualityService/", "/inference.GRPCInferenceService/")
_ID_FIELDS = {"ModelInfer": "id"}
"""The field of a request's id, where that is not `request_id`."""

_READERS = {
    "Predict": Reader(pb.PredictRequest),
    "PredictStream": Reader(pb.PredictStreamRequest),
    "ReportGroundTruth": Reader(pb.ReportGroundTruthRequest),
    "GetModelInfo": Reader(pb.GetModelInfoRequest),
    **{name: Reader(getattr(qpb, f"{name}Request")) for name in QUALITY_METHODS},
    **{name: Reader(getattr(open_inference, f"{name}Request")) for name in OPEN_INFERENCE_METHODS},
}


@dataclass(frozen=True)
class Received:
    """A request as it came.

    Attributes:
        byte_count: Its size; None where that is not known.
        fingerprint: Tells it from others of the same id; empty where its caller has not named it.
        describe: Adds what is asked for to the call's log line.
    """

    byte_count: int | None = None
    fingerprint: str = ""
    describe: Callable[[AskedPredictions], object] = lambda asked: None


_received: ContextVar[Received] = ContextVar("received", default=Received())  # noqa: B039 - it is frozen


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the calls of the contract's services; of others, health and reflection, it only bounds the number.

    Args:
        records: The calls in progress.
        tracer: Traces predictions; None for none.
    """

    def __init__(self, records: CallRecords, tracer: Tracer | None = None) -> None:
        self._records = records
        self._tracer = tracer
        self._others = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See `grpc.aio.ServerInterceptor`."""
        handler = await continuation(handler_call_details)
        method = contract_method(handler_call_details.method)
        if handler is None or method not in METHODS:
            return self._other(handler)
        call = self._records.receive(keepers())
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(handler.unary_stream, method, call))
        behave = self._unary(handler.unary_unary, method, call)
        if self._tracer is not None and method == "Predict":
            behave = _traced(behave, self._tracer, method, handler_call_details)
        return grpc.unary_unary_rpc_method_handler(behave)

    def _unary(self, behave: Any, method: str, call: Call) -> Any:
        async def wrapped(data: bytes, context: Any) -> bytes:
            async with self._around(data, context, method, call) as request:
                answer = self._sendable(await behave(request, context))
                call.sending(len(answer))
                mark("answer")
                return answer

        return wrapped

    def _streaming(self, behave: Any, method: str, call: Call) -> Any:
        async def wrapped(data: bytes, context: Any) -> None:
            async with self._around(data, context, method, call) as request:
                async with aclosing(behave(request, context)) as responses:
                    async for response in responses:
                        event = self._sendable(response)
                        await _write(event, context, call)
                call.sending(0)  # its status

        return wrapped

    def _other(self, handler: Any) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of another service; of its streams, which may stay open for ever, the number is bounded."""
        if handler is None or not handler.response_streaming:
            return handler  # type: ignore[no-any-return]
        if self._others >= self._records.limits.max_calls:
            if handler.request_streaming:
                return grpc.stream_stream_rpc_method_handler(_too_many)
            return grpc.unary_stream_rpc_method_handler(_too_many)
        task = asyncio.current_task()
        if task is not None:
            self._others += 1
            task.add_done_callback(self._other_ended)
        return handler  # type: ignore[no-any-return]

    def _other_ended(self, _: Any) -> None:
        self._others -= 1

    @asynccontextmanager
    async def _around(self, data: bytes, context: Any, method: str, call: Call) -> AsyncIterator[Any]:
        request_id = _named(context, _own_request_id(context))
        record = self._records.record(call, method, len(data), request_id, context.time_remaining)
        try:
            with record:
                request = _READERS[method].read(data)
                mark("parse")
                asked = request.request if method == "PredictStream" else request  # a stream's is inside
                if valid_request_id(own := getattr(asked, _ID_FIELDS.get(method, "request_id"), "")):
                    record.name(_named(context, own))
                named = isinstance(asked, pb.PredictRequest) and is_named(asked, context)
                _received.set(Received(len(data), _fingerprint(method, data) if named else "", _describing(record)))
                if isinstance(asked, pb.PredictRequest):
                    record.describe(asked)
                yield request
        except SidecarError as error:
            await _abort(context, record, call, error)
        finally:
            record.close()

    def _sendable(self, message: Any) -> bytes:
        """The encoded message.

        Raises:
            InvalidRequestError: It is larger than the server sends.
        """
        data: bytes = message.SerializeToString()
        self._records.check_size(len(data))
        return data


def _traced(behave: Any, tracer: Tracer, method: str, details: grpc.HandlerCallDetails) -> Any:
    """A handler whose calls are traced, until the transport has taken the answer."""
    trace = tracer.begin(method, dict(details.invocation_metadata or ()))
    if trace is None:
        return behave

    def sent(_: Any) -> None:
        trace.mark("send")
        tracer.ended(trace)

    async def wrapped(data: bytes, context: Any) -> bytes:
        trace.mark("receive")
        tasks = (keeper() for keeper in keepers())
        task = next((task for task in tasks if task is not None), None) or asyncio.current_task()
        if task is not None:
            task.add_done_callback(sent)
        with traced(trace):
            answer: bytes = await behave(data, context)
            return answer

    return wrapped


def _describing(record: CallRecord) -> Callable[[AskedPredictions], object]:
    """Describes a call to its record, which is not kept for it.

    A task's context would keep the record, that the task, and that the context: grpc.aio ends a call whose caller does
    not read only when nothing refers to it any more, and such a circle waits for the garbage collector.
    """
    known = weakref.ref(record)

    def describe(asked: AskedPredictions) -> None:
        if (record := known()) is not None:
            record.describe(asked)

    return describe


def contract_method(path: str) -> str:
    """The name of a method of the contract's services; others as they are called, with their service."""
    for service in _SERVICES:
        path = path.removeprefix(service)
    return path


def request_id_of(context: Any) -> str:
    """The request id that `CallInterceptor` gave a call."""
    return str(dict(context.trailing_metadata())[REQUEST_ID])


def received() -> Received:
    """What is known of the request that is worked on here; nothing where `CallInterceptor` has not read it."""
    return _received.get()


def _fingerprint(method: str, data: bytes) -> str:
    """Tells a request from others of the same id, in a third of the time of a digest that tells it from any other."""
    return f"{method} {len(data)} {hash(_SALT + data)}"


def is_named(request: pb.PredictRequest, context: Any) -> bool:
    """Whether the caller has named a call; nobody else knows its id, so that nobody can ask for it again."""
    return bool(request.request_id) or _given_request_id(context) is not None


def _own_request_id(context: Any) -> str:
    """The request id of the metadata if it is valid, else a new one."""
    return _given_request_id(context) or new_request_id()


def _given_request_id(context: Any) -> str | None:
    return given_request_id(dict(context.invocation_metadata() or ()))


def given_request_id(metadata: Mapping[str, Any]) -> str | None:
    """The request id that a call's metadata give; None without a valid one."""
    given = metadata.get(REQUEST_ID)
    return given if isinstance(given, str) and valid_request_id(given) else None


def _named(context: Any, request_id: str) -> str:
    context.set_trailing_metadata(((REQUEST_ID, request_id),))
    return request_id


async def _abort(context: Any, record: CallRecord, call: Call, error: SidecarError) -> None:
    status = status_of(error, record.request_id)
    metadata = ((REQUEST_ID, record.request_id), *status_metadata(status, error, context.time_remaining()))
    call.sending(0)
    await context.abort(grpc.StatusCode[error.code], status.message, trailing_metadata=metadata)


async def _write(event: bytes, context: Any, call: Call) -> None:
    call.sending(len(event))
    try:
        await context.write(event)
    except grpc.aio.BaseError:
        raise asyncio.CancelledError from None  # the caller has gone, and the cancellation is still to come
    call.sent()


async def _too_many(_: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many streams are open. Try again later.")
