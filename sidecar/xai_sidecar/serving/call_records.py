"""Around every call, whatever protocol it came by: its request id, log line and series, and how many there may be.

An adapter has a call received (`CallRecords.receive`), works on it within its record, which logs and counts it when it
ends, hands the answer or the error to its protocol, and then closes the record:

    call = records.receive()                                    # while the request is still being received
    record = records.record(call, method, len(request), …)
    try:
        with record:                                            # lets no other error out than a SidecarError
            …
    except SidecarError as error:
        …
    finally:
        record.close()
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence, Sized
from types import TracebackType
from typing import Any, Protocol

import structlog

from xai_sidecar.config import ServerConfig
from xai_sidecar.errors import (
    CallTooLongError,
    InvalidRequestError,
    OverloadedError,
    SidecarError,
    quoted,
    shortened,
)
from xai_sidecar.serving.callers import current_caller
from xai_sidecar.serving.calls import Call, IncomingRequests, TimeLimits, UnreadBytes
from xai_sidecar.telemetry import METHODS, Telemetry

_POLL_SECONDS = 0.02
_LEAST_INCOMING = 16
_LONGEST_NAME = 32
_MOST_NAMES = 16
"""Most explainers of a request that its log line names."""

_log = structlog.get_logger(__name__)


class AskedExplanation(Protocol):
    """An explanation that a request asks for, in the core's terms or in a protocol's."""

    @property
    def explainer(self) -> str:
        """Name of the explainer."""


class AskedPredictions(Protocol):
    """A request for predictions, in the core's terms or in a protocol's."""

    @property
    def images(self) -> Sized:
        """The pictures."""

    @property
    def explanations(self) -> Sequence[AskedExplanation]:
        """The explanations of each."""


class CallRecords:
    """The calls in progress. To be used on one event loop.

    Args:
        telemetry: Counts the calls that end.
        limits: Bounds the number of calls, and their time.

    Attributes:
        limits: As given.
    """

    def __init__(self, telemetry: Telemetry, limits: ServerConfig | None = None) -> None:
        self._telemetry = telemetry
        self.limits = limits = limits or ServerConfig()
        self._time_limits = TimeLimits(limits.max_call_seconds, limits.stall_seconds, limits.max_message_bytes)
        self._most_unread = max(limits.queue_bytes // 4, limits.max_message_bytes)
        self._in_progress: set[Call] = set()
        self._of_callers: Counter[str] = Counter()  # calls in progress
        self._unread = UnreadBytes()
        self._incoming = IncomingRequests(max(_LEAST_INCOMING, limits.queue_bytes // limits.max_message_bytes))

    @property
    def count(self) -> int:
        """Number of calls in progress."""
        return len(self._in_progress)

    async def finished(self, seconds: float) -> bool:
        """Waits until no call is in progress, for at most so many seconds; returns whether none is."""
        deadline = time.monotonic() + seconds
        while self._in_progress and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        return not self._in_progress

    def cut_off(self, error: SidecarError) -> None:
        """Ends all calls in progress with an error."""
        for call in list(self._in_progress):
            call.end(error)

    def receive(self, keepers: Sequence[weakref.ref[asyncio.Task[Any]]] = ()) -> Call:
        """A call whose request is being received; to be made by the task that handles it.

        Args:
            keepers: See `Call`.
        """
        call = Call(self._time_limits, self._unread, self._incoming, keepers)
        call.receiving()
        return call

    def record(
        self,
        call: Call,
        method: str,
        byte_count: int,
        request_id: str,
        seconds_left: Callable[[], float | None] = lambda: None,
    ) -> CallRecord:
        """The record of a call whose request is complete.

        Args:
            call: The call, which is in progress from now on until the record is closed.
            method: One of `telemetry.METHODS`.
            byte_count: Size of the request.
            request_id: The id that the call goes by.
            seconds_left: Tells the time until the caller's deadline; None if it has none.
        """
        caller = current_caller().name
        self._in_progress.add(call)
        self._of_callers[caller] += 1
        return CallRecord(self, call, method, byte_count, request_id, seconds_left, caller)

    def refused(self, method: str, request_id: str, error: SidecarError) -> None:
        """Logs and counts a call that was refused before its request was looked at.

        Args:
            method: As of `record`; of others, nothing is counted.
            request_id: The id that the call goes by.
            error: What it was refused with.
        """
        _log.info("refused", request_id=request_id, method=method, reason=error.reason, message=error.message)
        if method in METHODS:
            self._telemetry.answered(method, error.code, 0.0)

    def check_size(self, byte_count: int) -> None:
        """Checks the size of an answer.

        Raises:
            InvalidRequestError: It is larger than the server sends.
        """
        if byte_count > self.limits.max_message_bytes:
            raise InvalidRequestError(
                f"The answer has {byte_count:,} bytes, but the server sends {self.limits.max_message_bytes:,} in a "
                "message. Ask for fewer pictures at a time, fewer classes with top_k, or fewer explanations."
            )

    def check_room(self, caller: str = "") -> None:
        """Refuses a call where too many are in progress, or callers have left too many bytes of answers unread.

        Args:
            caller: Whose call it is; too many of one caller's are refused, too.

        Raises:
            OverloadedError: It is refused.
        """
        most = self.limits.callers.max_calls
        if most is not None and self._of_callers[caller] > most:
            raise OverloadedError(
                f"{most:,} calls of {quoted(caller)} are in progress, the most that a caller may have "
                "(server.callers.max_calls). Try again when one of them has ended.",
                retry_seconds=1.0,
            )
        if len(self._in_progress) > self.limits.max_calls:
            raise OverloadedError(
                f"{self.limits.max_calls:,} calls are in progress, the most that the server takes. Try again shortly.",
                retry_seconds=1.0,
            )
        if (unread := self._unread.byte_count) > self._most_unread:
            raise OverloadedError(
                f"{unread:,} bytes of answers wait to be read by their callers, of at most {self._most_unread:,}. Try "
                "again shortly.",
                retry_seconds=1.0,
            )

    def too_long(self) -> SidecarError:
        """What a call fails with that takes longer than a call may."""
        return CallTooLongError(
            f"The call has taken {self.limits.max_call_seconds:g} s, the most that a call may take "
            "(server.max_call_seconds). Ask for less at a time, or give explanations a budget."
        )

    def ended(self, entry: dict[str, Any], seconds: float, code: str) -> None:
        """Counts and logs a call that has ended."""
        self._telemetry.answered(entry["method"], code, seconds)
        _log.info("request", **entry, code=code, milliseconds=round(seconds * 1e3, 1))

    def close(self, call: Call, caller: str = "") -> None:
        """Counts a call as in progress until the event loop's next round, by which its end has been handed on."""
        asyncio.get_running_loop().call_soon(self._forget, call, caller)

    def _forget(self, call: Call, caller: str) -> None:
        if call in self._in_progress:
            self._in_progress.discard(call)
            self._of_callers[caller] -= 1
            if not self._of_callers[caller]:
                del self._of_callers[caller]


class CallRecord:
    """A context in which a call is answered; see `CallRecords.record`.

    It logs and counts the call when the context is left, before the answer leaves: the caller may look for both at
    once. All errors leave it as a SidecarError; a cancellation leaves it as the error by which the server ended the
    call, if it did.

    Attributes:
        request_id: The id that the call goes by; its log lines have it.
    """

    def __init__(
        self,
        records: CallRecords,
        call: Call,
        method: str,
        byte_count: int,
        request_id: str,
        seconds_left: Callable[[], float | None],
        caller: str = "",
    ) -> None:
        self._records = records
        self._call = call
        self._caller = caller
        self._entry: dict[str, Any] = {"method": method, "bytes": byte_count}
        if caller:
            self._entry["caller"] = caller
        self._seconds_left = seconds_left
        self._started = time.perf_counter()
        self.name(request_id)

    def name(self, request_id: str) -> None:
        """Gives the call another request id."""
        self.request_id = request_id
        structlog.contextvars.bind_contextvars(request_id=request_id)

    def describe(self, asked: AskedPredictions) -> None:
        """Adds to the log line what is asked for."""
        names = [shortened(wanted.explainer, _LONGEST_NAME) for wanted in asked.explanations[:_MOST_NAMES]]
        more = len(asked.explanations) - len(names)
        self._entry["pictures"] = len(asked.images)
        if names:
            self._entry["explainers"] = ",".join(names) + (f" and {more:,} more" if more else "")

    def close(self) -> None:
        """Ends the record, once the answer or the error has been handed to the protocol."""
        self._records.close(self._call, self._caller)

    def __enter__(self) -> CallRecord:
        """Starts the time limit of the call.

        Raises:
            OverloadedError: There are too many calls.
        """
        self._call.received(self._records.too_long)
        try:
            self._records.check_room(self._caller)
        except OverloadedError as error:
            self._refused(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Logs and counts the call."""
        if error is None:
            self._ended("OK")
        elif isinstance(error, asyncio.CancelledError):
            if self._call.error is None:
                self._ended(self._why_cancelled())
                return
            # The one error may end many calls: it must not gather what all of them were about.
            raise self._refused(self._call.error).with_traceback(None) from None
        elif isinstance(error, SidecarError):
            if error.code == "INTERNAL":
                _log.error("request_failed", method=self._entry["method"], exc_info=error)
            self._refused(error)
        elif isinstance(error, Exception):
            _log.error("request_failed", method=self._entry["method"], exc_info=error)
            name = type(error).__name__
            failed = SidecarError(f"The server failed with {name}; its log has more under {self.request_id}.")
            raise self._refused(failed) from error

    def _refused(self, error: SidecarError) -> SidecarError:
        _log.info("refused", reason=error.reason, field=error.field, message=error.message)
        self._ended(error.code)
        return error

    def _ended(self, code: str) -> None:
        self._records.ended(self._entry, time.perf_counter() - self._started, code)

    def _why_cancelled(self) -> str:
        left = self._seconds_left()
        late = self._call.stalled or (left is not None and left <= 0)
        return "DEADLINE_EXCEEDED" if late else "CANCELLED"
