"""Threads that are replaced when they hang, and workers that call functions one after the other on such a thread."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import structlog

Call = Callable[[], None]

MOST_STUCK = 3
"""Hanging threads that are replaced; the next one is not."""

_LOOK_SECONDS = 0.1
"""How often a wait for a thread looks whether it is still the present one."""

_log = structlog.get_logger(__name__)


def nothing() -> None:
    """Does nothing."""


class ReplacedError(BaseException):
    """A thread that hung has come back, and another one is in its place."""


@contextlib.contextmanager
def logged(event: str) -> Iterator[None]:
    """Logs exceptions of code that must not disturb the engine: observers, callbacks, computations."""
    try:
        yield
    except Exception:
        _log.exception(event)


class ReplaceableThread:
    """A thread that another one can take the place of: one that hangs cannot be ended from outside.

    Its owner has it replaced and asks whether it is current under a lock of the owner's.

    Args:
        name: Of the thread.
        run: What it runs. It has to return when it finds that it is not current any more.
    """

    def __init__(self, name: str, run: Call) -> None:
        self._make = partial(threading.Thread, target=run, name=name, daemon=True)
        self._thread = self._make()
        self._stuck: list[threading.Thread] = []

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the present thread runs."""
        return self._thread.is_alive()

    def join(self, timeout: float | None = None) -> None:
        """Waits until the present thread has ended, and not for one that was replaced in the meantime.

        Args:
            timeout: Seconds to wait at the most; None for as long as it takes.
        """
        until = float("inf") if timeout is None else time.monotonic() + timeout
        while self._thread.is_alive() and (left := until - time.monotonic()) > 0:
            self._thread.join(min(left, _LOOK_SECONDS))

    @property
    def is_current(self) -> bool:
        """Whether the caller's thread is this one, and was not replaced."""
        return threading.current_thread() is self._thread

    def replacement(self) -> threading.Thread | None:
        """A thread in the place of the present one, which hangs, for the owner to start; None if too many hang."""
        self._stuck = [thread for thread in self._stuck if thread.is_alive()]
        if len(self._stuck) >= MOST_STUCK:
            return None
        self._stuck.append(self._thread)
        self._thread = self._make()
        return self._thread

    def replace(self) -> int:
        """Starts another thread in the place of the present one, which hangs; returns how many hang now."""
        self._stuck = [thread for thread in [*self._stuck, self._thread] if thread.is_alive()]
        thread = self._make()
        thread.start()
        self._thread = thread  # only now, or it would be one that does not run
        return len(self._stuck)


@dataclass(eq=False)
class _Running:
    """The call in progress.

    Attributes:
        since: When it began, on the clock of `time.monotonic`.
        given_up: Called when it is given up.
        hopeless: Whether it was given up without another thread in its place.
    """

    since: float
    given_up: Call
    hopeless: bool = False


class Worker:
    """Calls functions one after the other on its own thread. Exceptions are logged."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Call, Call] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards the rest
        self._running: _Running | None = None
        self._thread = ReplaceableThread(name, self._run)

    @property
    def busy_since(self) -> float | None:
        """When the call in progress began, on the clock of `time.monotonic`; None when idle."""
        running = self._running
        return None if running is None else running.since

    @property
    def hopeless(self) -> bool:
        """Whether the call in progress was given up, and its thread not replaced because too many hang already."""
        running = self._running
        return running is not None and running.hopeless

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def call(self, function: Call, given_up: Call = nothing) -> None:
        """Queues a call; any thread may do so.

        Args:
            function: What to call.
            given_up: Called by `give_up` if the function hangs.
        """
        self._calls.put((function, given_up))

    def stop(self) -> None:
        """Ends the thread after the calls that are queued."""
        self._calls.put(None)

    def give_up(self) -> bool:
        """Gives up the call in progress: a new thread goes on with the queue, unless too many hang already.

        Should its thread come back after all, it ends if it was replaced, or else goes on.

        Returns:
            Whether the queue goes on; False where too many threads hang.
        """
        with self._lock:
            running = self._running
            if running is None:  # it has come back just now
                return True
            replacement = self._thread.replacement()
            if replacement is None:
                running.hopeless = True
            else:
                self._running = None
                replacement.start()
        with logged("giving_up_failed"):
            running.given_up()
        return not self.hopeless

    def _run(self) -> None:
        while (queued := self._calls.get()) is not None:
            function, given_up = queued
            running = _Running(time.monotonic(), given_up)
            self._running = running
            with logged("computation_failed"):
                function()
            with self._lock:
                if self._running is not running:
                    return
                self._running = None
            del queued, function, given_up, running  # they may hold a picture
