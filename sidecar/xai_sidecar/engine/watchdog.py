"""Telling what hangs from what is slow because the whole machine stands still."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from xai_sidecar.engine.threads import logged


@dataclass(eq=False)
class Watched:
    """Something that has to get on with what it does.

    Attributes:
        doing: Anything that changes when it gets on; None while it has nothing to do. It must not block.
        longest: Seconds for which it may stay the same.
        hung: Called once, with the seconds, when it has for longer; on the watchdog's thread.
        seconds: For how long it has stayed the same, as of the last look.
    """

    doing: Callable[[], Hashable | None]
    longest: Callable[[], float]
    hung: Callable[[float], None]
    seconds: float = 0.0
    _done: Hashable | None = field(default=None, repr=False)
    _told: bool = field(default=False, repr=False)

    def look(self, elapsed: float) -> None:
        """Takes down that so many seconds have passed."""
        doing = self.doing()
        if doing is None or doing != self._done:
            self._done, self.seconds, self._told = doing, 0.0, False
            return
        self.seconds += elapsed
        if not self._told and self.seconds > self.longest():
            self._told = True
            self.hung(self.seconds)


class Watchdog:
    """Looks after others on a thread of its own.

    Time counts by its own looks: when a look comes late, it and those that it watches have stood still alike, be it
    that the process was stopped, the machine was suspended, or something held Python's lock. So no look counts for more
    than two periods.

    Args:
        name: The thread's.
        period: Seconds between two looks.
        watched: Whom to watch.
    """

    def __init__(self, name: str, period: float, watched: Sequence[Watched]) -> None:
        self._period = period
        self._watched = watched
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Looks no more."""
        self._stopped.set()

    def look(self, elapsed: float) -> None:
        """One look, so many seconds after the last one."""
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
