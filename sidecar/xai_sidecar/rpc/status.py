"""A failed call's status on the wire: a google.rpc.Status with details, and when gRPC may make the call again."""

from __future__ import annotations

import random
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from xai_sidecar.errors import ShuttingDownError, SidecarError, shortened

DETAILS_KEY: Final = "grpc-status-details-bin"
"""This key is all that grpcio-status would save: it packs no details, and narrows which protobuf fits."""
PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"

_DOMAIN = "xai-sidecar"
_LONGEST_MESSAGE = 500
_MOST_MESSAGE_BYTES = 700
"""Metadata carry the message three times, percent-encoded or in base64, and gRPC drops calls with more than 8 KiB."""
_RETRIED: Final = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
"""What callers' retry policies name as a rule. Of other codes nothing is said: a negative pushback also throttles the
retries of a channel, and there wrong requests must not cost others theirs."""
_SPREAD: Final = 1.5
"""gRPC retries exactly when the pushback says; callers that were refused together must not retry together."""


def status_of(error: SidecarError, request_id: str) -> status_pb2.Status:
    """An error as a status: code, message, and what clients can rely on as details.

    Args:
        error: The error.
        request_id: Id of the call.
    """
    message = _short(error.message)
    text = f"{error.field}: {message}" if error.field else message
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=text)
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


def status_metadata(
    status: status_pb2.Status, error: SidecarError, seconds_left: float | None
) -> tuple[tuple[str, str | bytes], ...]:
    """The trailing metadata of a failed call: the status, and the pushback if there is one.

    Args:
        status: The status.
        error: The error that it was made of.
        seconds_left: Until the call's deadline; None if it has none.
    """
    pushback = pushback_milliseconds(error, seconds_left)
    details = (DETAILS_KEY, status.SerializeToString())
    return (details,) if pushback is None else (details, (PUSHBACK_KEY, str(pushback)))


def pushback_milliseconds(error: SidecarError, seconds_left: float | None) -> int | None:
    """When gRPC in the client may make a refused call again, if its retry policy names the code (gRFC A6).

    Args:
        error: Why the call failed.
        seconds_left: Until the call's deadline; None if it has none.

    Returns:
        Milliseconds: the error's `retry_seconds` and up to a half more. -1 where a retry is no use: none is suggested,
        it would be refused again, or come after the deadline, of which the caller would then hear instead. None where
        it is for the policy to say: while the server shuts down, another one may take the call at once.
    """
    if not error.repeatable:
        return -1
    if error.retry_seconds is None:
        return None if error.code not in _RETRIED or isinstance(error, ShuttingDownError) else -1
    seconds = error.retry_seconds * random.uniform(1.0, _SPREAD)  # noqa: S311
    return -1 if seconds_left is not None and seconds >= seconds_left else round(seconds * 1e3)


def _short(message: str) -> str:
    text = shortened(message, _LONGEST_MESSAGE)
    data = text.encode(errors="replace")
    if len(data) <= _MOST_MESSAGE_BYTES:
        return data.decode()
    return data[:_MOST_MESSAGE_BYTES].decode(errors="ignore") + " …"
