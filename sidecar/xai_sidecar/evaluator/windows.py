"""Rolling windows of scores: mean, standard error and count over the newest samples, by all classes and by each."""

from __future__ import annotations

import bisect
import math
import threading
from collections.abc import Collection
from operator import itemgetter
from typing import NamedTuple

from xai_sidecar.evaluator.pairing import ScoreArrays
from xai_sidecar.evaluator.records import SampleKey
from xai_sidecar.evaluator.weighted import Moments, ScoreStatistics, Sums, last_measured

MOST_PAIRED = 1000
"""Most pictures that a comparison of two explainers rests on, the newest: it is computed anew after each new score."""


class _Entry(NamedTuple):
    sample_time: float
    value: float
    target: int | None
    measured_time: float
    weight: float


class Window:
    """The scores of the newest samples. It may be used from several threads at once.

    Samples are ordered by when they were predicted, not by when they were measured or put in. One that newer ones have
    pushed out does not come back, not even if one of those is removed.

    Sums over all scores, and over those of each class, are updated with every change, so that statistics take the same
    time however many scores there are.

    Args:
        max_samples: The most that count.
        max_seconds: Samples older than this do not count.
        most_paired: The most that `scores` gives.
    """

    def __init__(self, max_samples: int, max_seconds: float, most_paired: int = MOST_PAIRED) -> None:
        self._max_samples = max_samples
        self._max_seconds = max_seconds
        self._most_paired = most_paired
        self._lock = threading.Lock()
        self._order: list[tuple[float, SampleKey]] = []
        self._entries: dict[SampleKey, _Entry] = {}
        # The sums are over `_order[_first:]`, the samples that were predicted at `_since` or later.
        self._since = -math.inf
        self._first = 0
        self._all = Sums()
        self._by_target: dict[int | None, Sums] = {}
        self._known: dict[tuple[int | None, frozenset[int]], ScoreStatistics | None] = {}  # until something changes
        self._scores: dict[int | None, ScoreArrays] = {}  # likewise
        self._revision = 0

    def put(
        self,
        key: SampleKey,
        sample_time: float,
        value: float,
        target: int | None = None,
        measured_time: float = 0.0,
        weight: float = 1.0,
    ) -> None:
        """Puts in the score of a sample, in place of an earlier one.

        Args:
            key: Which sample.
            sample_time: When it was predicted, as Unix time in seconds.
            value: The score, finite.
            target: The class that was explained.
            measured_time: When it was measured, as Unix time in seconds.
            weight: What it counts for in means; a whole number of 2⁻¹⁶, above 0.
        """
        with self._lock:
            self._remove(key)
            entry = self._entries[key] = _Entry(sample_time, value, target, measured_time, weight)
            bisect.insort(self._order, (sample_time, key))
            self._count(entry, 1)
            if len(self._order) > self._max_samples:
                self._remove(self._order[0][1])

    def remove(self, key: SampleKey) -> None:
        """Forgets a sample, if it is there."""
        with self._lock:
            self._remove(key)

    def statistics(
        self, now: float, target: int | None = None, targets_excluded: Collection[int] = ()
    ) -> ScoreStatistics | None:
        """Statistics of the scores that are young enough.

        Args:
            now: Unix time in seconds.
            target: Class of the samples that count; None for all classes.
            targets_excluded: Classes whose samples do not count.

        Returns:
            The statistics; None if there are no such scores.
        """
        which = (target, frozenset(targets_excluded))
        with self._lock:
            self._move(now - self._max_seconds)
            if which not in self._known:
                self._known[which] = self._computed(*which)
            return self._known[which]

    def targets(self, now: float) -> dict[int | None, int]:
        """How many scores that are young enough there are of each class that was explained."""
        with self._lock:
            self._move(now - self._max_seconds)
            return {target: len(sums.measured) for target, sums in self._by_target.items()}

    def revision(self, now: float) -> int:
        """A number that changes with the scores that are young enough at a Unix time in seconds."""
        with self._lock:
            self._move(now - self._max_seconds)
            return self._revision

    def scores(self, target: int | None = None) -> ScoreArrays:
        """Scores of the newest samples that counted when statistics, or the revision, were last asked for."""
        with self._lock:
            if target not in self._scores:
                newest = self._order[max(self._first, len(self._order) - self._most_paired) :]
                entries = [(key, self._entries[key]) for _, key in newest]
                self._scores[target] = ScoreArrays.of(
                    (key, each.value, each.measured_time, each.weight)
                    for key, each in entries
                    if target in (None, each.target)
                )
            return self._scores[target]

    def _computed(self, target: int | None, targets_excluded: frozenset[int]) -> ScoreStatistics | None:
        if target is not None:
            sums = None if target in targets_excluded else self._by_target.get(target)
            return None if sums is None else sums.moments.statistics(sums.measured[-1])
        counted = [sums for known, sums in self._by_target.items() if known not in targets_excluded]
        moments = self._all.moments
        for known in targets_excluded:
            if (sums := self._by_target.get(known)) is not None:
                moments = moments.minus(sums.moments)
        return moments.statistics(last_measured(counted))

    def _move(self, since: float) -> None:
        """Makes the sums those of the samples from a time on."""
        first = bisect.bisect_left(self._order, since, key=itemgetter(0))
        self._since, before = since, self._first
        moved = [self._entries[key] for _, key in self._order[min(first, before) : max(first, before)]]
        self._first = first
        for entry in moved:
            self._add(entry, 1 if first < before else -1)

    def _count(self, entry: _Entry, sign: int) -> None:
        """Updates sums and `_first` for an entry that was put into `_order` (sign 1) or taken out of it (-1)."""
        if entry.sample_time >= self._since:
            self._add(entry, sign)
        else:
            self._first += sign

    def _add(self, entry: _Entry, sign: int) -> None:
        self._known.clear()
        self._scores.clear()
        self._revision += 1
        of_target = self._by_target.get(entry.target)
        if of_target is None:
            of_target = self._by_target[entry.target] = Sums()
        moments = Moments.of(entry.value, entry.weight)  # not kept, which would take a kilobyte for each score
        for sums in (self._all, of_target):
            (sums.add if sign > 0 else sums.remove)(moments, entry.measured_time)
        if not of_target.moments.n:
            del self._by_target[entry.target]

    def _remove(self, key: SampleKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            del self._order[bisect.bisect_left(self._order, (entry.sample_time, key))]
            self._count(entry, -1)


class Windows:
    """A window for each explainer and metric. It may be used from several threads at once.

    Args:
        max_samples: The most samples that count in a window.
        max_seconds: Samples older than this do not count.
        most_paired: The most that a comparison of two explainers rests on.
    """

    def __init__(self, max_samples: int, max_seconds: float, most_paired: int = MOST_PAIRED) -> None:
        self._bounds = max_samples, max_seconds, most_paired
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], Window] = {}
        self._differences: dict[tuple[str, str, str, int | None], tuple[int, int, ScoreStatistics | None]] = {}

    def put(
        self,
        explainer: str,
        metric: str,
        key: SampleKey,
        sample_time: float,
        value: float,
        target: int,
        measured_time: float,
        weight: float = 1.0,
    ) -> None:
        """Puts in the score of an explainer's map of a sample, in place of an earlier one; see `Window.put`."""
        with self._lock:
            window = self._windows.setdefault((explainer, metric), Window(*self._bounds))
        window.put(key, sample_time, value, target, measured_time, weight)

    def remove(self, key: SampleKey, metrics: Collection[str]) -> None:
        """Forgets the scores of a sample by some metrics, of all explainers."""
        with self._lock:
            windows = [window for (_, metric), window in self._windows.items() if metric in metrics]
        for window in windows:
            window.remove(key)

    def statistics(
        self,
        explainer: str,
        metric: str,
        now: float,
        target: int | None = None,
        targets_excluded: Collection[int] = (),
    ) -> ScoreStatistics | None:
        """Statistics of an explainer's scores by a metric, None if there are none; see `Window.statistics`."""
        with self._lock:
            window = self._windows.get((explainer, metric))
        return None if window is None else window.statistics(now, target, targets_excluded)

    def targets(self, explainer: str, metric: str, now: float) -> dict[int | None, int]:
        """How many of an explainer's scores by a metric there are of each class that was explained."""
        with self._lock:
            window = self._windows.get((explainer, metric))
        return {} if window is None else window.targets(now)

    def differences(
        self, explainer: str, other: str, metric: str, now: float, target: int | None = None
    ) -> ScoreStatistics | None:
        """Statistics of how much higher an explainer scores than another one on the same pictures.

        Args:
            explainer: The explainer, or a control.
            other: What it is compared with.
            metric: The metric.
            now: Unix time in seconds.
            target: Class of the samples that count; None for all classes.

        Returns:
            Statistics of the differences, over the newest pictures with a score of both; None if there are none.
        """
        with self._lock:
            one, two = (self._windows.get((name, metric)) for name in (explainer, other))
        if one is None or two is None:
            return None
        pair = (explainer, other, metric, target)
        revisions = (one.revision(now), two.revision(now))
        with self._lock:
            known = self._differences.get(pair)
        if known is not None and known[:2] == revisions:
            return known[2]
        both = one.scores(target).less(two.scores(target))
        with self._lock:
            self._differences[pair] = (*revisions, both)
        return both
