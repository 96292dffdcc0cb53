"""Around every call: a request id, a log line, metrics, and every error as a google.rpc.Status with details."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from xai_sidecar.errors import SidecarError, shortened
from xai_sidecar.service.decode import valid_request_id
from xai_sidecar.telemetry import METHODS, Telemetry

REQUEST_ID = "x-request-id"
_DOMAIN = "xai-sidecar"
_POLL_SECONDS = 0.02
_LONGEST_MESSAGE = 500
_MOST_MESSAGE_BYTES = 700
"""Metadata carry the message three times, percent-encoded or in base64, and gRPC drops calls with more than 8 KiB."""
_SERVICE = "/xai.v1.ExplanationService/"

_log = structlog.get_logger(__name__)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the calls of the ExplanationService; health and reflection pass untouched."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._in_flight = 0

    async def finished(self, seconds: float) -> bool:
        """Waits until no call is in flight, but no longer than that; whether it came to that."""
        deadline = time.monotonic() + seconds
        while self._in_flight and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        return not self._in_flight

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See `grpc.aio.ServerInterceptor`."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method.removeprefix(_SERVICE)
        if handler is None or method not in METHODS:
            return handler
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(handler.unary_stream, method),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(handler.unary_unary, method), handler.request_deserializer, handler.response_serializer
        )

    def _unary(self, behave: Any, method: str) -> Any:
        async def wrapped(request: Any, context: Any) -> Any:
            async with self._around(request, context, method):
                return await behave(request, context)

        return wrapped

    def _streaming(self, behave: Any, method: str) -> Any:
        async def wrapped(request: Any, context: Any) -> AsyncIterator[Any]:
            async with self._around(request, context, method), aclosing(behave(request, context)) as responses:
                async for response in responses:
                    yield response

        return wrapped

    @asynccontextmanager
    async def _around(self, request: Any, context: Any, method: str) -> AsyncIterator[None]:
        request_id = _request_id(request, context)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        context.set_trailing_metadata(((REQUEST_ID, request_id),))
        self._in_flight += 1
        started = time.perf_counter()
        code = grpc.StatusCode.OK
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            left = context.time_remaining()
            late = left is not None and left <= 0
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        except SidecarError as error:
            code = grpc.StatusCode[error.code]
            if code == grpc.StatusCode.INTERNAL:
                _log.error("request_failed", method=method, exc_info=error)
            await self._abort(context, request_id, error)
        except Exception as error:
            code = grpc.StatusCode.INTERNAL
            _log.exception("request_failed", method=method)
            told = SidecarError(f"The server failed with {type(error).__name__}; its log has more under {request_id}.")
            await self._abort(context, request_id, told)
        finally:
            # After the answer is on its way; the context, with the request id, goes along.
            asyncio.get_running_loop().call_soon(self._ended, method, code, time.perf_counter() - started)

    def _ended(self, method: str, code: grpc.StatusCode, seconds: float) -> None:
        self._in_flight -= 1
        self._telemetry.requests.labels(method, code.name).inc()
        self._telemetry.request_seconds.labels(method).observe(seconds)
        _log.info("request", method=method, code=code.name, milliseconds=round(seconds * 1e3, 1))

    async def _abort(self, context: Any, request_id: str, error: SidecarError) -> None:
        _log.info("refused", reason=error.reason, field=error.field, message=error.message)
        status = status_of(error, request_id)
        metadata = [(REQUEST_ID, request_id), ("grpc-status-details-bin", status.SerializeToString())]
        await context.abort(grpc.StatusCode[error.code], status.message, trailing_metadata=tuple(metadata))


def status_of(error: SidecarError, request_id: str) -> status_pb2.Status:
    """An error as the wire carries it."""
    message = _sendable(error.message)
    told = f"{error.field}: {message}" if error.field else message
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=told)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=_DOMAIN, metadata={"request_id": request_id})
    status.details.add().Pack(info)
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=message, reason=error.reason
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_seconds is not None:
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_seconds * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def _sendable(message: str) -> str:
    text = shortened(message, _LONGEST_MESSAGE)
    data = text.encode(errors="replace")
    if len(data) <= _MOST_MESSAGE_BYTES:
        return data.decode()
    return data[:_MOST_MESSAGE_BYTES].decode(errors="ignore") + " …"


def request_id_of(context: Any) -> str:
    """The id that `CallInterceptor` gave a call."""
    return str(dict(context.trailing_metadata())[REQUEST_ID])


def _request_id(request: Any, context: Any) -> str:
    """The request's own id, else the metadata's, else a new one; what is not fit to be logged is passed over."""
    metadata = dict(context.invocation_metadata() or ())
    asked = getattr(request, "request", request)  # a stream's is inside
    for given in (getattr(asked, "request_id", ""), metadata.get(REQUEST_ID)):
        if given and isinstance(given, str) and valid_request_id(given):
            return given
    return uuid.uuid4().hex
