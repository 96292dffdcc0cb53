"""Watches whether the event loop still runs, and how late it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from xai_sidecar.engine.watchdog import Watchdog, Watched

_BEAT_SECONDS = 0.5

_LAG_SECONDS = 0.1
"""Time from one look at the lag to the next: often enough that a short block does not fall between two of them."""

LONGEST_SECONDS = 10.0
"""Longest time that one callback may block the loop."""

_log = structlog.get_logger(__name__)


class Heartbeat:
    """A task that counts on the event loop, and a thread that checks that it does.

    A pause of the whole process does not count as a hang; see `Watchdog`.

    Args:
        beat_seconds: Time from one beat to the next.
        longest_seconds: Longest time without a beat.
        late: Called on the loop with the seconds by which a beat came late.
    """

    def __init__(
        self,
        beat_seconds: float = _BEAT_SECONDS,
        longest_seconds: float = LONGEST_SECONDS,
        late: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        self._beat_seconds = min(beat_seconds, _LAG_SECONDS)
        self._late = late
        self._longest_seconds = longest_seconds
        self._beats = 0
        self._watched = Watched(lambda: self._beats, lambda: longest_seconds, self._hangs)
        self._watchdog = Watchdog("heartbeat", beat_seconds, [self._watched])
        self._task: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether the loop has run recently; any thread may ask."""
        return self._watched.seconds <= self._longest_seconds

    def start(self) -> None:
        """Starts both; to be called on the loop."""
        self._task = asyncio.ensure_future(self._beat())
        self._watchdog.start()

    def stop(self) -> None:
        """Stops both; to be called on the loop."""
        self._watchdog.stop()
        if self._task is not None:
            self._task.cancel()

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._beats += 1
            due = loop.time() + self._beat_seconds
            await asyncio.sleep(self._beat_seconds)
            self._late(max(0.0, loop.time() - due))

    def _hangs(self, seconds: float) -> None:
        _log.error("event_loop_hangs", seconds=round(seconds, 1))
