"""Scores of late, and what they come to."""

from __future__ import annotations

import bisect
import math
import threading
from collections.abc import Collection
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from xai_sidecar.evaluator.records import SampleKey


@dataclass(frozen=True)
class Estimate:
    """What the scores in a window come to.

    Attributes:
        mean: Of the scores.
        standard_error: Of the mean: the sample's standard deviation over √count. None for a single score.
        count: How many scores there are.
        updated: When the latest of them was measured, as Unix time in seconds.
    """

    mean: float
    standard_error: float | None
    count: int
    updated: float


class _Entry(NamedTuple):
    sample_time: float
    value: float
    target: int | None
    measured_time: float


class Window:
    """The scores of the newest samples. It may be used from several threads at once.

    Samples go by when they were predicted, not by when they were measured or put in. What newer ones have pushed out
    does not come back, not even if one of those is removed.

    Args:
        max_samples: The most that count.
        max_seconds: Samples older than this do not count.
    """

    def __init__(self, max_samples: int, max_seconds: float) -> None:
        self._max_samples = max_samples
        self._max_seconds = max_seconds
        self._lock = threading.Lock()
        self._order: list[tuple[float, SampleKey]] = []
        self._entries: dict[SampleKey, _Entry] = {}
        # Estimates of the samples from the place `_first` on, until those are others.
        self._first = 0
        self._estimates: dict[tuple[int | None, frozenset[int]], Estimate | None] = {}

    def put(
        self, key: SampleKey, sample_time: float, value: float, target: int | None = None, measured_time: float = 0.0
    ) -> None:
        """Takes the score of a sample, instead of an earlier one.

        Args:
            key: Which sample.
            sample_time: When it was predicted, as Unix time in seconds.
            value: The score, finite.
            target: The class that was explained.
            measured_time: When it was measured, as Unix time in seconds.
        """
        with self._lock:
            self._remove(key)
            bisect.insort(self._order, (sample_time, key))
            self._entries[key] = _Entry(sample_time, value, target, measured_time)
            if len(self._order) > self._max_samples:
                self._remove(self._order[0][1])

    def remove(self, key: SampleKey) -> None:
        """Forgets a sample, if it is there."""
        with self._lock:
            self._remove(key)

    def estimate(
        self, now: float, target: int | None = None, targets_excluded: Collection[int] = ()
    ) -> Estimate | None:
        """What the scores come to.

        Args:
            now: Unix time in seconds.
            target: Of samples of this class alone; None for all classes.
            targets_excluded: Classes whose samples do not count.

        Returns:
            The estimate; None if there are no such scores.
        """
        which = (target, frozenset(targets_excluded))
        with self._lock:
            first = bisect.bisect_left(self._order, now - self._max_seconds, key=itemgetter(0))
            if first != self._first:
                self._first = first
                self._estimates.clear()
            if which not in self._estimates:
                self._estimates[which] = self._computed(*which)
            return self._estimates[which]

    def _computed(self, target: int | None, targets_excluded: frozenset[int]) -> Estimate | None:
        entries = [
            entry
            for entry in (self._entries[key] for _, key in self._order[self._first :])
            if target in (None, entry.target) and entry.target not in targets_excluded
        ]
        if not entries:
            return None
        values = np.array([entry.value for entry in entries], np.float64)
        return Estimate(
            mean=float(values.mean()),
            standard_error=float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None,
            count=len(values),
            updated=max(entry.measured_time for entry in entries),
        )

    def _remove(self, key: SampleKey) -> None:
        self._estimates.clear()
        entry = self._entries.pop(key, None)
        if entry is not None:
            del self._order[bisect.bisect_left(self._order, (entry.sample_time, key))]


class Windows:
    """A window for each explainer and metric. It may be used from several threads at once.

    Args:
        max_samples: The most samples that count in a window.
        max_seconds: Samples older than this do not count.
    """

    def __init__(self, max_samples: int, max_seconds: float) -> None:
        self._max_samples = max_samples
        self._max_seconds = max_seconds
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], Window] = {}

    def put(
        self,
        explainer: str,
        metric: str,
        key: SampleKey,
        sample_time: float,
        value: float,
        target: int,
        measured_time: float,
    ) -> None:
        """Takes the score of an explainer's map of a sample, instead of an earlier one; see `Window.put`."""
        with self._lock:
            window = self._windows.setdefault((explainer, metric), Window(self._max_samples, self._max_seconds))
        window.put(key, sample_time, value, target, measured_time)

    def remove(self, key: SampleKey, metrics: Collection[str]) -> None:
        """Forgets what some metrics said of a sample's maps, whoever made them."""
        with self._lock:
            windows = [window for (_, metric), window in self._windows.items() if metric in metrics]
        for window in windows:
            window.remove(key)

    def estimate(
        self,
        explainer: str,
        metric: str,
        now: float,
        target: int | None = None,
        targets_excluded: Collection[int] = (),
    ) -> Estimate | None:
        """What an explainer's scores by a metric come to, None if there are none; see `Window.estimate`."""
        with self._lock:
            window = self._windows.get((explainer, metric))
        return None if window is None else window.estimate(now, target, targets_excluded)
