"""One measured figure, and how figures are shown and taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


class MissingError(Exception):
    """What a subject needs is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        name: What was measured.
        value: How much.
        unit: "×" for a ratio, else a unit of time.
        bar: The most that it may be; None where there is no such bar.
        note: How it came about.
        at_least: The least that it may be; None where there is no such bar.
    """

    name: str
    value: float
    unit: str
    bar: float | None = None
    note: str = ""
    at_least: float | None = None

    @property
    def met(self) -> bool:
        """Whether it keeps to its bar."""
        return bool(
            (self.bar is None or self.value <= self.bar) and (self.at_least is None or self.value >= self.at_least)
        )

    @property
    def bars(self) -> str:
        """Its bars as text."""
        most = [] if self.bar is None else [f"≤ {self.bar:g} {self.unit}"]
        return ", ".join(most + ([] if self.at_least is None else [f"≥ {self.at_least:g} {self.unit}"]))

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "value": float(self.value), "met": self.met}


def table(figures: Sequence[Figure]) -> str:
    """Figures in columns."""
    rows = [("what", "figure", "bar", "", "how")]
    for figure in figures:
        verdict = ("met" if figure.met else "MISSED") if figure.bars else ""
        rows.append((figure.name, f"{figure.value:.2f} {figure.unit}", figure.bars, verdict, figure.note))
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
