"""The error tree: one class for each thing that can go wrong, with its gRPC code and a reason that clients may rely on.

SidecarError
├── ConfigError             the config or what it points to is wrong; found at start, exit status 2
├── InvalidRequestError     INVALID_ARGUMENT: the request is wrong whatever the server's state
│   ├── PictureError        the bytes are no picture that can be decoded
│   ├── PictureTooLargeError
│   ├── TensorError         wrong rank, shape, dtype or values
│   ├── TargetError         a class id that the model does not have
│   ├── ParameterError      an explainer's parameter
│   ├── UnknownExplainerError
│   └── UnknownLayerError
├── PreconditionError       FAILED_PRECONDITION: right, but not with this model or config
├── UnauthenticatedError    UNAUTHENTICATED: nobody whom the server knows
├── RoleMissingError        PERMISSION_DENIED: somebody who may not do that
├── NotFoundError           NOT_FOUND: what the request names is not there, or no longer
├── OverloadedError         RESOURCE_EXHAUSTED: try again later
├── ExpiredError            DEADLINE_EXCEEDED: the caller's deadline passed before it was done
├── DeadlineTooShortError   DEADLINE_EXCEEDED: it cannot be done before the caller's deadline, and was not begun
├── CallTooLongError        DEADLINE_EXCEEDED: it has taken the longest time that the server lets a call take
├── BudgetSpentError        never sent: an explanation's budget ended before there was a map
├── ShuttingDownError       UNAVAILABLE: draining; try another server
├── UpstreamError           UNAVAILABLE: the server that has the model does not answer, or not as it has to
├── UpstreamBusyError       RESOURCE_EXHAUSTED: the server that has the model takes no more
├── StoreError              UNAVAILABLE: the evaluator's database failed
│   └── StoreBlockedError   it takes nothing more until other programs let go of it
├── DeviceError             INTERNAL: the device failed on this batch
├── HungError               INTERNAL: a computation or a batch did not come back and was given up
└── DeviceLostError         UNAVAILABLE: the device thread is gone and the process is ending
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

_LONGEST_QUOTE = 80


class SidecarError(Exception):
    """Root of the tree.

    Args:
        message: One sentence saying what is wrong, then one saying what to do about it.
        field: Path of the field at fault in the request, for example ``images[0].encoded``; empty if none is.
        retry_seconds: When trying again may help; None if it will not.
    """

    code: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"
    longest_message: ClassVar[int] = 1000
    blames_rows: ClassVar[bool] = True
    """Whether one of its rows may be at fault where a batch fails with it. Where not, all fail without another try."""
    repeatable: bool = True

    def __init__(self, message: str, *, field: str = "", retry_seconds: float | None = None) -> None:
        # Whatever a message is made of, it is copied, logged and sent no longer than this.
        self.message = shortened(message, self.longest_message)
        super().__init__(self.message)
        self.field = field
        self.retry_seconds = retry_seconds


def shortened(text: str, longest: int) -> str:
    """A text of at most so many characters, and where that is not all of it, a mark that says so."""
    return text if len(text) <= longest else f"{text[:longest]} …"


def quoted(value: object) -> str:
    """What a request says, as an error repeats it: in quotes if it is a text, and cut before anything is made of it."""
    if isinstance(value, (str, bytes)):
        return repr(value) if len(value) <= _LONGEST_QUOTE else f"{value[:_LONGEST_QUOTE]!r} …"
    return shortened(repr(value), _LONGEST_QUOTE)


class within:  # noqa: N801 - a context manager that is called like a function
    """Puts the path of the enclosing message before the field of every error that passes.

    Args:
        prefix: The path. A class, since a generator takes three times as long, and every picture passes six of these.
    """

    __slots__ = ("_prefix",)

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __enter__(self) -> None:
        """Nothing to do before there is an error."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Puts the path before the error's field."""
        if isinstance(error, SidecarError):
            error.field = f"{self._prefix}.{error.field}" if error.field else self._prefix


@contextmanager
def under(prefix: str) -> Iterator[None]:
    """As `within`, but leaves errors alone that are no field's."""
    try:
        yield
    except SidecarError as error:
        error.field = f"{prefix}.{error.field}" if error.field else ""
        raise


class ConfigError(SidecarError):
    """The config, or a file, model or device that it names, is wrong. `field` is the key, as in ``model.labels``."""

    code = "FAILED_PRECONDITION"
    reason = "CONFIG"
    longest_message = 100_000  # it is no caller's, and read on a terminal

    def __str__(self) -> str:
        """The key, then the message."""
        return f"{self.field}: {self.message}" if self.field else self.message


class InvalidRequestError(SidecarError):
    """The request is wrong, whatever the state of the server."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_REQUEST"


class PictureError(InvalidRequestError):
    """The bytes are no picture that can be decoded."""

    reason = "PICTURE"


class PictureTooLargeError(InvalidRequestError):
    """The picture has more pixels than the server accepts."""

    reason = "PICTURE_TOO_LARGE"


class TensorError(InvalidRequestError):
    """A tensor's rank, shape, dtype or values do not fit."""

    reason = "TENSOR"


class TargetError(InvalidRequestError):
    """A class to be explained that the model does not have."""

    reason = "TARGET"


class ParameterError(InvalidRequestError):
    """A parameter of an explainer that is unknown or out of range."""

    reason = "PARAMETER"


class UnknownExplainerError(InvalidRequestError):
    """No explainer of that name."""

    reason = "UNKNOWN_EXPLAINER"


class UnknownLayerError(InvalidRequestError):
    """The net has no layer of that name."""

    reason = "UNKNOWN_LAYER"


class PreconditionError(SidecarError):
    """The request is right, but this model or config cannot serve it."""

    code = "FAILED_PRECONDITION"
    reason = "PRECONDITION"


class NotFoundError(SidecarError):
    """What the request names is not there, or no longer."""

    code = "NOT_FOUND"
    reason = "NOT_FOUND"


class UnauthenticatedError(SidecarError):
    """The caller has shown nothing by which the server knows it. The message never repeats what it has shown."""

    code = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class RoleMissingError(SidecarError):
    """The caller is known, but lacks the role that this takes."""

    code = "PERMISSION_DENIED"
    reason = "ROLE_MISSING"


class OverloadedError(SidecarError):
    """Too much is waiting already.

    Args:
        message: As of `SidecarError`, as are the next two.
        field: See there.
        retry_seconds: See there.
        repeatable: Whether the call itself may be repeated then. False where it would be refused again for its own
            deadline, which does not move, and only a new call is of use.
    """

    code = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"

    def __init__(
        self, message: str, *, field: str = "", retry_seconds: float | None = None, repeatable: bool = True
    ) -> None:
        super().__init__(message, field=field, retry_seconds=retry_seconds)
        self.repeatable = repeatable


class ExpiredError(SidecarError):
    """The caller's deadline passed first."""

    code = "DEADLINE_EXCEEDED"
    reason = "EXPIRED"


class DeadlineTooShortError(SidecarError):
    """What is asked for takes longer than the caller will wait."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_TOO_SHORT"


class CallTooLongError(SidecarError):
    """The call has taken the longest time that the server lets a call take."""

    code = "DEADLINE_EXCEEDED"
    reason = "CALL_TOO_LONG"


class BudgetSpentError(SidecarError):
    """A budget ended before there was anything to return."""

    code = "DEADLINE_EXCEEDED"
    reason = "BUDGET_SPENT"


class ShuttingDownError(SidecarError):
    """The server is draining."""

    code = "UNAVAILABLE"
    reason = "SHUTTING_DOWN"


class UpstreamError(SidecarError):
    """The server that has the model does not answer, or has another model than it had."""

    code = "UNAVAILABLE"
    reason = "UPSTREAM"
    blames_rows = False


class UpstreamBusyError(SidecarError):
    """The server that has the model takes no more at present."""

    code = "RESOURCE_EXHAUSTED"
    reason = "UPSTREAM_BUSY"
    blames_rows = False


class StoreError(SidecarError):
    """The evaluator's database failed. What was to be kept is there as a whole or not at all."""

    code = "UNAVAILABLE"
    reason = "STORE"

    def __init__(self, message: str, *, field: str = "", retry_seconds: float | None = 1.0) -> None:
        super().__init__(message, field=field, retry_seconds=retry_seconds)


class StoreBlockedError(StoreError):
    """The evaluator's database takes nothing more until other programs let go of it."""


class DeviceError(SidecarError):
    """The device failed on a batch."""

    code = "INTERNAL"
    reason = "DEVICE"


class HungError(SidecarError):
    """A computation, or a batch on a backend that survives that, did not come back and was given up."""

    code = "INTERNAL"
    reason = "HUNG"
    blames_rows = False


class DeviceLostError(SidecarError):
    """The device thread is gone; nothing more will be computed."""

    code = "UNAVAILABLE"
    reason = "DEVICE_LOST"


def device_error(error: Exception) -> SidecarError:
    """Converts an error that a batch raised to one of this tree."""
    if isinstance(error, SidecarError):
        return error
    first_line = str(error).strip().partition("\n")[0]
    converted = DeviceError(f"The device failed with {type(error).__name__}: {first_line}. The server's log has more.")
    converted.__cause__ = error
    return converted
