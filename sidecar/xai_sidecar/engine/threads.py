"""The threads beside the device's: some that call functions in turn, and one that calls them at their times."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator

import structlog

Call = Callable[[], None]

_LONGEST_WAIT = 3600.0
"""Seconds; a thread cannot wait for centuries, which a caller may allow."""

_log = structlog.get_logger(__name__)


@contextlib.contextmanager
def logged(event: str) -> Iterator[None]:
    """Logs what others' code raises where it must not disturb the jobs."""
    try:
        yield
    except Exception:
        _log.exception(event)


class Worker:
    """Calls functions one after the other on a thread of its own. What they raise is logged.

    Attributes:
        busy_since: When it began with what it does, on the clock of `time.monotonic`; None when it waits.
    """

    def __init__(self, name: str) -> None:
        self.busy_since: float | None = None
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begins to call."""
        self._thread.start()

    def call(self, function: Call) -> None:
        """Has a function called after those that wait already; any thread may ask."""
        self._calls.put(function)

    def stop(self) -> None:
        """Ends it after what waits already."""
        self._calls.put(None)

    def _run(self) -> None:
        while (function := self._calls.get()) is not None:
            self.busy_since = time.monotonic()
            with logged("computation_failed"):
                function()
            self.busy_since = None
            del function  # it may hold a picture


class Timer:
    """Calls functions at their times, on a thread of its own. What they raise is logged; they must not take long."""

    def __init__(self, name: str) -> None:
        self._due: list[tuple[float, int, Call]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begins to call."""
        self._thread.start()

    def at(self, when: float, function: Call) -> None:
        """Has a function called at a time on the clock of `time.monotonic`; any thread may ask."""
        with self._changed:
            entry = (when, next(self._order), function)
            heapq.heappush(self._due, entry)
            if self._due[0] is entry:
                self._changed.notify()

    def stop(self) -> None:
        """Ends it; what is not due yet is never called."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and not (self._due and self._due[0][0] <= time.monotonic()):
                    self._changed.wait(min(self._due[0][0] - time.monotonic(), _LONGEST_WAIT) if self._due else None)
                if self._stopped:
                    return
                function = heapq.heappop(self._due)[2]
            with logged("timer_failed"):
                function()
