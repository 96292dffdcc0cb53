"""The timer thread: calls functions at given times."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from functools import partial

import structlog

from xai_sidecar.engine.threads import Call, ReplaceableThread, logged, nothing
from xai_sidecar.engine.watchdog import Watched

_LONGEST_WAIT = 3600.0
"""Seconds; a thread cannot wait for centuries, which a caller may allow."""

_log = structlog.get_logger(__name__)


class Alarm:
    """A call scheduled by `Timer.at`."""

    __slots__ = ("_cancel", "function")

    def __init__(self, function: Call, cancel: Callable[[Alarm], None]) -> None:
        self.function: Call | None = function
        self._cancel = cancel

    def cancel(self) -> None:
        """Cancels the call, if it has not begun; any thread may do so."""
        self._cancel(self)


class Timer:
    """Calls functions at given times on its own thread. They must be quick; exceptions are logged."""

    def __init__(self, name: str) -> None:
        self._due: list[tuple[float, int, Alarm]] = []
        self._cancelled = 0  # of these
        self._wakes = float("-inf")  # when the thread looks next by itself; before it first has, it looks at once
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = ReplaceableThread(name, self._run)
        self.busy_since: float | None = None

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def at(self, when: float, function: Call) -> Alarm:
        """Schedules a call at a time on the clock of `time.monotonic`; any thread may do so."""
        alarm = Alarm(function, self._forget)
        with self._changed:
            heapq.heappush(self._due, (when, next(self._order), alarm))
            # It may still sleep until an alarm that was cancelled since, which is early enough for a later one: most
            # are deadlines, a minute off and cancelled at once, and to wake a thread for each costs a prediction time.
            if when < self._wakes:
                self._changed.notify()
        return alarm

    def stop(self) -> None:
        """Ends the thread; calls that are not due yet are dropped."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def watched(self, hang_seconds: float) -> Watched:
        """The thread, to be watched by a watchdog."""
        return Watched(partial(getattr, self, "busy_since"), lambda: hang_seconds, self._hangs)

    def _hangs(self, seconds: float) -> None:
        _log.error("timer_hangs", seconds=round(seconds, 1))
        self.give_up()

    def give_up(self) -> None:
        """Gives up the call in progress: a new thread goes on, unless too many hang already."""
        with self._changed:
            if self.busy_since is not None and (replacement := self._thread.replacement()) is not None:
                self.busy_since = None
                replacement.start()

    def _forget(self, alarm: Alarm) -> None:
        """Cancels an alarm. It stays in the heap until most there are cancelled: constant time on average."""
        with self._changed:
            if alarm.function is None:
                return
            alarm.function = None
            self._cancelled += 1
            if self._cancelled > len(self._due) // 2:
                self._due = [entry for entry in self._due if entry[2].function is not None]
                heapq.heapify(self._due)
                self._cancelled = 0

    def _run(self) -> None:
        while (function := self._next()) is not None:
            with logged("timer_failed"):
                function()
            del function

    def _next(self) -> Call | None:
        """Waits for the next call that is due; None when the thread has to end."""
        with self._changed:
            if not self._thread.is_current:
                return None
            self.busy_since = None
            while not self._stopped and not (self._due and self._due[0][0] <= time.monotonic()):
                now = time.monotonic()
                seconds = min(self._due[0][0] - now, _LONGEST_WAIT) if self._due else _LONGEST_WAIT
                self._wakes = now + seconds
                self._changed.wait(seconds)
            self._wakes = float("-inf")
            if self._stopped:
                return None
            alarm = heapq.heappop(self._due)[2]
            function, alarm.function = alarm.function, None
            if function is None:
                self._cancelled -= 1
                return nothing
            self.busy_since = time.monotonic()
            return function
