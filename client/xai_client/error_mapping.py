"""gRPC failures as the SDK's typed errors, with the details that the server attached."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from xai_client import errors
from xai_client.errors import ServiceError
from xai_client.proxy import proxy_in_use
from xai_client.request import sdk_path
from xai_client.transport import describe_http, describe_unavailable, http_status, is_broken

ERROR_BY_CODE: Final[dict[grpc.StatusCode, type[ServiceError]]] = {
    grpc.StatusCode.CANCELLED: errors.CallCancelledError,
    grpc.StatusCode.UNKNOWN: errors.UnknownError,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequestError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineError,
    grpc.StatusCode.NOT_FOUND: errors.NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExistsError,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.OverloadedError,
    grpc.StatusCode.FAILED_PRECONDITION: errors.PreconditionError,
    grpc.StatusCode.ABORTED: errors.AbortedError,
    grpc.StatusCode.OUT_OF_RANGE: errors.OutOfRangeError,
    grpc.StatusCode.UNIMPLEMENTED: errors.UnsupportedError,
    grpc.StatusCode.INTERNAL: errors.InternalError,
    grpc.StatusCode.UNAVAILABLE: errors.UnavailableError,
    grpc.StatusCode.DATA_LOSS: errors.DataLossError,
    grpc.StatusCode.UNAUTHENTICATED: errors.UnauthenticatedError,
}
"""The class for each status; OK is not a failure and has none."""

_DETAILS_KEY: Final = "grpc-status-details-bin"


@dataclass(frozen=True)
class Details:
    """What a `google.rpc.Status` says beyond code and message.

    Attributes:
        reason: ErrorInfo.reason; empty if none.
        field: Path of the first field violation of a BadRequest; empty if none.
        retry_after: RetryInfo.retry_delay in seconds; None if none.
    """

    reason: str = ""
    field: str = ""
    retry_after: float | None = None


_TOO_LARGE = "larger than max"


def parse_details(metadata: Any) -> Details:
    """Reads the details from trailing metadata, of which each entry is a (key, value) pair.

    Missing or damaged details give an empty result: they must never hide the failure that they belong to. That is
    what grpcio-status does: it raises where they are damaged, or where a proxy has worded the message anew.
    """
    for key, value in metadata or ():
        if key == _DETAILS_KEY:
            try:
                return _read(status_pb2.Status.FromString(value))
            except DecodeError:
                return Details()
    return Details()


def _read(status: status_pb2.Status) -> Details:
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    retry_after = None
    for detail in status.details:
        if detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        elif not detail.Unpack(info):
            detail.Unpack(request)
    field = request.field_violations[0].field if request.field_violations else ""
    return Details(info.reason, field, retry_after)


def metadata_of(error: grpc.RpcError) -> Iterable[Any]:
    """The trailing metadata of a failure, pairs of a key and a value."""
    return (error.trailing_metadata() if hasattr(error, "trailing_metadata") else None) or ()


def details_of(error: grpc.RpcError) -> Details:
    """What the server attached to a failure."""
    return parse_details(metadata_of(error))


def text_of(error: grpc.RpcError) -> str:
    """The message of a failure, the server's or gRPC's own."""
    return (error.details() if hasattr(error, "details") else None) or str(error)


def to_error(
    error: grpc.RpcError, *, address: str, timeout: float | None, request_id: str, repeated: bool = False
) -> ServiceError:
    """Makes the typed error for a failed call.

    Args:
        error: What gRPC raised, from the sync or the async stack.
        address: Where the call went.
        timeout: The deadline that the call had, in seconds.
        request_id: Id of the request.
        repeated: Whether calls of this kind are repeated even if the server may have run them.
    """
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    details = details_of(error)
    kind = ERROR_BY_CODE.get(code, errors.UnknownError)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in text_of(error):
        kind = errors.MessageTooLargeError
    failure = _Failure(text_of(error), details.reason, kind)
    if not details.reason:
        failure = _describe(code, failure, address, timeout, repeated=repeated)
    field = sdk_path(details.field)
    message = failure.message
    if details.field and message.startswith(details.field):
        message = field + message.removeprefix(details.field)
    return failure.kind(
        message, reason=failure.reason, field=field, retry_after=details.retry_after, request_id=request_id
    )


class _Failure(NamedTuple):
    """What the error will say: its message, the reason where one is known, and its class."""

    message: str
    reason: str
    kind: type[ServiceError]


def _describe(
    code: grpc.StatusCode, failure: _Failure, address: str, timeout: float | None, *, repeated: bool
) -> _Failure:
    """Adds what to check to a failure that no xai-sidecar described."""
    text = failure.message
    status = http_status(text)
    if status is not None:
        message, kind = describe_http(status, address)
        return _Failure(message, "", kind or failure.kind)
    if code is grpc.StatusCode.UNAVAILABLE:
        message, reason = describe_unavailable(text, address, repeated=repeated)
        return failure._replace(message=message + _by_proxy(address), reason=reason)
    if failure.kind is errors.MessageTooLargeError:
        return failure._replace(
            message=f"{text}. Send an encoded file instead of an array, a smaller picture or fewer of them, or raise"
            " server.max_message_bytes"
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        limit = "the deadline" if timeout is None else f"{timeout:g} s"
        message = (
            f"no answer from {address} within {limit}. Raise `timeout`, ask for less, or give explanations a budget"
        )
        return failure._replace(message=message + _by_proxy(address))
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return failure._replace(message=f"the server at {address} does not offer this call: {text}")
    if is_broken(text):
        return failure._replace(
            message=f"{address}, or a proxy before it, broke the call off: {text}. Look into its log"
        )
    return failure


def _by_proxy(address: str) -> str:
    """Names the environment's proxy, if the call went through one: it may be that which fails."""
    proxy = proxy_in_use(address)
    if not proxy:
        return ""
    return (
        f". gRPC goes through the proxy of the environment variable {proxy}; to reach the server directly, add its host"
        " to no_proxy (in lower case)"
    )
