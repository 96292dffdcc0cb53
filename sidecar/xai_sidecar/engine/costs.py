"""The cost model: what batches take, and how much of its time a device is in use. No clock or thread in here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from xai_sidecar.engine.work import Kind

_WEIGHT = 0.1
"""Of the last batch in the exponential average."""

_BOUNDS = (0.25, 8.0)
"""Ratios of measured to expected seconds are clipped to this: beyond, something else held the batch up."""

_USUAL_SECONDS = 1.0
"""Weight of an explainer's usual slowdown beside the recent one, in seconds as measured at start."""

_EXPECTED_SECONDS = 0.25
"""Weight of a usual slowdown that another process has found, in the same seconds: about those of a trial. A power of
two, so that what is expected is what is told, to the last digit."""

_LONGEST_RATIO = 8.0
_LONGEST_GAP = 1.0
"""Between two batches no more seconds count than this, besides that ratio: beyond, something hung."""


class CostModel:
    """Predicts the seconds of a batch: as measured at start, times how much slower its kind has been recently.

    A machine shared with others is slower than it was when nothing else ran, and batches have to keep to the time slice
    all the same. There is one factor for all sizes of a kind, so that a size no longer used is not misjudged for ever.

    Args:
        measured: The batch sizes of a kind, with the seconds that a batch of each took at start.
    """

    def __init__(self, measured: Callable[[Kind], Mapping[int, float]]) -> None:
        self._measured = measured
        self._factors: dict[Kind, float] = {}

    def costs(self, kind: Kind) -> Mapping[int, float]:
        """The batch sizes of a kind, with the predicted seconds of each; any thread may ask."""
        factor = self._factors.get(kind, 1.0)
        return {size: factor * seconds for size, seconds in self._measured(kind).items()}

    def ran(self, kind: Kind, size: int, seconds: float) -> None:
        """Records the seconds that a batch took."""
        measured = self._measured(kind).get(size, 0.0)
        if measured > 0:
            low, high = _BOUNDS
            ratio = min(max(seconds / measured, low), high)
            self._factors[kind] = (1 - _WEIGHT) * self._factors.get(kind, 1.0) + _WEIGHT * ratio

    def seconds(self, kind: Kind, row_count: int) -> float:
        """Predicted seconds of rows at the best batch size on an otherwise idle device; any thread may ask."""
        return least_seconds(row_count, self.costs(kind))


class Utilization:
    """The recent share of time in which the device was in use, exponentially weighted.

    Args:
        memory_seconds: Time constant: use that lies back as long as this counts 1/e.
    """

    def __init__(self, memory_seconds: float = 1.0) -> None:
        self._memory = memory_seconds
        self._last: tuple[float, float] = (0.0, 0.0)  # when use ended, and the sum then; replaced as a whole

    def ran(self, now: float, seconds: float) -> None:
        """Records that the device was in use for so many seconds until now."""
        used = self._memory * (1 - math.exp(-seconds / self._memory))
        self._last = (now, self._decayed(now) + used)

    def share(self, now: float) -> float:
        """The share, 0 to 1; any thread may ask."""
        return min(1.0, self._decayed(now) / self._memory)

    def _decayed(self, now: float) -> float:
        then, sum_then = self._last
        return sum_then * math.exp(-max(0.0, now - then) / self._memory)


class Slowdown:
    """The seconds that explanations take in practice over those measured for their rows at start, by explainer.

    It counts whatever holds explanations up: a machine that is slow, padding, the arithmetic between passes, batches of
    evaluations in flight. All the time between two batches of explanations counts, but for the share of predictions,
    which whoever asks has to add as it is then. There are two averages, both weighted by time: a recent one, and a long
    one, which counts the more the less is recent.

    Args:
        recent_seconds: Time constant of the recent average.
        long_seconds: Time constant of the other.
    """

    def __init__(self, recent_seconds: float = 10.0, long_seconds: float = 600.0) -> None:
        self._recent, self._long = recent_seconds, long_seconds
        self._running: set[object] = set()
        self._last = 0.0
        self._sums: dict[str, _Sums] = {}

    def expect(self, label: str, usual: float, now: float) -> None:
        """Takes on what was usual in another process, as if a little had run here. Any thread may call it."""
        self._sums[label] = _Sums(now, long_taken=usual * _EXPECTED_SECONDS, long_measured=_EXPECTED_SECONDS)

    def began(self, owner: object, now: float) -> None:
        """Records that an explanation asks for its first rows."""
        if not self._running:
            self._last = now
        self._running.add(owner)

    def ran(self, label: str, measured: float, now: float, share: float) -> None:
        """Records that a batch of explanations ended.

        Args:
            label: The explainer's name.
            measured: Seconds of its rows at the best batch size, as measured at start.
            now: When it ended.
            share: Of the device's time, what predictions leave.
        """
        seconds = min(share * max(0.0, now - self._last), _LONGEST_RATIO * measured + _LONGEST_GAP)
        self._last = max(now, self._last)
        before = self._sums.get(label, _Sums(now))
        self._sums[label] = before.plus(seconds, measured, now, self._recent, self._long)

    def ended(self, owner: object, label: str, now: float, share: float) -> None:
        """Records that an explanation ended: what it took after its last batch counts where it was alone."""
        if owner in self._running:
            self._running.discard(owner)
            if not self._running:
                self.ran(label, 0.0, now, share)

    def ratio(self, label: str, now: float) -> float:
        """The ratio of an explainer at a time; 1 where nothing of it has run. Any thread may ask."""
        sums = self._sums.get(label)
        return 1.0 if sums is None else sums.ratio(now, self._recent)

    def usual(self, label: str) -> float:
        """The long average of an explainer; 1 where nothing of it has run. Any thread may ask."""
        sums = self._sums.get(label)
        return 1.0 if sums is None else sums.usual


@dataclass(frozen=True)
class _Sums:
    """Seconds taken and seconds measured at start, recent ones and those of a long time; replaced as a whole."""

    then: float
    taken: float = 0.0
    measured: float = 0.0
    long_taken: float = 0.0
    long_measured: float = 0.0

    def plus(self, taken: float, measured: float, now: float, recent: float, long: float) -> _Sums:
        short, far = (math.exp(-max(0.0, now - self.then) / memory) for memory in (recent, long))
        return _Sums(
            now,
            short * self.taken + taken,
            short * self.measured + measured,
            far * self.long_taken + taken,
            far * self.long_measured + measured,
        )

    @property
    def usual(self) -> float:
        return self.long_taken / self.long_measured if self.long_measured > 0 else 1.0

    def ratio(self, now: float, recent: float) -> float:
        kept = math.exp(-max(0.0, now - self.then) / recent)
        return (kept * self.taken + _USUAL_SECONDS * self.usual) / (kept * self.measured + _USUAL_SECONDS)


def least_seconds(row_count: int, costs: Mapping[int, float]) -> float:
    """Seconds of rows in batches of the size that is done soonest, by the seconds of a batch of each size."""
    return min(math.ceil(row_count / size) * seconds for size, seconds in costs.items())


def row_seconds(costs: Mapping[int, float], longest: float) -> float:
    """Seconds of a row at the best batch size that takes no longer than `longest`, or else at the smallest."""
    allowed = {size: seconds for size, seconds in costs.items() if seconds <= longest} or {
        min(costs): costs[min(costs)]
    }
    return min(seconds / size for size, seconds in allowed.items())
