"""Progress of a training, with the time left, as lines or as bars."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_SECONDS_BETWEEN_LINES = 5.0
_BAR_WIDTH = 20
_SPEED_SECONDS = 600.0
"""Over which the time left is estimated: an epoch may take minutes."""


@dataclass(frozen=True)
class Step:
    """Progress within a stage of a training.

    Attributes:
        stage: Name of the stage.
        done: How much of `total` is done. In the first step of a stage, what an earlier run did.
        total: How much the stage has to do; None if that is not known.
        unit: What is counted, in the plural.
        note: Any other remark.
    """

    stage: str
    done: int
    total: int | None
    unit: str
    note: str = ""


Progress = Callable[[Step], None]
"""Called with every step."""


class ProgressLines:
    """Progress as lines of text, one every few seconds and one at the end of each stage.

    Args:
        report: Takes the lines.
        clock: Seconds that never go back.
    """

    def __init__(self, report: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._clock = clock
        self._stage: _Stage | None = None
        self._reported = 0.0

    def __call__(self, step: Step) -> None:
        """Takes a step."""
        now = self._clock()
        if self._stage is None or self._stage.name != step.stage:
            self._stage, self._reported = _Stage(step, now), now
        if step.done == step.total or now - self._reported >= _SECONDS_BETWEEN_LINES:
            self._reported = now
            all_of_it = "" if step.total is None else f" of {step.total:,}"
            each = self._stage.each(step, now)
            pace = f", {_pace(each)}" if each else ""
            more = 0 if step.total is None else step.total - step.done
            left = f", {duration_text(each * more)} left" if each and more else ""
            note = f", {step.note}" if step.note else ""
            self._report(f"{step.stage}: {step.done:,}{all_of_it} {step.unit}{note}{pace}{left}")


class _Stage:
    """A stage that goes on, from its first step and when that was.

    Attributes:
        name: Its name.
    """

    def __init__(self, first: Step, started: float) -> None:
        self.name = first.stage
        self._done, self._started = first.done, started

    def each(self, step: Step, now: float) -> float:
        """Seconds for one, since the first step; 0 where that is not known yet."""
        done = step.done - self._done
        return (now - self._started) / done if done > 0 else 0.0


def _pace(each: float) -> str:
    """How fast it goes, for people: "12 a second" or "4.1 s each"."""
    if each > 1:
        return f"{each:.2g} s each" if each < 10 else f"{each:.0f} s each"
    per_second = 1 / each
    return f"{per_second:.2g} a second" if per_second < 10 else f"{per_second:,.0f} a second"


class ProgressBars:
    """Progress as bars, one for each stage, with the time left.

    Args:
        console: Rich's, of a terminal; None for that of standard error.
        clock: Seconds that never go back.
    """

    def __init__(self, console: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._stage: _Stage | None = None
        self._progress: Any = None
        self._task: Any = None

    def __call__(self, step: Step) -> None:
        """Takes a step."""
        now = self._clock()
        if self._progress is None or self._stage is None or self._stage.name != step.stage:
            self.close()
            self._stage = _Stage(step, now)
            self._progress = _bar(self._console)  # of its own, for what stands in one column is equally wide
            self._progress.start()
            self._task = self._progress.add_task(
                step.stage, total=step.total, completed=step.done, unit=step.unit, note=step.note, pace=""
            )
        each = self._stage.each(step, now)
        pace = _pace(each) if each else ""
        self._progress.update(self._task, total=step.total, completed=step.done, note=step.note, pace=pace)

    def close(self) -> None:
        """Leaves the bar as it is; to be called when interrupted, before anything else is written."""
        if self._progress is not None:
            self._progress.stop()
        self._progress = None


@contextmanager
def shown_progress(report: Callable[[str], None]) -> Iterator[Progress]:
    """Shows steps as bars on a terminal, else as lines.

    Args:
        report: Takes the lines.
    """
    bars = ProgressBars()
    try:
        yield bars if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb" else ProgressLines(report)
    finally:
        bars.close()


def _bar(console: Any) -> Any:
    # Only here: a server that trains nothing does not need it.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(_BAR_WIDTH),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        TextColumn("{task.fields[pace]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        # Lines that are written meanwhile stay whole, for paths in them are copied.
        console=console or Console(stderr=True, soft_wrap=True),
        speed_estimate_period=_SPEED_SECONDS,
        redirect_stdout=False,
    )


def duration_text(seconds: float) -> str:
    """A time for people: "9 s", "4 min", "2 h 5 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
