"""How long calls may take: to arrive, altogether, and to be read by their callers."""

from __future__ import annotations

import asyncio
import contextvars
import time
import weakref
from dataclasses import dataclass
from typing import Any

import structlog

from xai_sidecar.errors import SidecarError

_log = structlog.get_logger(__name__)

_GRPC_CALL = "_schedule_rpc_coro"
"""The coroutine by which grpc.aio keeps a call alive until its caller has all of it, or has gone."""

_SLOWEST_BYTES = 256 * 1024
"""What a connection is taken to carry in a second, at the least."""

_SOONER_SECONDS = 0.05
_INSTANT_SECONDS = 2.0

_keeper: contextvars.ContextVar[list[weakref.ref[asyncio.Task[Any]]]] = contextvars.ContextVar("keeper")


def task_factory(loop: asyncio.AbstractEventLoop, coroutine: Any, /, **options: Any) -> asyncio.Task[Any]:
    """Makes the loop's tasks; those that handle a call are told of the one that keeps it alive.

    grpc.aio lets a handler end, not a call: what was written and is not read keeps it open, message and all, for as
    long as its caller likes. It is over as soon as that other task is.
    """
    if getattr(coroutine, "__name__", "") != _GRPC_CALL:
        return asyncio.Task(coroutine, loop=loop, **options)
    keeper: list[weakref.ref[asyncio.Task[Any]]] = []

    def make() -> asyncio.Task[Any]:
        _keeper.set(keeper)
        return asyncio.Task(coroutine, loop=loop, **options)

    task = contextvars.copy_context().run(make)
    keeper.append(weakref.ref(task))
    return task


@dataclass(frozen=True)
class Patience:
    """What is waited for.

    Attributes:
        call_seconds: The longest time that a call may take.
        stall_seconds: The longest time that its caller may take to send or to read a message that is small.
        message_bytes: The largest message.
    """

    call_seconds: float = float("inf")
    stall_seconds: float = float("inf")
    message_bytes: int = 0

    def for_bytes(self, count: int) -> float:
        """Seconds that so many bytes may take."""
        return self.stall_seconds + count / _SLOWEST_BYTES


@dataclass
class Unread:
    """Bytes of answers that wait to be read by their callers."""

    byte_count: int = 0


class Arrivals:
    """Requests on their way. Each may become a message of the largest size, so that only so many may take their time.

    Args:
        most: How many of them there may be for longer than an instant.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._since: dict[Call, float] = {}

    def begin(self, call: Call) -> None:
        """Another one; those that take longest make room for it."""
        now = time.monotonic()
        while len(self._since) >= self._most:
            longest = next(iter(self._since))
            if now - self._since[longest] < _INSTANT_SECONDS:
                break
            self.end(longest)
            longest.stall()
        self._since[call] = now

    def end(self, call: Call) -> None:
        """It has come, or never will."""
        self._since.pop(call, None)


class Call:
    """A call, from its beginning; to be made by the task that handles it.

    Args:
        patience: How long it may take.
        total: Has what it sends added, until that is read.
        arrivals: The requests on their way, of which it is one.

    Attributes:
        error: What ended it, if that was the server.
        stalled: Whether its caller took too long to send or to read.
        unread: Bytes of it that wait to be read.
    """

    def __init__(self, patience: Patience, total: Unread, arrivals: Arrivals) -> None:
        self.error: SidecarError | None = None
        self.stalled = False
        self.unread = 0
        self._total = total
        self._arrivals = arrivals
        self._patience = patience
        self._keeper = _keeper.get([])
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call is handled by a task")
        self._task = task
        self._timers: dict[str, asyncio.TimerHandle] = {}
        task.add_done_callback(self._over)

    def receiving(self) -> None:
        """Begins to wait for the request."""
        self._arrivals.begin(self)
        self._after("transfer", self._patience.for_bytes(self._patience.message_bytes), self.stall)

    def received(self, too_long: SidecarError) -> None:
        """The request has come; from now on it may take its time, and then ends with an error."""
        self._arrivals.end(self)
        self._stop("transfer")
        # A little sooner than the work that it waits for, which would not say why.
        self._after("call", self._patience.call_seconds - _SOONER_SECONDS, lambda: self.end(too_long))

    def sending(self, byte_count: int) -> None:
        """Begins to send something, which is over with `sent` or with the call."""
        self._set_unread(byte_count)
        self._after("transfer", self._patience.for_bytes(byte_count), self.stall)

    def sent(self) -> None:
        """It has been read, or is on its way at least."""
        self._set_unread(0)
        self._stop("transfer")

    def end(self, error: SidecarError) -> None:
        """Ends it with an error, which its handler gets as a cancellation; the first one counts."""
        if self.error is not None or self.stalled:
            return
        if self.unread:
            self.stall()  # no status gets past what is not read
            return
        self.error = error
        self._task.cancel()

    def kill(self) -> None:
        """Ends it at once, without a word."""
        self._task.cancel()
        for keeper in self._keeper:
            if (task := keeper()) is not None:
                task.cancel()

    def stall(self) -> None:
        """Ends it at once, since its caller does not read or send."""
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
        self._arrivals.end(self)
        self._set_unread(0)
        for name in list(self._timers):
            self._stop(name)
