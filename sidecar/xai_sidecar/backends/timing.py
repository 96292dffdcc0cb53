"""Seconds of programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from xai_sidecar.engine.work import Array

Key = TypeVar("Key")
Result = TypeVar("Result")

_TIMED_RUNS = 7


def timed(program: Callable[[tuple[Array, ...]], Result], rows: tuple[Array, ...]) -> tuple[Result, float]:
    """What one run of a program gives, and its seconds."""
    started = time.perf_counter()
    outputs = program(rows)
    return outputs, time.perf_counter() - started


def seconds(program: Callable[[tuple[Array, ...]], object], rows: tuple[Array, ...]) -> float:
    """Seconds of one run of a program."""
    return timed(program, rows)[1]


def take_times(costs: dict[Key, dict[int, float]], run: Callable[[Key, int], float]) -> None:
    """Sets the costs of all kinds and sizes to the shortest of several runs, since other load only adds time.

    The sizes are measured in turn, so that noise affects all alike: their ratios matter more than the absolute costs.

    Args:
        costs: Seconds by kind and batch size, as far as they are known, else infinite.
        run: Runs a kind at a batch size once, and returns the seconds.
    """
    for _ in range(_TIMED_RUNS):
        for kind, sizes in costs.items():
            for size in sizes:
                sizes[size] = min(sizes[size], run(kind, size))
