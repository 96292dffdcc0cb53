"""Programs of one graph on trial: loaded, compared with what they have to give, and timed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from xai_sidecar.backends import timing
from xai_sidecar.backends.runtimes.agreement import disagreement, passes_nan
from xai_sidecar.backends.runtimes.early import EarlyLoads
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

_log = structlog.get_logger(__name__)

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


@dataclass(eq=False)
class Candidate:
    """A program that agrees, whether it has to be guarded, and the seconds it took by batch size."""

    loaded: Program
    engine: Engine
    fixed: bool
    guarded: bool
    seconds: dict[int, float]

    @cached_property
    def program(self) -> Program:
        """It as it is called."""
        return Guarded(self.loaded) if self.guarded else self.loaded

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
        early: EarlyLoads | None = None,
    ) -> None:
        self._early = early or EarlyLoads()
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

    def of_each(self, engines: Sequence[Engine], sizes: Sequence[int]) -> list[Candidate]:
        """Programs of all engines that are not refused, for any batch size, or for the only one there is.

        They are loaded at the same time, since engines compile on one CPU for the most part.
        """
        only = sizes[0] if len(sizes) == 1 else None
        fixed = [only if only and self._may_be_fixed(engine, only) else None for engine in engines]
        with ThreadPoolExecutor(max(1, len(engines)), "loading") as pool:
            loaded = list(pool.map(self._loaded, engines, fixed))
        made = []
        for engine, size, program in zip(engines, fixed, loaded, strict=True):
            candidate = self._checked(engine, size, sizes, None, program)
            if candidate is None and size is not None:
                candidate = self.free(engine, sizes)
            if candidate is not None:
                made.append(candidate)
        return made

    def free(self, engine: Engine, sizes: Sequence[int], guarded: bool | None = None) -> Candidate | None:
        """An engine's program for any batch size, checked at some; None if it is refused."""
        return self._checked(engine, None, sizes, guarded, self._loaded(engine, None))

    def fixed(self, engine: Engine, size: int, guarded: bool | None = None) -> Candidate | None:
        """An engine's program for one batch size; None if it is refused, or would gain nothing."""
        if not self._may_be_fixed(engine, size):
            return None
        return self._checked(engine, size, [size], guarded, self._loaded(engine, size))

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
        """What was chosen, in the order of sizes, each program settled."""
        settled = {made: self._settled(made, sizes) for made, sizes in sizes_of(by_size).items()}
        return Choice({size: settled[by_size[size]].at(size) for size in sorted(by_size)}, self.refused)

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

    def _may_be_fixed(self, engine: Engine, size: int) -> bool:
        """Whether a program for one batch size alone may gain; those below float32 run masks, in large batches."""
        return size <= engine.fixed_up_to and self._precision == "float32"

    def _loaded(self, engine: Engine, batch_size: int | None) -> Program | str:
        """An engine's program, or why there is none; any thread may call it."""
        try:
            is_plain = batch_size is None and self._precision == "float32"
            if is_plain and (begun := self._early.take(engine, self._model)):
                return begun.result()
            return engine.missing() or engine.load(
                self._model, batch_size=batch_size, precision=self._precision, threads=self._threads
            )
        except Exception as error:
            return _reason(error)

    def _checked(
        self,
        engine: Engine,
        batch_size: int | None,
        sizes: Sequence[int],
        guarded: bool | None,
        program: Program | str,
    ) -> Candidate | None:
        """A program that was loaded, compared; None if it is refused."""
        seconds: dict[int, float] = {}
        reason = program if isinstance(program, str) else None
        try:
            if not isinstance(program, str):
                reason = disagreement_of(program, sizes, self._examples, seconds)
                if reason is None:
                    guarded = self._wants_guard(program, sizes[0]) if guarded is None else guarded
                    return Candidate(program, engine, batch_size is not None, guarded, seconds)
        except Exception as error:
            reason = _reason(error)
        reason = (reason or "").rstrip(".")
        self.refused[engine.name] = f"{engine.name} does not run it: {reason}."
        return None

    def _settled(self, made: Candidate, sizes: Sequence[int]) -> Candidate:
        """A candidate whose program is as it is to serve; as it was where that cannot be done rightly."""
        try:
            program = made.engine.settle(made.loaded)
            if program is made.loaded or disagreement_of(program, sizes, self._examples) is None:
                return replace(made, loaded=program)
        except Exception as error:  # of loading, or of running
            _log.warning("program_not_settled", engine=made.engine.name, error=one_line(error))
        return made

    def _wants_guard(self, program: Program, size: int) -> bool:
        rows, expected = self._examples.part(0, size)
        return all(np.isfinite(array).all() for array in (*rows, *expected)) and not passes_nan(program, rows)


def sizes_of(by_size: Mapping[int, Candidate]) -> dict[Candidate, list[int]]:
    """The batch sizes that each program is for."""
    sizes: dict[Candidate, list[int]] = {}
    for size, made in by_size.items():
        sizes.setdefault(made, []).append(size)
    return sizes


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, EngineError) else one_line(error)


def disagreement_of(
    program: Program, sizes: Sequence[int], examples: Examples, seconds: dict[int, float] | None = None
) -> str | None:
    """How a program differs from what is expected, the predicate of a sentence; None if it does not.

    Args:
        program: The program.
        sizes: Batch sizes to try.
        examples: What it is compared with.
        seconds: Gets the shortest time of a run at each size.
    """
    for size in sizes:
        # One row alone is tried twice: a faulty program may repeat the result of its first call.
        for start in (0, 1) if size == 1 else (0,):
            rows, expected = examples.part(start, size)
            outputs, taken = timing.timed(program, rows)
            if seconds is not None:
                seconds[size] = min(seconds.get(size, np.inf), taken)
            how = disagreement(outputs, expected, examples.tolerances, examples.names)
            if how is not None:
                return f"at batch size {size} it {how}"
    return None
