"""Who calls, found out before anything is done for it: by its token before its request is read."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Optional
from urllib.parse import unquote

import grpc

from xai_sidecar.errors import RoleMissingError, SidecarError
from xai_sidecar.rpc.interceptors import REQUEST_ID, contract_method, given_request_id
from xai_sidecar.rpc.roles import ROLES
from xai_sidecar.rpc.status import status_metadata, status_of
from xai_sidecar.serving.access import Access, no_credentials
from xai_sidecar.serving.call_records import CallRecords
from xai_sidecar.serving.callers import ANYBODY, Caller, Role, set_caller
from xai_sidecar.serving.request_ids import new_request_id

_AUTHORIZATION = "authorization"
_Handler = Optional["grpc.RpcMethodHandler[Any, Any]"]


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Refuses those who may not call, and tells the core who does; to be the first of the interceptors.

    Args:
        access: Knows the callers.
        records: Counts and logs what is refused.
    """

    def __init__(self, access: Access, records: CallRecords) -> None:
        self._access = access
        self._records = records

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """See `grpc.aio.ServerInterceptor`."""
        method = handler_call_details.method
        metadata = dict(handler_call_details.invocation_metadata or ())
        needed = ROLES.get(method)
        try:
            caller = self._known_early(metadata.get(_AUTHORIZATION), needed, method)
        except SidecarError as error:
            return self._refusal(method, metadata, error)
        if caller is not None:
            set_caller(caller)  # the same task runs the handler
        handler = await continuation(handler_call_details)
        if handler is None or caller is not None or needed == ANYBODY:
            return handler
        return _wrapped(handler, self._identify(method, metadata, needed))

    def _known_early(self, authorization: Any, needed: frozenset[Role] | None, method: str) -> Caller | None:
        """The caller, if its token alone says who it is; None where its certificate or address says so, or nobody asks.

        Raises:
            SidecarError: It may not call.
        """
        if self._access.is_open or needed == ANYBODY:
            return None
        if authorization is None:
            if self._access.takes_certificates:
                return None
            raise no_credentials()
        caller = self._access.by_token(authorization)
        check_method(caller, needed, method)
        return caller

    def _identify(
        self, method: str, metadata: dict[str, Any], needed: frozenset[Role] | None
    ) -> Callable[[Any], Awaitable[Caller]]:
        """Returns what says who calls, given the call's context, and aborts where that may not be."""

        async def identify(context: Any) -> Caller:
            try:
                names = certificate_names(context.auth_context())
                caller = self._access.caller(None, names, peer_host(context.peer()))
                check_method(caller, needed, method)
            except SidecarError as error:
                await self._abort(context, method, metadata, error)
                raise
            return caller

        return identify

    def _refusal(self, method: str, metadata: dict[str, Any], error: SidecarError) -> _Handler:
        """A handler that refuses before the request is read: one of streams, whatever the method is."""

        async def refuse(_: Any, context: Any) -> None:
            await self._abort(context, method, metadata, error)

        return grpc.stream_stream_rpc_method_handler(refuse)

    async def _abort(self, context: Any, method: str, metadata: dict[str, Any], error: SidecarError) -> None:
        request_id = given_request_id(metadata) or new_request_id()
        self._records.refused(contract_method(method), request_id, error)
        status = status_of(error, request_id)
        trailing = ((REQUEST_ID, request_id), *status_metadata(status, error, context.time_remaining()))
        await context.abort(grpc.StatusCode[error.code], status.message, trailing_metadata=trailing)


def check_method(caller: Caller, needed: frozenset[Role] | None, method: str) -> None:
    """Refuses a method that the caller has no role for, or that is not in the table.

    Raises:
        RoleMissingError: It may not call it.
    """
    name = method.rpartition("/")[2]
    if needed is None:
        raise RoleMissingError(f"{name} is a method that no role allows. Call another one.")
    caller.check(needed, name)


def certificate_names(auth_context: Any) -> tuple[str, ...]:
    """The names in the certificate that a caller has shown: the common name, then the alternative ones."""
    shown = [*auth_context.get("x509_common_name", ()), *auth_context.get("x509_subject_alternative_name", ())]
    return tuple(name.decode(errors="replace") for name in shown)


def peer_host(peer: str) -> str:
    """The host of a peer as gRPC names it, such as ipv4:127.0.0.1:33106 or ipv6:%5B::1%5D:33106."""
    scheme, _, address = unquote(peer).partition(":")
    return address.rpartition(":")[0].strip("[]") if scheme in ("ipv4", "ipv6") else scheme


def _wrapped(handler: grpc.RpcMethodHandler[Any, Any], identify: Callable[[Any], Awaitable[Caller]]) -> _Handler:
    """A handler that first finds out who calls."""
    ways = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
    way = ways[2 * handler.request_streaming + handler.response_streaming]
    make = getattr(grpc, f"{way}_rpc_method_handler")
    behave = _identified(getattr(handler, way), identify)
    return make(behave, handler.request_deserializer, handler.response_serializer)  # type: ignore[no-any-return]


def _identified(behave: Any, identify: Callable[[Any], Awaitable[Caller]]) -> Any:
    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        set_caller(await identify(context))
        async with aclosing(behave(request, context)) as answers:
            async for answer in answers:
                yield answer

    async def call(request: Any, context: Any) -> Any:
        set_caller(await identify(context))
        return await behave(request, context)

    return stream if inspect.isasyncgenfunction(behave) else call
