"""Programs of the kinds of work: an engine's program, between the arrays that a backend gets and those of the graph."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from xai_sidecar.backends.graph.graph import Graph
from xai_sidecar.backends.graph.tracing import Run
from xai_sidecar.backends.runtimes.program import Program
from xai_sidecar.engine.work import Array, Kind

_TIMED_RUNS = 5


class KindProgram:
    """A program for a kind of work.

    Args:
        kind: The kind.
        graph: Its graph; the inputs are the picture's, and the weights of the logits if it has a gradient.
        load: Loads graphs.
        class_count: Number of logits.
        rows: Rows that the graph takes at once; None for any number.
    """

    def __init__(
        self, kind: Kind, graph: Graph, load: Callable[[Graph], Program], class_count: int, rows: int | None
    ) -> None:
        self.kind = kind
        self._graph = graph
        self._program = load(graph)
        self._places = [list(graph.inputs).index(name) for name in self._program.inputs]
        self._class_count = class_count
        self._rows = rows

    def __call__(self, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Runs it: inputs as the net takes them, and targets, (n,), for gradients → the graph's outputs."""
        fed = self._fed(rows)
        if self._rows is None:
            return self._run(fed)
        parts = [self._part(fed, start) for start in range(0, len(fed[0]), self._rows)]
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def plainly(self, rows: tuple[Array, ...], run: Run) -> tuple[Array, ...]:
        """What it has to give: the outputs of the graph as it stands, for each row alone.

        Args:
            rows: As it is called with.
            run: Runs graphs plainly.
        """
        fed, count = self._fed(rows), self._rows or 1
        parts = [
            run(self._graph, tuple(np.repeat(array[i : i + 1], count, 0) for array in fed)) for i in range(len(fed[0]))
        ]
        return tuple(np.concatenate([output[:1] for output in column]) for column in zip(*parts, strict=True))

    def _fed(self, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        return (rows[0], one_hot(rows[1], self._class_count)) if self.kind.name.endswith("gradient") else rows[:1]

    def _part(self, fed: tuple[Array, ...], start: int) -> tuple[Array, ...]:
        """Some rows at a time, the last one repeated where there are too few."""
        count = self._rows or 0
        part = [array[start : start + count] for array in fed]
        missing = count - len(part[0])
        filled = tuple(np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for array in part)
        return tuple(output[: len(part[0])] for output in self._run(filled))

    def _run(self, fed: tuple[Array, ...]) -> tuple[Array, ...]:
        return self._program(tuple(fed[place] for place in self._places))


def one_hot(targets: Array, class_count: int) -> Array:
    """(n, classes) float32, with a 1 at each row's class."""
    chosen = np.zeros((len(targets), class_count), np.float32)
    chosen[np.arange(len(targets)), targets] = 1
    return chosen


def take_times(runs: dict[int, Callable[[], object]]) -> dict[int, float]:
    """The shortest of several runs in seconds by batch size, measured in turn, so that noise affects all alike."""
    best = dict.fromkeys(runs, np.inf)
    for _ in range(_TIMED_RUNS):
        for size, run in runs.items():
            started = time.perf_counter()
            run()
            best[size] = min(best[size], time.perf_counter() - started)
    return {size: float(seconds) for size, seconds in best.items()}
