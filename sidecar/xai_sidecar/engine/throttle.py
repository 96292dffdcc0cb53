"""Limits evaluation to idle time of the device. No clock, thread or device in here.

A prediction or explanation that arrives has to wait for the evaluation batch in flight. So while such work keeps
coming, evaluation batches are short; those that cannot be short are so rare that they hardly change the 99th percentile
of predictions. Once none has come for `QUIET_SECONDS`, evaluation batches may be as long as any. What is short is
measured by what a prediction takes by itself, too: on a machine where that is longer than the slice, a batch of one
masked pass is no other than the batch of a prediction, which anybody has to wait for.
"""

from __future__ import annotations

from dataclasses import dataclass

QUIET_SECONDS = 5.0
"""Idle time after which long batches may run: of requests once a second, fewer than 1 % would then meet one."""

LONG_SHARE = 0.005
"""Share of device time for long evaluation batches while the device is not quiet."""

_LONG = 2.0
"""Time slices, or times of a prediction, from which on a batch is long; above 1, so that a machine that is slow at
times makes no row long."""

_HOLD_SECONDS = 0.01
"""How long no batch begins once a prediction has been announced: as long as most pictures take to be decoded."""

_STALL_SECONDS = 1.0
"""The most seconds that are charged for a batch: beyond, the machine stood still."""

_SAVED_SECONDS = 0.25
"""How much of the time in which it might have run beside the device is made up for."""


def is_long(seconds: float, slice_seconds: float, prediction_seconds: float = 0.0) -> bool:
    """Whether a batch takes so long that it has to be rare while other lanes are in use.

    Args:
        seconds: Cost of the batch.
        slice_seconds: Time slice of evaluation.
        prediction_seconds: Cost of the smallest batch of predictions.
    """
    return seconds > _LONG * max(slice_seconds, prediction_seconds)


@dataclass(eq=False)
class IdleThrottle:
    """Decides when an evaluation batch may begin, and how long it may be.

    "Others" are predictions and explanations.

    Attributes:
        share: Maximum share of device time for evaluation.
        slice_seconds: Time slice while others come.
        quiet_slice_seconds: Time slice once none has come for `QUIET_SECONDS`.
    """

    share: float
    slice_seconds: float
    quiet_slice_seconds: float

    def __post_init__(self) -> None:
        self._others = float("-inf")  # when others last used the device, or were queued
        self._rested = float("-inf")  # when the share allows the next batch
        self._long_rested = float("-inf")  # when it allows the next long one
        self._held = float("-inf")  # until when a prediction that was announced is waited for
        self._prediction_seconds = 0.0  # cost of the smallest batch of predictions

    def others(self, now: float) -> None:
        """Records that others were queued, or used the device until now."""
        self._others = max(self._others, now)

    def announced(self, now: float) -> None:
        """Records that a prediction will be queued soon; any thread may call it."""
        self._others = max(self._others, now)
        self._held = now + _HOLD_SECONDS

    def predicted(self, seconds: float) -> None:
        """Records the cost of the smallest batch of predictions."""
        self._prediction_seconds = seconds

    def arrived(self) -> None:
        """Records that a prediction was queued, which goes first by itself."""
        self._held = float("-inf")

    def longest(self, now: float) -> float:
        """The time slice of evaluation at this time."""
        return self.slice_seconds if now < self._others + QUIET_SECONDS else self.quiet_slice_seconds

    def begin(self, seconds: float) -> float:
        """When a batch may begin.

        Args:
            seconds: Cost of the batch at its smallest size.
        """
        rested = max(self._rested, self._held)
        if not self._is_long(seconds):
            return rested
        return max(rested, min(self._long_rested, self._others + QUIET_SECONDS))

    @property
    def begin_beside(self) -> float:
        """When a batch may begin that runs beside the device, in time that nobody else wants."""
        return self._rested

    def ran_beside(self, now: float, seconds: float) -> None:
        """Charges what batches beside the device have used of its CPUs, in seconds of all of them."""
        self._rested = max(self._rested, now - _SAVED_SECONDS) + seconds / self.share

    def pause(self, until: float) -> None:
        """Lets no batch begin before a time."""
        self._rested = max(self._rested, until)

    def ran(self, began: float, seconds: float) -> None:
        """Charges an evaluation batch."""
        counted = min(seconds, _STALL_SECONDS)
        self._rested = began + seconds + counted * (1 / self.share - 1)
        if self._is_long(seconds):
            self._long_rested = began + counted / LONG_SHARE

    def _is_long(self, seconds: float) -> bool:
        return is_long(seconds, self.slice_seconds, self._prediction_seconds)
