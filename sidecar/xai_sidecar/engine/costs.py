"""What launches cost now. No clock, thread or device in here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from xai_sidecar.engine.work import Kind

_WEIGHT = 0.1
"""Of the last launch in the average."""

_BOUNDS = (0.25, 8.0)
"""A launch that took longer by more than this was held up by something else, such as a compilation."""


class CostModel:
    """The costs measured at start, times how much slower the launches of a kind have been of late.

    A machine shared with others is slower than it was when nothing else ran, and launches are to keep to the slice all
    the same. One factor for all sizes of a kind, so that a size that is not used any more is not misjudged for ever.

    Args:
        measured: The batch sizes of a kind, with the seconds that a launch of each took at start.
    """

    def __init__(self, measured: Callable[[Kind], Mapping[int, float]]) -> None:
        self._measured = measured
        self._factors: dict[Kind, float] = {}

    def costs(self, kind: Kind) -> Mapping[int, float]:
        """The batch sizes of a kind, with the seconds that a launch of each takes now; any thread may ask."""
        factor = self._factors.get(kind, 1.0)
        return {size: factor * seconds for size, seconds in self._measured(kind).items()}

    def ran(self, kind: Kind, size: int, seconds: float) -> None:
        """Takes down what a launch took."""
        measured = self._measured(kind).get(size, 0.0)
        if measured > 0:
            low, high = _BOUNDS
            ratio = min(max(seconds / measured, low), high)
            self._factors[kind] = (1 - _WEIGHT) * self._factors.get(kind, 1.0) + _WEIGHT * ratio

    def seconds(self, kind: Kind, row_count: int) -> float:
        """What that many rows take at the best batch size, on a device that does nothing else; any thread may ask."""
        return least_seconds(row_count, self.costs(kind))


class Busy:
    """The part of the time that something has had the device lately, the last moments counting most.

    Args:
        memory_seconds: What lies back as long as this counts 1/e.
    """

    def __init__(self, memory_seconds: float = 1.0) -> None:
        self._memory = memory_seconds
        self._last: tuple[float, float] = (0.0, 0.0)  # when it ended, and what it came to then; replaced as a whole

    def ran(self, now: float, seconds: float) -> None:
        """Takes down that it had the device for so long until now."""
        had = self._memory * (1 - math.exp(-seconds / self._memory))
        self._last = (now, self._decayed(now) + had)

    def share(self, now: float) -> float:
        """The part of the time, 0 to 1; any thread may ask."""
        return min(1.0, self._decayed(now) / self._memory)

    def _decayed(self, now: float) -> float:
        then, sum_then = self._last
        return sum_then * math.exp(-max(0.0, now - then) / self._memory)


def least_seconds(row_count: int, costs: Mapping[int, float]) -> float:
    """What rows take in launches of the batch size that does them soonest, at what a launch of each size takes."""
    return min(math.ceil(row_count / size) * seconds for size, seconds in costs.items())
