"""Scores of late, and what they come to."""

from __future__ import annotations

import bisect
import math
import threading
from collections.abc import Collection
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from xai_sidecar.evaluator.records import SampleKey

_UNIT_BITS = 1074
_ROOT_BITS = 64


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


class _Sums:
    """Count, sum and sum of squares of some scores, exact: however many come and go, no rounding adds up.

    A double is a whole number of 2⁻¹⁰⁷⁴, and its square one of 2⁻²¹⁴⁸; Python's whole numbers have no bounds.
    """

    __slots__ = ("count", "measured", "squares", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.squares = 0
        self.measured: list[float] = []  # when each was measured, rising

    def add(self, value: int, square: int, measured_time: float) -> None:
        """Takes a score, as `_whole` gives it."""
        self.count += 1
        self.total += value
        self.squares += square
        bisect.insort(self.measured, measured_time)

    def remove(self, value: int, square: int, measured_time: float) -> None:
        """Takes away a score that was added."""
        self.count -= 1
        self.total -= value
        self.squares -= square
        del self.measured[bisect.bisect_left(self.measured, measured_time)]


def _whole(value: float) -> tuple[int, int]:
    """A finite double in units of 2⁻¹⁰⁷⁴, and its square in units of 2⁻²¹⁴⁸."""
    numerator, denominator = value.as_integer_ratio()
    shift = _UNIT_BITS + 1 - denominator.bit_length()
    return numerator << shift, numerator * numerator << 2 * shift


def _estimated(count: int, total: int, squares: int, updated: float) -> Estimate | None:
    """What sums come to; each figure is rounded once."""
    if not count:
        return None
    error = None
    if count > 1:  # the variance over the count: (Σx² - (Σx)²/n) / (n - 1) / n
        error = _root(count * squares - total * total, count * count * (count - 1) << 2 * _UNIT_BITS)
    return Estimate(total / (count << _UNIT_BITS), error, count, updated)


def _root(numerator: int, denominator: int) -> float:
    """The square root of a quotient, which may be beyond what a double holds."""
    shift = max(0, 2 * _ROOT_BITS - numerator.bit_length() + denominator.bit_length()) // 2
    return math.isqrt((numerator << 2 * shift) // denominator) / (1 << shift)


class Window:
    """The scores of the newest samples. It may be used from several threads at once.

    Samples go by when they were predicted, not by when they were measured or put in. What newer ones have pushed out
    does not come back, not even if one of those is removed.

    Sums go along with what comes and goes, for all scores and for those of each class, so that an estimate takes the
    same time however many there are.

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
        # Of the samples from `_since` on, which are those from the place `_first` on.
        self._since = -math.inf
        self._first = 0
        self._all = _Sums()
        self._by_target: dict[int | None, _Sums] = {}
        self._estimates: dict[tuple[int | None, frozenset[int]], Estimate | None] = {}  # until something changes

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
            entry = self._entries[key] = _Entry(sample_time, value, target, measured_time)
            bisect.insort(self._order, (sample_time, key))
            self._count(entry, 1)
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
            self._move(now - self._max_seconds)
            if which not in self._estimates:
                self._estimates[which] = self._estimate(*which)
            return self._estimates[which]

    def _estimate(self, target: int | None, targets_excluded: frozenset[int]) -> Estimate | None:
        if target is not None:
            sums = None if target in targets_excluded else self._by_target.get(target)
            return None if sums is None else _estimated(sums.count, sums.total, sums.squares, sums.measured[-1])
        counted = [sums for known, sums in self._by_target.items() if known not in targets_excluded]
        apart = [sums for known in targets_excluded if (sums := self._by_target.get(known)) is not None]
        count, total, squares = (
            getattr(self._all, name) - sum(getattr(sums, name) for sums in apart)
            for name in ("count", "total", "squares")
        )
        return _estimated(count, total, squares, max((sums.measured[-1] for sums in counted), default=0.0))

    def _move(self, since: float) -> None:
        """Has the samples count from a time on."""
        first = bisect.bisect_left(self._order, since, key=itemgetter(0))
        self._since, before = since, self._first
        moved = [self._entries[key] for _, key in self._order[min(first, before) : max(first, before)]]
        self._first = first
        for entry in moved:
            self._add(entry, 1 if first < before else -1)

    def _count(self, entry: _Entry, sign: int) -> None:
        """Takes an entry into account that has come to its place, or goes from it."""
        if entry.sample_time >= self._since:
            self._add(entry, sign)
        else:
            self._first += sign

    def _add(self, entry: _Entry, sign: int) -> None:
        self._estimates.clear()
        value, square = _whole(entry.value)
        of_target = self._by_target.get(entry.target)
        if of_target is None:
            of_target = self._by_target[entry.target] = _Sums()
        for sums in (self._all, of_target):
            (sums.add if sign > 0 else sums.remove)(value, square, entry.measured_time)
        if not of_target.count:
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
