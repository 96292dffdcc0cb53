"""What failures of an upstream server mean to a call that waits for it."""

from __future__ import annotations

from typing import Final

import grpc

from xai_sidecar.config.upstream import UpstreamAddress
from xai_sidecar.errors import DeviceError, SidecarError, UpstreamBusyError, UpstreamError

RETRY_SECONDS: Final = 1.0
"""When a caller may try again: by then it is known whether the server is back."""

_LONGEST_REASON = 300
_FULL = "maximum queue size"
"""What Triton says where its queue is full, with a status that otherwise means that it is gone."""

_TOO_LARGE = "larger than max"
"""What gRPC says of a message that the server never takes, with a status that otherwise means that it is busy."""

_ABSENT: Final = {
    grpc.StatusCode.UNAVAILABLE: "does not answer",
    grpc.StatusCode.DEADLINE_EXCEEDED: "has not answered in time (model.upstream.timeout_seconds)",
    grpc.StatusCode.CANCELLED: "has ended the call",
    grpc.StatusCode.NOT_FOUND: "has no such model",
    grpc.StatusCode.UNIMPLEMENTED: "does not speak the Open Inference Protocol",
    grpc.StatusCode.UNAUTHENTICATED: "wants to know who asks",
    grpc.StatusCode.PERMISSION_DENIED: "does not allow it",
}
_STATUSES: Final = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def failure(address: UpstreamAddress, code: grpc.StatusCode, reason: str) -> SidecarError:
    """The error for a call that has failed.

    Args:
        address: Where the model is.
        code: The status, also of what came by HTTP; see `code_of`.
        reason: What the server or the connection says.
    """
    said = " ".join(reason.split())[:_LONGEST_REASON].rstrip(".") or code.name
    too_large = code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in said
    if _FULL in said or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and not too_large):
        return UpstreamBusyError(
            f"The model's server {address.server} takes no more at present: {said}. Try again later.",
            retry_seconds=RETRY_SECONDS,
        )
    if code in _ABSENT:
        return UpstreamError(
            f"The model's server {address.server} {_ABSENT[code]}: {said}. Try again later, or another server.",
            retry_seconds=RETRY_SECONDS,
        )
    return DeviceError(f"The model's server {address.server} failed with {code.name}: {said}. Its log may say more.")


def code_of(status: int) -> grpc.StatusCode:
    """The gRPC status that a status of HTTP means."""
    return _STATUSES.get(status, grpc.StatusCode.INVALID_ARGUMENT if status < 500 else grpc.StatusCode.INTERNAL)
