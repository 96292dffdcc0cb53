"""Time limits of calls: for the request to arrive, for the call as a whole, and for the caller to read the answer."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from xai_sidecar.errors import SidecarError

_log = structlog.get_logger(__name__)

_SLOWEST_BYTES = 256 * 1024
"""The slowest transfer that is waited for, in bytes a second."""

_SOONER_SECONDS = 0.05
_INSTANT_SECONDS = 2.0


@dataclass(frozen=True)
class TimeLimits:
    """The time limits of calls.

    Attributes:
        call_seconds: Longest time of a whole call.
        stall_seconds: Longest time for the caller to send or to read a small message.
        message_bytes: Size of the largest message.
    """

    call_seconds: float = float("inf")
    stall_seconds: float = float("inf")
    message_bytes: int = 0

    def for_bytes(self, count: int) -> float:
        """Longest time to transfer a message of so many bytes, in seconds."""
        return self.stall_seconds + count / _SLOWEST_BYTES


@dataclass
class UnreadBytes:
    """Counts the bytes of answers, over all calls, that their callers have not read."""

    byte_count: int = 0


class IncomingRequests:
    """The requests that are being received. Each may grow to the largest message, so that their number is bounded.

    Args:
        most: Most requests that may take longer than an instant.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._since: dict[Call, float] = {}

    def begin(self, call: Call) -> None:
        """Adds a call; where there are too many, ends those that have taken longest."""
        now = time.monotonic()
        while len(self._since) >= self._most:
            longest = next(iter(self._since))
            if now - self._since[longest] < _INSTANT_SECONDS:
                break
            self.end(longest)
            longest.stall()
        self._since[call] = now

    def end(self, call: Call) -> None:
        """Removes a call: its request is complete, or the call has ended."""
        self._since.pop(call, None)


class Call:
    """A call and its time limits; to be made by the task that handles it.

    Args:
        limits: Its time limits.
        total: Counts the unread bytes of all calls.
        incoming: The requests that are being received.
        keepers: Tasks of the adapter's besides, which keep it open until its caller has read the answer.

    Attributes:
        error: The error by which the server ended it; None unless it did.
        stalled: Whether it was ended because its caller took too long to send or to read.
        unread: Bytes of its answer that the caller has not read.
    """

    def __init__(
        self,
        limits: TimeLimits,
        total: UnreadBytes,
        incoming: IncomingRequests,
        keepers: Sequence[weakref.ref[asyncio.Task[Any]]] = (),
    ) -> None:
        self.error: SidecarError | None = None
        self.stalled = False
        self.unread = 0
        self._total = total
        self._incoming = incoming
        self._limits = limits
        self._keepers = keepers
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call is handled by a task")
        self._task = task
        self._timers: dict[str, asyncio.TimerHandle] = {}
        task.add_done_callback(self._over)

    def receiving(self) -> None:
        """Starts the time limit of receiving the request."""
        self._incoming.begin(self)
        self._after("transfer", self._limits.for_bytes(self._limits.message_bytes), self.stall)

    def received(self, too_long: Callable[[], SidecarError]) -> None:
        """Starts the time limit of the call, whose request is complete; `too_long` makes the error that it ends by."""
        self._incoming.end(self)
        self._stop("transfer")
        # A little before the deadline of the work that it waits for, whose error would not say why.
        self._after("call", self._limits.call_seconds - _SOONER_SECONDS, lambda: self.end(too_long()))

    def sending(self, byte_count: int) -> None:
        """Starts the time limit of sending a message; it ends with `sent` or with the call."""
        self._set_unread(byte_count)
        self._after("transfer", self._limits.for_bytes(byte_count), self.stall)

    def sent(self) -> None:
        """Ends the time limit of sending: the message has been read, or is in the transport's buffers."""
        self._set_unread(0)
        self._stop("transfer")

    def end(self, error: SidecarError) -> None:
        """Ends the call with an error by cancelling its handler; only the first error counts."""
        if self.error is not None or self.stalled:
            return
        if self.unread:
            self.stall()  # a status cannot overtake an unread message
            return
        self.error = error
        self._task.cancel()

    def kill(self) -> None:
        """Ends the call at once, without a status."""
        self._task.cancel()
        for keeper in self._keepers:
            if (task := keeper()) is not None:
                task.cancel()

    def stall(self) -> None:
        """Ends the call at once, since its caller takes too long to send or to read."""
        self.stalled = True
        _log.warning("stalled", unread_bytes=self.unread)
        self.kill()

    def _set_unread(self, byte_count: int) -> None:
        self._total.byte_count += byte_count - self.unread
        self.unread = byte_count

    def _after(self, name: str, seconds: float, function: Any) -> None:
        self._stop(name)
        if seconds < float("inf"):
            self._timers[name] = self._loop.call_later(seconds, function)

    def _stop(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _over(self, _: asyncio.Task[Any]) -> None:
        self._incoming.end(self)
        self._set_unread(0)
        for name in list(self._timers):
            self._stop(name)
