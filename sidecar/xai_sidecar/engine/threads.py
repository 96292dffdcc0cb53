"""Threads that call functions in turn."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

Call = Callable[[], None]

MOST_STUCK = 3
"""Threads of a kind that may hang before no more are started in their place."""

_log = structlog.get_logger(__name__)


def nothing() -> None:
    """Does nothing."""


@contextlib.contextmanager
def logged(event: str) -> Iterator[None]:
    """Logs what others' code raises where it must not disturb the jobs."""
    try:
        yield
    except Exception:
        _log.exception(event)


@dataclass(eq=False)
class _Running:
    """What a worker does.

    Attributes:
        since: When it began, on the clock of `time.monotonic`.
        given_up: To be called when it is waited for no longer.
        hopeless: Whether it has been given up and nobody took its place.
    """

    since: float
    given_up: Call
    hopeless: bool = False


class Worker:
    """Calls functions one after the other on a thread of its own. What they raise is logged."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[tuple[Call, Call] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards the rest
        self._running: _Running | None = None
        self._stuck: list[threading.Thread] = []
        self._thread = self._new_thread()

    @property
    def busy_since(self) -> float | None:
        """When it began with what it does, on the clock of `time.monotonic`; None when it waits."""
        running = self._running
        return None if running is None else running.since

    @property
    def hopeless(self) -> bool:
        """Whether what it does was given up, as were others before, so that no thread took its place."""
        running = self._running
        return running is not None and running.hopeless

    def start(self) -> None:
        """Begins to call."""
        self._thread.start()

    def call(self, function: Call, given_up: Call = nothing) -> None:
        """Has a function called after those that wait already; any thread may ask.

        Args:
            function: What to call.
            given_up: Called instead of waiting any longer, by `give_up`, for the function's own end.
        """
        self._calls.put((function, given_up))

    def stop(self) -> None:
        """Ends it after what waits already."""
        self._calls.put(None)

    def give_up(self) -> None:
        """Waits no longer for what hangs: another thread goes on with the next, if not too many hang already.

        A thread cannot be ended from outside; should it come back after all, it ends, or goes on if it was not
        replaced.
        """
        with self._lock:
            running = self._running
            if running is None:  # it has come back just now
                return
            self._stuck = [thread for thread in self._stuck if thread.is_alive()]
            if len(self._stuck) < MOST_STUCK:
                self._stuck.append(self._thread)
                self._running = None
                self._thread = self._new_thread()
                self._thread.start()
            else:
                running.hopeless = True
        with logged("giving_up_failed"):
            running.given_up()

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name=self._name, daemon=True)

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
