"""A watchdog that detects hanging threads, but takes no pause of the whole machine for a hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from xai_sidecar.engine.threads import logged


@dataclass(eq=False)
class Watched:
    """Something that must make progress.

    Attributes:
        doing: Returns a value that changes with progress; None while idle. It must not block.
        longest: Returns the seconds without progress from which on it hangs.
        hung: Called once per hang with the seconds so far, on the watchdog's thread.
        seconds: Seconds without progress at the last check.
    """

    doing: Callable[[], Hashable | None]
    longest: Callable[[], float]
    hung: Callable[[float], None]
    seconds: float = 0.0
    _done: Hashable | None = field(default=None, repr=False)
    _reported: bool = field(default=False, repr=False)

    def look(self, elapsed: float) -> None:
        """Checks for progress, so many seconds after the last check."""
        doing = self.doing()
        if doing is None or doing != self._done:
            self._done, self.seconds, self._reported = doing, 0.0, False
            return
        self.seconds += elapsed
        if not self._reported and self.seconds > self.longest():
            self._reported = True
            self.hung(self.seconds)


class Watchdog:
    """Checks others for progress periodically, on its own thread.

    It measures time by its own checks: when a check is late, the process was stopped, the machine suspended or Python's
    lock held, and what it watches could not make progress either. So no interval counts for more than two periods.

    Args:
        name: The thread's.
        period: Seconds between two checks.
        watched: What to watch.
    """

    def __init__(self, name: str, period: float, watched: Sequence[Watched]) -> None:
        self._period = period
        self._watched = watched
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped.set()

    def look(self, elapsed: float) -> None:
        """Checks everything once, so many seconds after the last time."""
        counted = min(elapsed, 2 * self._period)
        for each in self._watched:
            with logged("watchdog_failed"):
                each.look(counted)

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stopped.wait(self._period):
            now = time.monotonic()
            self.look(now - last)
            last = now
