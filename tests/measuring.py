"""Many computations at once, outside the engine: in a script, on arrays and maps that anybody made."""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

from xai_sidecar.engine.batching import Run, joined, masked, padded
from xai_sidecar.engine.work import Array, FloatArray, Forward, Kind, MaskedForward, Partial, Steps, Work
from xai_sidecar.errors import PreconditionError
from xai_sidecar.explainers.base import Context
from xai_sidecar.metrics.base import Metric, MetricParameters, Score, ScoreStatus
from xai_sidecar.metrics.instance import Instance

T = TypeVar("T")

_ALIVE = 32
"""Computations under way at a time. Each holds some MB of masks."""

Size: TypeAlias = int | Callable[[Kind], int]
"""Rows of a launch, or a function that has them for a kind of work."""


@dataclass(frozen=True)
class Summary:
    """Scores of one benchmark.

    Attributes:
        mean: Of those that could be measured; None if there are none.
        standard_error: Of the mean: the sample's standard deviation over √count. None for fewer than two.
        count: How many could be measured.
        skipped: How many could not, by reason.
    """

    mean: float | None
    standard_error: float | None
    count: int
    skipped: Mapping[ScoreStatus, int]


def summary(scores: Iterable[Score]) -> Summary:
    """Sums up scores of one benchmark."""
    scores = list(scores)
    values = np.array([score.value for score in scores if score.value is not None])
    skipped = Counter(score.status for score in scores if score.value is None)
    return Summary(
        mean=float(values.mean()) if len(values) else None,
        standard_error=float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None,
        count=len(values),
        skipped=dict(skipped),
    )


@dataclass(frozen=True)
class Table:
    """Scores of many subjects.

    Attributes:
        scores: By benchmark, those of all subjects in their order.
    """

    scores: Mapping[str, tuple[Score, ...]]

    def summaries(self) -> dict[str, Summary]:
        """What they come to, by benchmark."""
        return {name: summary(scores) for name, scores in self.scores.items()}


def measure_all(
    benchmarks: Sequence[Metric[Any]],
    subjects: Iterable[Instance],
    run: Run,
    size: Size,
    *,
    parameters: Mapping[str, MetricParameters] | None = None,
    context: Context | None = None,
) -> Table:
    """Measures subjects by benchmarks, all in shared launches. Scores are those of one at a time.

    Args:
        benchmarks: Which, each once.
        subjects: Which; they are taken as they are needed, so that pictures may be loaded on the way.
        run: As `Backend.run`; see `drive_all`, and `from_function` for a model that is a function.
        size: Rows of a launch.
        parameters: Of benchmarks by name, where not the default.
        context: Of all benchmarks; see `Metric.measure`.

    Raises:
        TargetError: The model does not have a subject's target.
    """
    given = parameters or {}
    chosen = [(benchmark, given.get(benchmark.name, benchmark.parameters_type())) for benchmark in benchmarks]
    steps = (benchmark.measure(subject, values, context) for subject in subjects for benchmark, values in chosen)
    scores = drive_all(steps, run, size)
    return Table({item.name: tuple(scores[place :: len(chosen)]) for place, (item, _) in enumerate(chosen)})


def drive_all(steps: Iterable[Steps[T]], run: Run, size: Size, alive: int = _ALIVE) -> list[T]:
    """Runs many computations at once; rows of the same kind share launches.

    Args:
        steps: The computations. They are taken as they are needed.
        run: Called with (kind, rows), always `size` rows, the last one repeated to fill up; returns the result rows, as
            `Backend.run` does.
        size: Rows of a launch.
        alive: Computations under way at a time, at the most. To fill launches, as many rows must wait.

    Returns:
        The results in the order of the computations.

    Raises:
        Exception: Whatever a computation or `run` raises; the other computations are closed.
    """
    coming = enumerate(steps)
    with closing(_Pool[T](run, size if callable(size) else lambda kind: size)) as pool:
        while True:
            while pool.alive < alive and (entry := next(coming, None)) is not None:
                pool.start(*entry)
            if not pool.alive:
                return [pool.results[index] for index in range(len(pool.results))]
            pool.launch()


def from_function(model: Callable[[FloatArray], Array]) -> Run:
    """A `run` of a model that is a function of inputs (n, C, H, W) float32 and returns logits (n, classes).

    Raises:
        PreconditionError: When run with another kind of work than forward passes.
    """

    def run(kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        if kind == Forward.kind:
            return (np.asarray(model(rows[0])),)
        if kind == MaskedForward.kind:
            return (np.asarray(model(masked(*rows))),)
        raise PreconditionError(f"A function has no {kind.name}. Choose an explainer by forward passes, or a backend.")

    return run


@dataclass(eq=False)
class _Suspended(Generic[T]):
    """A computation that waits for the rows of a piece of work.

    Attributes:
        index: Its place among all computations.
        steps: The computation.
        work: What it waits for.
        rows: The input rows.
        done: How many of them have been run.
        collected: The output rows so far.
    """

    index: int
    steps: Steps[T]
    work: Work
    rows: tuple[Array, ...]
    done: int = 0
    collected: list[tuple[Array, ...]] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """How many have not."""
        return len(self.rows[0]) - self.done

    def result(self) -> Any:
        """What the computation is sent when all have."""
        return self.work.result(tuple(joined(column) for column in zip(*self.collected, strict=True)))


class _Pool(Generic[T]):
    """Computations under way.

    Attributes:
        results: Of those that are done, by index.
        alive: How many are not.
    """

    def __init__(self, run: Run, size: Callable[[Kind], int]) -> None:
        self.results: dict[int, T] = {}
        self.alive = 0
        self._run = run
        self._size = size
        self._queues: dict[Hashable, deque[_Suspended[T]]] = {}

    def start(self, index: int, steps: Steps[T]) -> None:
        """Takes on a computation."""
        self.alive += 1
        self._advance(index, steps, None)

    def launch(self) -> None:
        """Runs rows of the kind of which most are waiting."""
        queue = max(self._queues.values(), key=lambda queue: sum(suspended.waiting for suspended in queue))
        kind = queue[0].work.kind
        size = self._size(kind)
        parts: list[tuple[_Suspended[T], int]] = []
        room = size
        for suspended in queue:
            count = min(room, suspended.waiting)
            parts.append((suspended, count))
            room -= count
            if not room:
                break
        columns = zip(*(_cut(suspended.rows, suspended.done, count) for suspended, count in parts), strict=True)
        outputs = self._run(kind, tuple(padded(column, size) for column in columns))
        if any(len(output) != size for output in outputs):
            raise ValueError(f"run returned another number of rows than the {size} that it was given")
        start = 0
        for suspended, count in parts:
            suspended.collected.append(_cut(outputs, start, count))
            suspended.done += count
            start += count
            if not suspended.waiting:
                queue.popleft()
                self._advance(suspended.index, suspended.steps, suspended.result())

    def close(self) -> None:
        """Closes the computations that are not done."""
        for suspended in itertools.chain(*self._queues.values()):
            suspended.steps.close()

    def _advance(self, index: int, steps: Steps[T], sent: Any) -> None:
        """Has a computation go on until it waits for rows, or is done."""
        try:
            work = steps.send(sent)
            while isinstance(work, Partial):
                work = steps.send(None)
        except StopIteration as stop:
            self.results[index] = stop.value
            self.alive -= 1
            return
        rows = work.rows
        key = (work.kind, *((array.shape[1:], array.dtype) for array in rows))
        self._queues.setdefault(key, deque()).append(_Suspended(index, steps, work, rows))


def _cut(rows: tuple[Array, ...], start: int, count: int) -> tuple[Array, ...]:
    return tuple(array[start : start + count] for array in rows)


class NeighboursNet:
    """Two classes that see products of neighbours, so that no map is simply right."""

    def __init__(self, channels, frame=(8, 12)):
        self.weights = np.random.default_rng(3).normal(0, 0.3, (2, channels, *frame)).astype(np.float32)

    def __call__(self, inputs):
        seen = inputs * (1 + 0.5 * np.roll(inputs, 1, axis=3))
        return np.stack([(seen * weights).sum(axis=(1, 2, 3), dtype=np.float64) for weights in self.weights], axis=1)

    def probability(self, image, target):
        powers = np.exp(self(image[None].astype(np.float32))[0].astype(np.float32).astype(np.float64))
        return powers[target] / powers.sum()
