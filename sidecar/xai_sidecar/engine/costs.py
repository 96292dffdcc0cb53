"""The cost model: what batches take, and how much of its time a device is in use. No clock or thread in here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from xai_sidecar.engine.work import Kind

_WEIGHT = 0.1
"""Of the last batch in the exponential average."""

_BOUNDS = (0.25, 8.0)
"""Ratios of measured to expected seconds are clipped to this: beyond, something else held the batch up."""


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


def least_seconds(row_count: int, costs: Mapping[int, float]) -> float:
    """Seconds of rows in batches of the size that is done soonest, by the seconds of a batch of each size."""
    return min(math.ceil(row_count / size) * seconds for size, seconds in costs.items())
