"""Programs of one graph on trial: loaded, compared with what they have to give, and timed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xai_sidecar.backends import timing
from xai_sidecar.backends.runtimes.agreement import disagreement, passes_nan
from xai_sidecar.backends.runtimes.guarding import Guarded
from xai_sidecar.backends.runtimes.program import (
    Engine,
    EngineError,
    Model,
    Precision,
    Program,
    described,
    one_line,
    read_by,
)
from xai_sidecar.engine.work import Array

_GAIN = 0.9
"""A further program has to take less than this share of the time."""

_ROUNDS = 5


@dataclass(frozen=True)
class Examples:
    """Inputs of a graph, with what it has to give.

    Attributes:
        rows: For each input, in the graph's order, as many rows as the largest batch size and at least two, all
            different.
        expected: For each output the right rows.
        tolerances: For each output how far a row may be off; see `agreement`.
        names: What the outputs are called in messages; by default by their place.
    """

    rows: tuple[Array, ...]
    expected: tuple[Array, ...]
    tolerances: Sequence[float]
    names: Sequence[str] = ()

    def part(self, start: int, size: int) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Some of the rows, in and out."""
        inside = slice(start, start + size)
        return tuple(array[inside] for array in self.rows), tuple(array[inside] for array in self.expected)


@dataclass(frozen=True)
class Chosen:
    """A program for some batch size.

    Attributes:
        program: It. A row with NaN or infinity among its inputs gives NaN, or what the reference gives, whatever the
            engine makes of it.
        engine: Name and version of the engine.
        seconds: What a batch took; the shortest of some runs, since other load only adds time.
        name: The engine's name alone.
        fixed: Whether the program is for this batch size alone.
    """

    program: Program
    engine: str
    seconds: float
    name: str
    fixed: bool


@dataclass(frozen=True)
class Choice:
    """What runs a graph.

    Attributes:
        by_size: The program for each batch size. Often it is the same one.
        refused: Why engines do not run it, a sentence for each, by the engine's name. An engine may run some batch
            sizes and be refused for others.
    """

    by_size: Mapping[int, Chosen]
    refused: Mapping[str, str]

    @property
    def engine(self) -> str:
        """Name and version of the engine, or engines, in the order of batch sizes."""
        return ", ".join(dict.fromkeys(chosen.engine for chosen in self.by_size.values()))

    def __call__(self, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Runs the graph on rows as many as one of the batch sizes."""
        return self.by_size[len(rows[0])].program(rows)


@dataclass
class Candidate:
    """A program that agrees, with the seconds it took by batch size."""

    program: Program
    engine: Engine
    fixed: bool
    seconds: dict[int, float]

    def at(self, size: int) -> Chosen:
        """It as what was chosen for a batch size."""
        return Chosen(self.program, described(self.engine), self.seconds[size], self.engine.name, self.fixed)


class Trial:
    """Loads, checks and times programs of one graph.

    Attributes:
        refused: Why engines were refused, by name.
    """

    def __init__(
        self,
        model: Model,
        examples: Examples,
        precision: Precision,
        threads: int | None,
        alone: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._alone = alone or nullcontext()
        self._model = model
        self._examples = examples
        self._precision: Precision = precision
        self._threads = threads
        self.refused: dict[str, str] = {}

    @property
    def model_bytes(self) -> int:
        """Size of the graph, with its weights as far as they are not in files beside it."""
        read = read_by(self._model)
        return read.stat().st_size if isinstance(read, Path) else len(read)

    def free(self, engine: Engine, sizes: Sequence[int], guarded: bool | None = None) -> Candidate | None:
        """An engine's program for any batch size, checked at some; None if it is refused."""
        return self._candidate(engine, None, sizes, guarded)

    def fixed(self, engine: Engine, size: int, guarded: bool | None = None) -> Candidate | None:
        """An engine's program for one batch size; None if it is refused, or would gain nothing."""
        return self._candidate(engine, size, [size], guarded) if size <= engine.fixed_up_to else None

    def fastest(self, size: int, base: Candidate | None, others: Sequence[Candidate]) -> Candidate:
        """The fastest program at a size; the base is left for a clear gain only.

        Raises:
            EngineError: There is none.
        """
        best = min(others, key=lambda each: each.seconds[size], default=base)
        if best is None:
            raise EngineError(f"No engine runs the graph at batch size {size}. {' '.join(self.refused.values())}")
        return best if base is None or best.seconds[size] < _GAIN * base.seconds[size] else base

    def choice(self, by_size: Mapping[int, Candidate]) -> Choice:
        """What was chosen, in the order of sizes."""
        return Choice({size: by_size[size].at(size) for size in sorted(by_size)}, self.refused)

    def time(self, candidates: Sequence[Candidate], sizes: Sequence[int], seconds: float) -> None:
        """Times programs in turn, so that other load affects all alike."""
        with self._alone:
            self._time(candidates, sizes, seconds)

    def _time(self, candidates: Sequence[Candidate], sizes: Sequence[int], seconds: float) -> None:
        until = time.perf_counter() + seconds
        for round_number in range(_ROUNDS):
            for size in sizes:
                rows, _ = self._examples.part(0, size)
                for each in candidates:
                    if round_number == 0 or time.perf_counter() < until:
                        each.seconds[size] = min(each.seconds.get(size, np.inf), timing.seconds(each.program, rows))

    def _candidate(
        self, engine: Engine, batch_size: int | None, sizes: Sequence[int], guarded: bool | None
    ) -> Candidate | None:
        reason = engine.missing()
        if reason is None:
            try:
                program = engine.load(
                    self._model, batch_size=batch_size, precision=self._precision, threads=self._threads
                )
                seconds: dict[int, float] = {}
                reason = self._disagreement(program, sizes, seconds)
                if reason is None:
                    guarded = self._wants_guard(program, sizes[0]) if guarded is None else guarded
                    guard = Guarded(program) if guarded else program
                    return Candidate(guard, engine, batch_size is not None, seconds)
            except Exception as error:  # of loading, or of running
                reason = str(error) if isinstance(error, EngineError) else one_line(error)
        self.refused[engine.name] = f"{engine.name} does not run it: {reason.rstrip('.')}."
        return None

    def _disagreement(self, program: Program, sizes: Sequence[int], seconds: dict[int, float]) -> str | None:
        """How a program differs from what is expected at some sizes; its seconds are noted, which are its first."""
        for size in sizes:
            # One row alone is tried twice: a faulty program may repeat the result of its first call.
            for start in (0, 1) if size == 1 else (0,):
                rows, expected = self._examples.part(start, size)
                examples = self._examples
                outputs, taken = timing.timed(program, rows)
                seconds[size] = min(seconds.get(size, np.inf), taken)
                how = disagreement(outputs, expected, examples.tolerances, examples.names)
                if how is not None:
                    return f"at batch size {size} it {how}"
        return None

    def _wants_guard(self, program: Program, size: int) -> bool:
        rows, expected = self._examples.part(0, size)
        return all(np.isfinite(array).all() for array in (*rows, *expected)) and not passes_nan(program, rows)
