"""The error tree: everything that the SDK raises about a call, its arguments or its answer.

XaiError
├── ServiceError                the call failed; one class for each gRPC status
│   ├── InvalidRequestError     INVALID_ARGUMENT: the server refused the request as wrong; `field` says where
│   ├── OutOfRangeError         OUT_OF_RANGE
│   ├── NotFoundError           NOT_FOUND: for example a request that was not sampled or is no longer kept
│   ├── AlreadyExistsError      ALREADY_EXISTS
│   ├── PreconditionError       FAILED_PRECONDITION: right, but not with this model or config
│   ├── UnsupportedError        UNIMPLEMENTED: this server does not have that call
│   ├── UnauthenticatedError    UNAUTHENTICATED
│   ├── PermissionDeniedError   PERMISSION_DENIED
│   ├── OverloadedError         RESOURCE_EXHAUSTED: try again after `retry_after` seconds
│   │   └── MessageTooLargeError    the request or the response exceeds the size limit; trying again is no use
│   ├── DeadlineError           DEADLINE_EXCEEDED: the timeout passed first, or the server sees that it would
│   ├── UnavailableError        UNAVAILABLE: no server there, or one that is going away
│   ├── CallCancelledError      CANCELLED
│   ├── AbortedError            ABORTED
│   ├── InternalError           INTERNAL: the server or its device failed
│   ├── DataLossError           DATA_LOSS
│   └── UnknownError            UNKNOWN, and any status that this version does not know
├── ArgumentError (ValueError)  an argument is wrong; nothing was sent
│   ├── ImageError              not a picture, or not one that can be sent or drawn on
│   ├── ParameterError          an explainer's parameter that is unknown or of the wrong type
│   └── PictureSizeError        an overlay on a picture of another size than the one predicted
├── MapWithheldError            a saliency map was asked for that the server did not send; says why
├── ResponseError               the answer contradicts the contract
├── ForkedError                 this process was forked while its parent was in gRPC, and cannot make calls
└── ClosedError                 the client is closed
"""

from __future__ import annotations

from typing import ClassVar


class XaiError(Exception):
    """Root of the tree.

    Attributes:
        code: Name of the gRPC status, such as "UNAVAILABLE"; empty for errors that did not come from a call.
        message: What is wrong, without the details that `str()` adds.
        reason: Stable reason given by the server, such as "UNKNOWN_EXPLAINER"; empty if none.
        field: Path of the field or argument at fault, such as "images[0].encoded"; empty if none.
        retry_after: Seconds after which the server suggests to try again; None if it does not.
        request_id: Id of the request that failed; empty if none was made.
    """

    code: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        field: str = "",
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.field = field
        self.retry_after = retry_after
        self.request_id = request_id


class ServiceError(XaiError):
    """The call failed."""

    def __str__(self) -> str:
        """The message, then what finds the failure again: status, reason, field, and the request's id."""
        status = f"{self.code}/{self.reason}" if self.reason else self.code
        # The server's messages begin with the field, as a rule.
        field = self.field and not self.message.startswith(self.field) and f"field {self.field}"
        parts = [status, field, self.request_id and f"request {self.request_id}"]
        return f"{self.message} [{', '.join(part for part in parts if part)}]"


class InvalidRequestError(ServiceError):
    """The server refused the request as wrong, whatever its state; `field` and `reason` say where and why."""

    code = "INVALID_ARGUMENT"


class OutOfRangeError(ServiceError):
    """A value lies outside what the server accepts."""

    code = "OUT_OF_RANGE"


class NotFoundError(ServiceError):
    """What the request names is unknown, was not sampled, or is no longer kept; the message says what to do."""

    code = "NOT_FOUND"


class AlreadyExistsError(ServiceError):
    """What the request would make is there already."""

    code = "ALREADY_EXISTS"


class PreconditionError(ServiceError):
    """The request is right, but this model or config cannot serve it."""

    code = "FAILED_PRECONDITION"


class UnsupportedError(ServiceError):
    """The server does not implement this call."""

    code = "UNIMPLEMENTED"


class UnauthenticatedError(ServiceError):
    """The server wants credentials that were missing or wrong."""

    code = "UNAUTHENTICATED"


class PermissionDeniedError(ServiceError):
    """The credentials do not permit this."""

    code = "PERMISSION_DENIED"


class OverloadedError(ServiceError):
    """Too much is waiting at the server already; `retry_after` says when to come back."""

    code = "RESOURCE_EXHAUSTED"


class MessageTooLargeError(OverloadedError):
    """The request or the response has more bytes than one message may have."""


class DeadlineError(ServiceError):
    """The timeout, or that of a proxy, passed before the answer came, or the server saw at once that it would.

    A refusal has the `reason` "DEADLINE_TOO_SHORT" and names what takes too long in `field`.
    """

    code = "DEADLINE_EXCEEDED"


class UnavailableError(ServiceError):
    """No server can be reached, it is shutting down (`reason` "SHUTTING_DOWN"), or the connection to it was lost.

    What the server may have run is not repeated by itself; the message says which it was.
    """

    code = "UNAVAILABLE"


class CallCancelledError(ServiceError):
    """The call was cancelled by the server or on the way."""

    code = "CANCELLED"


class AbortedError(ServiceError):
    """The server gave the call up."""

    code = "ABORTED"


class InternalError(ServiceError):
    """The server or its device failed."""

    code = "INTERNAL"


class DataLossError(ServiceError):
    """Data was lost or damaged."""

    code = "DATA_LOSS"


class UnknownError(ServiceError):
    """The server failed without saying how."""

    code = "UNKNOWN"


class ArgumentError(XaiError, ValueError):
    """An argument is wrong; nothing was sent."""


class ImageError(ArgumentError):
    """The image is of a kind that cannot be sent or drawn on, or cannot be decoded."""


class ParameterError(ArgumentError):
    """A parameter that the explainer does not have, or a value of the wrong type for it."""


class PictureSizeError(ArgumentError):
    """The picture given for an overlay has another size than the one that was predicted."""


class MapWithheldError(XaiError):
    """The saliency map asked for was not sent, because it would not have meant anything or was not computed.

    `reason` is the status that says why: "zero_gradient", "not_finite", "no_ood_range", "skipped",
    "truncated" where the budget ended before there was a map, or "no_targets".
    """


class ResponseError(XaiError):
    """The server's answer contradicts the contract and cannot be understood."""


class ForkedError(XaiError):
    """This process was forked while its parent was using gRPC, and can make no calls; the message says what to do."""


class ClosedError(XaiError):
    """The client was used after it was closed."""
