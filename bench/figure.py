"""One measured figure, and how figures are shown and taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        name: What was measured.
        value: How much.
        unit: "×" for a ratio, else a unit of time.
        bar: The most that it may be; None where there is no bar.
        note: How it came about.
    """

    name: str
    value: float
    unit: str
    bar: float | None = None
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether it keeps to its bar."""
        return self.bar is None or self.value <= self.bar

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "met": self.met}


def table(figures: Sequence[Figure]) -> str:
    """Figures in columns."""
    rows = [("what", "figure", "bar", "", "how")]
    for figure in figures:
        bar = "" if figure.bar is None else f"≤ {figure.bar:g} {figure.unit}"
        verdict = "" if figure.bar is None else ("met" if figure.met else "MISSED")
        rows.append((figure.name, f"{figure.value:.2f} {figure.unit}", bar, verdict, figure.note))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def interleaved(rounds: int, *functions: Callable[[], object]) -> list[list[float]]:
    """Seconds that each function took in each round, one after the other so that all meet the same noise.

    Each runs twice before that counts.
    """
    times: list[list[float]] = [[] for _ in functions]
    for function in functions * 2:
        function()
    for _ in range(rounds):
        for taken, function in zip(times, functions, strict=True):
            started = time.perf_counter()
            function()
            taken.append(time.perf_counter() - started)
    return times


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """The median of the ratios round by round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))
