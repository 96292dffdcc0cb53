"""Telling people how far a training is and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_SECONDS_BETWEEN_LINES = 5.0


@dataclass(frozen=True)
class Step:
    """How far it is.

    Attributes:
        stage: What is going on.
        done: Of `total`. The first step of a stage tells what was done already, in an earlier run.
        total: How much there is to do.
        unit: What is counted, in the plural.
        note: What else there is to know.
    """

    stage: str
    done: int
    total: int
    unit: str
    note: str = ""


Progress = Callable[[Step], None]
"""Told of every step."""


class Lines:
    """Progress as lines of text, one every few seconds and one at the end of each stage.

    Args:
        report: Takes the lines.
        clock: Seconds that never go back.
    """

    def __init__(self, report: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._clock = clock
        self._first: Step | None = None
        self._started = 0.0
        self._told = 0.0

    def __call__(self, step: Step) -> None:
        """Takes a step."""
        now = self._clock()
        if self._first is None or self._first.stage != step.stage:
            self._first, self._started, self._told = step, now, now
        over = step.done == step.total
        if over or now - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = now
            left = "" if over else self._left(step, now)
            note = f", {step.note}" if step.note else ""
            self._report(f"{step.stage}: {step.done:,} of {step.total:,} {step.unit}{note}{left}")

    def _left(self, step: Step, now: float) -> str:
        done = step.done - (self._first.done if self._first else 0)
        if not done:
            return ""
        return f", {told((now - self._started) / done * (step.total - step.done))} left"


class Bars:
    """Progress as a bar on a terminal's standard error, with the time left; see tqdm."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""

    def __call__(self, step: Step) -> None:
        """Takes a step."""
        # Only here: a server that trains nothing does not need it.
        from tqdm import tqdm

        if self._bar is None or step.stage != self._stage:
            self.close()
            self._stage = step.stage
            self._bar = tqdm(total=step.total, initial=step.done, desc=step.stage, unit=f" {step.unit}", smoothing=0.1)
        self._bar.update(step.done - self._bar.n)
        if step.note:
            self._bar.set_postfix_str(step.note)
        if step.done == step.total:
            self.close()

    def close(self) -> None:
        """Leaves the bar as it is; to be called when interrupted, before anything else is written."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def told(seconds: float) -> str:
    """A time for people: "9 s", "4 min", "2 h 5 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
