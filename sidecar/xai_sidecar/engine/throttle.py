"""When evaluation may have the device, so that hardly anybody notices. No clock, thread or device in here.

Whoever else comes has to wait for the evaluation launch in flight, and nobody knows when somebody comes. So while
others come, these launches are short, and those that cannot be short are so rare that they hardly touch the slowest
percent of predictions. Once nobody has come for a while, they are as long as anybody's.
"""

from __future__ import annotations

from dataclasses import dataclass

QUIET_SECONDS = 5.0
"""After so long without others none is expected: of those who come once a second, fewer than 1 % meet such a launch."""

LONG_SHARE = 0.005
"""The part of the device's time that long launches may have while others come."""

_LONG = 2.0
"""Slices from which on a launch is long. Machines are slower at times, and a row is not to be long only then."""

_STALL_SECONDS = 1.0
"""The most that counts of a launch: a machine that stood still for a while did not evaluate in that time."""


def is_long(seconds: float, slice_seconds: float) -> bool:
    """Whether a launch takes so long that it has to be rare while others come."""
    return seconds > _LONG * slice_seconds


@dataclass(eq=False)
class IdleThrottle:
    """What is left of the device for evaluation.

    Attributes:
        share: The part of the device's time that it may have.
        slice_seconds: What a launch may take while others come.
        quiet_slice_seconds: What it may take while none do.
    """

    share: float
    slice_seconds: float
    quiet_slice_seconds: float

    def __post_init__(self) -> None:
        self._others = float("-inf")  # when somebody else had the device, or came to want it
        self._rested = float("-inf")  # when enough time has passed since the last launch
        self._long_rested = float("-inf")  # the same of the last long one

    def others(self, now: float) -> None:
        """Takes down that somebody else wants the device, or has had it until now."""
        self._others = max(self._others, now)

    def longest(self, now: float) -> float:
        """What a launch may take that can be made as short as one likes."""
        return self.slice_seconds if now < self._others + QUIET_SECONDS else self.quiet_slice_seconds

    def begin(self, seconds: float) -> float:
        """When a launch may begin that takes so long even if it is made as short as it can be."""
        if not is_long(seconds, self.slice_seconds):
            return self._rested
        return max(self._rested, min(self._long_rested, self._others + QUIET_SECONDS))

    def ran(self, began: float, seconds: float) -> None:
        """Takes down a launch of evaluation."""
        counted = min(seconds, _STALL_SECONDS)
        self._rested = began + seconds + counted * (1 / self.share - 1)
        if is_long(seconds, self.slice_seconds):
            self._long_rested = began + counted / LONG_SHARE
