"""Watches maps for drift without holding up those who have them: a few wait for its thread, others are let go."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import structlog

from xai_sidecar.config import DriftConfig
from xai_sidecar.engine.work import FloatArray
from xai_sidecar.evaluator.drift.stream import Comparison
from xai_sidecar.evaluator.drift.tracker import DriftTracker, StreamKey
from xai_sidecar.telemetry import DriftFigure, DriftFigures

_MOST_WAITING = 16
"""Pictures whose maps wait at the most."""

_log = structlog.get_logger(__name__)


class _Offered(NamedTuple):
    source: str
    target: int
    maps: Mapping[str, FloatArray]
    counted: frozenset[str]


class DriftMonitor:
    """Takes maps from any thread in microseconds, and compares them on a thread of its own.

    Of each explainer and source a map counts every `spacing_seconds` at the most; most calls so end at a look at the
    clock. What it knows is in memory alone: a reference belongs to this model, this config and this traffic, and a
    restart is how somebody says that from now on these are as they should be.

    Args:
        explainers: Names of the explainers.
        classes: Classes with statistics of their own, by class id.
        settings: The config's section.
        clock: Seconds.

    Attributes:
        dropped: Pictures that were let go since others waited.
    """

    def __init__(
        self,
        explainers: Sequence[str],
        classes: Mapping[int, str],
        settings: DriftConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tracker = DriftTracker(explainers, classes, settings)
        self._settings = settings
        self._known = frozenset(explainers)
        self._clock = clock
        self._changed = threading.Condition()
        self._due: dict[tuple[str, str], float] = {}
        self._waiting: deque[_Offered] = deque()
        self._busy = False
        self._closed = False
        self._thread: threading.Thread | None = None  # started with the first map
        self.dropped = 0

    def offer(self, source: str, target: int, maps: Mapping[str, FloatArray]) -> bool:
        """Offers maps of one picture and class; they are copied where they are taken. Never waits.

        Args:
            source: As of `tracker.SOURCES`.
            target: The class that is explained.
            maps: Believable maps (H, W) that were made with the server's parameters, by explainer.

        Returns:
            Whether they are taken.
        """
        if not self._settings.enabled:
            return False
        with self._changed:
            now = self._clock()
            counted = [name for name in maps if name in self._known and self._due.get((source, name), now) <= now]
            if not counted or self._closed:
                return False
            if len(self._waiting) >= _MOST_WAITING:
                self.dropped += 1
                return False
            copies = {name: saliency.copy() for name, saliency in maps.items()}
            self._waiting.append(_Offered(source, target, copies, frozenset(counted)))
            self._due.update({(source, name): now + self._settings.spacing_seconds for name in counted})
            self._start()
            self._changed.notify_all()
        return True

    def comparisons(self) -> Iterator[tuple[StreamKey, Comparison]]:
        """The latest comparison of each stream; see `DriftTracker.comparisons`."""
        return self._tracker.comparisons()

    def figures(self) -> DriftFigures:
        """The same as /metrics shows it."""
        found = (
            DriftFigure(*key, each.reference, each.current, each.distance / each.allowed)
            for key, each in self.comparisons()
        )
        return DriftFigures(tuple(found), self.dropped)

    def flush(self, seconds: float) -> bool:
        """Waits up to so many seconds until nothing waits; returns whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, seconds)

    def close(self) -> None:
        """Takes no more maps, and ends the thread."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="drift", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                offered, self._busy = self._waiting.popleft(), True
            try:
                self._tracker.add(*offered)
            except Exception:  # whatever is in a map must not end the watching
                _log.exception("drift_failed")
