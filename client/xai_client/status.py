"""gRPC failures as the SDK's typed errors, with the details that the server attached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from xai_client import errors
from xai_client.errors import ServiceError
from xai_client.request import sdk_path

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

    Missing or damaged details give an empty result: they must never hide the failure that they belong to.
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


def to_error(error: grpc.RpcError, *, address: str, timeout: float | None, request_id: str) -> ServiceError:
    """Makes the typed error for a failed call.

    Args:
        error: What gRPC raised, from the sync or the async stack.
        address: Where the call went.
        timeout: The deadline that the call had, in seconds.
        request_id: Id of the request.
    """
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    text = (error.details() if hasattr(error, "details") else None) or str(error)
    details = parse_details(error.trailing_metadata() if hasattr(error, "trailing_metadata") else None)
    if not details.reason:
        text = _explain(code, text, address, timeout)
    field = sdk_path(details.field)
    if details.field and text.startswith(details.field):
        text = field + text.removeprefix(details.field)
    kind = ERROR_BY_CODE.get(code, errors.UnknownError)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in text:
        kind = errors.MessageTooLargeError
    return kind(text, reason=details.reason, field=field, retry_after=details.retry_after, request_id=request_id)


def _explain(code: grpc.StatusCode, text: str, address: str, timeout: float | None) -> str:
    """Says what to check for failures that gRPC itself reports, of which xai-sidecar could say nothing."""
    if code is grpc.StatusCode.UNAVAILABLE:
        return (
            f"cannot reach a server at {address}: {text}. Check that xai-sidecar runs there, that host and port are"
            " right, and that both sides use TLS or neither does"
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in text:
        return (
            f"{text}. Send an encoded file instead of an array, a smaller picture or fewer of them, or raise"
            " server.max_message_bytes"
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        limit = "the deadline" if timeout is None else f"{timeout:g} s"
        return f"no answer from {address} within {limit}. Raise `timeout`, ask for less, or give explanations a budget"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"the server at {address} does not offer this call: {text}"
    return text
