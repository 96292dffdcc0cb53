"""Around every call: a request id, a log line, metrics, and every error as a google.rpc.Status with details."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import grpc
import structlog

from xai_proto import explanation_pb2 as pb
from xai_sidecar.config import ServerConfig
from xai_sidecar.errors import CallTooLongError, InvalidRequestError, OverloadedError, SidecarError, shortened
from xai_sidecar.rpc.calls import Call, IncomingRequests, TimeLimits, UnreadBytes
from xai_sidecar.rpc.messages import Reader
from xai_sidecar.rpc.status import status_metadata, status_of
from xai_sidecar.serving.request_ids import new_request_id, valid_request_id
from xai_sidecar.telemetry import METHODS, Telemetry

REQUEST_ID = "x-request-id"
_POLL_SECONDS = 0.02
_SERVICE = "/xai.v1.ExplanationService/"
_READERS = {
    "Predict": Reader(pb.PredictRequest),
    "PredictStream": Reader(pb.PredictStreamRequest),
    "ReportGroundTruth": Reader(pb.ReportGroundTruthRequest),
    "GetModelInfo": Reader(pb.GetModelInfoRequest),
}
_LEAST_INCOMING = 16
_LONGEST_NAME = 32
_MOST_NAMES = 16
"""Most explainers of a request that its log line names."""

_log = structlog.get_logger(__name__)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the calls of the ExplanationService; of others, health and reflection, it only bounds the number.

    Args:
        telemetry: Counts the calls that end.
        limits: Bounds the number of calls, and their time.
    """

    def __init__(self, telemetry: Telemetry, limits: ServerConfig | None = None) -> None:
        self._telemetry = telemetry
        self._limits = limits = limits or ServerConfig()
        self._time_limits = TimeLimits(limits.max_call_seconds, limits.stall_seconds, limits.max_message_bytes)
        self._most_unread = max(limits.queue_bytes // 4, limits.max_message_bytes)
        self._answering: set[Call] = set()
        self._unread = UnreadBytes()
        self._incoming = IncomingRequests(max(_LEAST_INCOMING, limits.queue_bytes // limits.max_message_bytes))
        self._others = 0

    async def finished(self, seconds: float) -> bool:
        """Waits until no call is in progress, for at most so many seconds; returns whether none is."""
        deadline = time.monotonic() + seconds
        while self._answering and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        return not self._answering

    def cut_off(self, error: SidecarError) -> None:
        """Ends all calls in progress with an error."""
        for call in list(self._answering):
            call.end(error)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See `grpc.aio.ServerInterceptor`."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method.removeprefix(_SERVICE)
        if handler is None or method not in METHODS:
            return self._other(handler)
        call = Call(self._time_limits, self._unread, self._incoming)
        call.receiving()
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(handler.unary_stream, method, call))
        return grpc.unary_unary_rpc_method_handler(self._unary(handler.unary_unary, method, call))

    def _unary(self, behave: Any, method: str, call: Call) -> Any:
        async def wrapped(data: bytes, context: Any) -> bytes:
            async with self._around(data, context, method, call) as request:
                answer = self._sendable(await behave(request, context))
                call.sending(len(answer))
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
        if self._others >= self._limits.max_calls:
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
        entry: dict[str, Any] = {"method": method, "bytes": len(data)}
        request_id = _named(context, _own_request_id(context))
        self._answering.add(call)
        # Logged and counted before the answer leaves: the caller may look for both at once.
        ended = partial(self._ended, entry, time.perf_counter())
        try:
            call.received(self._too_long())
            self._check_room()
            request = _READERS[method].read(data)
            asked = request.request if method == "PredictStream" else request  # a stream's is inside
            if valid_request_id(own := getattr(asked, "request_id", "")):
                request_id = _named(context, own)
            entry |= _described(asked)
            yield request
            ended(grpc.StatusCode.OK)
        except asyncio.CancelledError:
            if call.error is None:
                ended(_why_cancelled(call, context))
                raise
            await self._abort(context, request_id, call, call.error, ended)
        except SidecarError as error:
            if error.code == grpc.StatusCode.INTERNAL.name:
                _log.error("request_failed", method=method, exc_info=error)
            await self._abort(context, request_id, call, error, ended)
        except Exception as error:
            _log.exception("request_failed", method=method)
            failed = SidecarError(
                f"The server failed with {type(error).__name__}; its log has more under {request_id}."
            )
            await self._abort(context, request_id, call, failed, ended)
        finally:
            # The call counts as in progress until its answer has been handed to gRPC.
            asyncio.get_running_loop().call_soon(self._answering.discard, call)

    def _sendable(self, message: Any) -> bytes:
        """The encoded message.

        Raises:
            InvalidRequestError: It is larger than the server sends.
        """
        data: bytes = message.SerializeToString()
        if len(data) > self._limits.max_message_bytes:
            raise InvalidRequestError(
                f"The answer has {len(data):,} bytes, but the server sends {self._limits.max_message_bytes:,} in a "
                "message. Ask for fewer pictures at a time, fewer classes with top_k, or fewer explanations."
            )
        return data

    def _check_room(self) -> None:
        """Refuses a call where too many are in progress, or callers have left too many bytes of answers unread.

        Raises:
            OverloadedError: It is refused.
        """
        if len(self._answering) > self._limits.max_calls:
            raise OverloadedError(
                f"{self._limits.max_calls:,} calls are in progress, the most that the server takes. Try again shortly.",
                retry_seconds=1.0,
            )
        if (unread := self._unread.byte_count) > self._most_unread:
            raise OverloadedError(
                f"{unread:,} bytes of answers wait to be read by their callers, of at most {self._most_unread:,}. Try "
                "again shortly.",
                retry_seconds=1.0,
            )

    def _too_long(self) -> SidecarError:
        return CallTooLongError(
            f"The call has taken {self._limits.max_call_seconds:g} s, the most that a call may take "
            "(server.max_call_seconds). Ask for less at a time, or give explanations a budget."
        )

    def _ended(self, entry: dict[str, Any], started: float, code: grpc.StatusCode) -> None:
        seconds = time.perf_counter() - started
        self._telemetry.requests.labels(entry["method"], code.name).inc()
        self._telemetry.request_seconds.labels(entry["method"]).observe(seconds)
        _log.info("request", **entry, code=code.name, milliseconds=round(seconds * 1e3, 1))

    async def _abort(
        self, context: Any, request_id: str, call: Call, error: SidecarError, ended: Callable[[grpc.StatusCode], None]
    ) -> None:
        _log.info("refused", reason=error.reason, field=error.field, message=error.message)
        status = status_of(error, request_id)
        metadata = ((REQUEST_ID, request_id), *status_metadata(status, error, context.time_remaining()))
        call.sending(0)
        code = grpc.StatusCode[error.code]
        ended(code)
        await context.abort(code, status.message, trailing_metadata=metadata)


def request_id_of(context: Any) -> str:
    """The request id that `CallInterceptor` gave a call."""
    return str(dict(context.trailing_metadata())[REQUEST_ID])


def _own_request_id(context: Any) -> str:
    """The request id of the metadata if it is valid, else a new one."""
    given = dict(context.invocation_metadata() or ()).get(REQUEST_ID)
    return given if isinstance(given, str) and valid_request_id(given) else new_request_id()


def _named(context: Any, request_id: str) -> str:
    structlog.contextvars.bind_contextvars(request_id=request_id)
    context.set_trailing_metadata(((REQUEST_ID, request_id),))
    return request_id


def _described(asked: Any) -> dict[str, Any]:
    """The fields that describe a request in the log."""
    if not isinstance(asked, pb.PredictRequest):
        return {}
    names = [shortened(wanted.explainer, _LONGEST_NAME) for wanted in asked.explanations[:_MOST_NAMES]]
    more = len(asked.explanations) - len(names)
    explainers = ",".join(names) + (f" and {more:,} more" if more else "")
    return {"pictures": len(asked.images), **({"explainers": explainers} if names else {})}


def _why_cancelled(call: Call, context: Any) -> grpc.StatusCode:
    left = context.time_remaining()
    late = call.stalled or (left is not None and left <= 0)
    return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED


async def _write(event: bytes, context: Any, call: Call) -> None:
    call.sending(len(event))
    try:
        await context.write(event)
    except grpc.aio.BaseError:
        raise asyncio.CancelledError from None  # the caller has gone, and the cancellation is still to come
    call.sent()


async def _too_many(_: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many streams are open. Try again later.")
