"""Tells watchers what changes in a store, without ever waiting for one, and within bounds."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from typing import NamedTuple

from xai_sidecar.evaluator.records import SampleKey

MOST_CHANGED = 1000
"""Samples that a watcher may leave unread; beyond that the oldest ones are forgotten, and counted."""


class Change(enum.Enum):
    """What happened to a sample."""

    NEW = "new"
    MEASURED = "measured"
    LABELLED = "labelled"
    TRUTH_APPLIED = "truth_applied"


class Changed(NamedTuple):
    """What a watcher has not read yet.

    Attributes:
        samples: What happened to samples, in the order in which something first happened to each.
        missed: Samples that were forgotten since the last reading.
    """

    samples: dict[SampleKey, frozenset[Change]]
    missed: int


class Watcher:
    """What has happened since a watcher last read. Any thread may use it.

    Args:
        on_change: Called, on whatever thread, with the first change after a reading; it must not wait.
    """

    def __init__(self, on_change: Callable[[], object]) -> None:
        self._on_change = on_change
        self._lock = threading.Lock()
        self._changed: dict[SampleKey, frozenset[Change]] = {}
        self._missed = 0

    def put(self, key: SampleKey, change: Change) -> None:
        """Takes a change."""
        with self._lock:
            first = not self._changed
            self._changed[key] = self._changed.get(key, frozenset()) | {change}
            if len(self._changed) > MOST_CHANGED:
                del self._changed[next(iter(self._changed))]
                self._missed += 1
        if first:
            self._on_change()

    def read(self) -> Changed:
        """What has happened since the last reading."""
        with self._lock:
            changed = Changed(self._changed, self._missed)
            self._changed, self._missed = {}, 0
        return changed


class Changes:
    """The watchers of a store. Any thread may use it."""

    def __init__(self) -> None:
        self._watchers: tuple[Watcher, ...] = ()
        self._lock = threading.Lock()

    def watch(self, on_change: Callable[[], object]) -> Watcher:
        """A new watcher, of what happens from now on; see `Watcher`."""
        watcher = Watcher(on_change)
        with self._lock:
            self._watchers = (*self._watchers, watcher)
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        """Ends a watcher."""
        with self._lock:
            self._watchers = tuple(each for each in self._watchers if each is not watcher)

    def put(self, key: SampleKey, change: Change) -> None:
        """Tells all watchers of a change."""
        for watcher in self._watchers:
            watcher.put(key, change)
