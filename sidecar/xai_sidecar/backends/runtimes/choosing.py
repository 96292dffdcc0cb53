"""Chooses what runs a graph at each batch size: the fastest engine among those that agree with the reference.

First every engine's program for any batch size is checked and timed, and the one that is fastest over all sizes is
taken. Another engine's program, or one made for a single batch size, replaces it at a size only where it saves a tenth:
each program that is kept has a copy of the weights, laid out anew for its engine. For a ResNet-50, of 98 MB, that is
107 MB with ONNX Runtime, and 210 with OpenVINO, or 155 in bfloat16; what a batch is computed in comes on top. While
choosing, one more of each engine is in memory.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from xai_sidecar.backends import timing
from xai_sidecar.backends.runtimes.agreement import disagreement, passes_nan
from xai_sidecar.backends.runtimes.keeping import EngineCache, cache_key
from xai_sidecar.backends.runtimes.memory import trim_heap
from xai_sidecar.backends.runtimes.program import Engine, EngineError, Model, Precision, Program, described, one_line
from xai_sidecar.cpus import usable_cpus
from xai_sidecar.engine.work import Array

_GAIN = 0.9
"""A further program has to take less than this share of the time."""

_ROUNDS = 5
_SECONDS = 3.0
"""How long programs are timed for one graph, about, though each runs once at least."""


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


def choose(
    model: Model,
    engines: Sequence[Engine],
    sizes: Sequence[int],
    examples: Examples,
    *,
    precision: Precision = "float32",
    threads: int | None = None,
    seconds: float = _SECONDS,
    cache: EngineCache | None = None,
    like: Choice | None = None,
) -> Choice:
    """Chooses what runs a graph.

    Args:
        model: The graph; see `Engine.load`.
        engines: Those that may run it. At equal speed the first is taken.
        sizes: Batch sizes.
        examples: What programs are compared with.
        precision: What it is computed in.
        threads: Number of threads; see `Engine.load`.
        seconds: How long programs are timed, about.
        cache: Where the choice is kept, so that the next start loads and checks only what was chosen; None keeps none.
        like: What runs a graph that is nearly the same. Its engines are taken here, too, if they agree.

    Raises:
        EngineError: No engine runs it rightly at all batch sizes; the message has the reasons.
    """
    trial = _Trial(model, examples, precision, threads)
    try:
        by_size = None
        if cache is not None:
            found = [(engine.name, engine.missing() or engine.version) for engine in engines]
            key = cache_key(model, "chosen", found, tuple(sizes), precision, threads or usable_cpus())
            if kept := cache.find(key):
                by_size = _as_recorded(trial, engines, json.loads(kept.read_bytes()))
        if by_size is not None:
            return trial.choice(by_size)
        if like is not None:
            by_size = _like(trial, engines, sizes, seconds, like)
        choice = trial.choice(by_size or _chosen(trial, engines, sizes, seconds))
        if cache is not None:
            cache.keep(key, _record(choice))
        return choice
    finally:
        trim_heap()


def _chosen(trial: _Trial, engines: Sequence[Engine], sizes: Sequence[int], seconds: float) -> dict[int, _Candidate]:
    if len(sizes) == 1:  # a program for any size would never be the better one
        fitting = [made for engine in engines if (made := trial.fixed(engine, sizes[0]) or trial.free(engine, sizes))]
        trial.time(fitting, sizes, seconds)
        return {sizes[0]: trial.fastest(sizes[0], None, fitting)}
    free = [made for engine in engines if (made := trial.free(engine, sizes))]
    trial.time(free, sizes, seconds / 2)
    base = _fastest_overall(free, sizes)
    by_size = {}
    for size in sizes:
        fixed = [made for engine in engines if (made := trial.fixed(engine, size))]
        if fixed:
            trial.time([*fixed, *([base] if base else [])], [size], seconds / 2 / len(sizes))
        by_size[size] = trial.fastest(size, base, [*free, *fixed])
    return by_size


_Plan: TypeAlias = Sequence[tuple[str, bool, Sequence[int]]]
"""Programs: the engine's name, whether it is for one batch size alone, and the batch sizes that it runs."""


def _plan(by_size: Mapping[int, Chosen]) -> _Plan:
    plan: dict[tuple[str, int], list[int]] = {}
    for size, chosen in by_size.items():
        plan.setdefault((chosen.name, size if chosen.fixed else 0), []).append(size)
    return [(name, fixed > 0, sizes) for (name, fixed), sizes in plan.items()]


def _planned(trial: _Trial, engines: Sequence[Engine], plan: _Plan) -> dict[int, _Candidate] | None:
    """The programs of a plan; None if an engine is not there, or its program is not right."""
    named = {engine.name: engine for engine in engines}
    by_size: dict[int, _Candidate] = {}
    for name, fixed, sizes in plan:
        made = None
        if engine := named.get(name):
            made = trial.fixed(engine, sizes[0]) if fixed else trial.free(engine, sizes)
        if made is None:
            trial.refused.clear()
            return None
        by_size |= dict.fromkeys(sizes, made)
    return by_size


def _like(
    trial: _Trial, engines: Sequence[Engine], sizes: Sequence[int], seconds: float, like: Choice
) -> dict[int, _Candidate] | None:
    """The programs of another choice, made of this graph and timed."""
    nearest = {size: like.by_size[min(like.by_size, key=lambda other: abs(other - size))] for size in sizes}
    by_size = _planned(trial, engines, _plan(nearest))
    for made in {id(made): made for made in (by_size or {}).values()}.values():
        trial.time([made], [size for size in sizes if by_size and by_size[size] is made], seconds)
    return by_size


def _as_recorded(trial: _Trial, engines: Sequence[Engine], record: Any) -> dict[int, _Candidate] | None:
    """The choice of an earlier start, its programs checked anew. It has timed them; what a check takes is more."""
    trial.refused.update(record["refused"])
    by_size = _planned(trial, engines, record["programs"])
    for size, seconds in record["seconds"]:
        if by_size:
            by_size[size].seconds[size] = min(by_size[size].seconds[size], seconds)
    return by_size


def _record(choice: Choice) -> bytes:
    """A choice as `_as_recorded` reads it."""
    seconds = [(size, chosen.seconds) for size, chosen in choice.by_size.items()]
    return json.dumps({"programs": _plan(choice.by_size), "seconds": seconds, "refused": dict(choice.refused)}).encode()


@dataclass
class _Candidate:
    """A program that agrees, with the seconds it took by batch size."""

    program: Program
    engine: Engine
    fixed: bool
    seconds: dict[int, float]

    def at(self, size: int) -> Chosen:
        return Chosen(self.program, described(self.engine), self.seconds[size], self.engine.name, self.fixed)


def _fastest_overall(candidates: list[_Candidate], sizes: Sequence[int]) -> _Candidate | None:
    """The program for all sizes whose time, relative to the best at each size, is the least on average."""
    best = {size: min((each.seconds[size] for each in candidates), default=0.0) for size in sizes}
    return min(candidates, key=lambda each: sum(each.seconds[size] / best[size] for size in sizes), default=None)


class _Trial:
    """Loads, checks and times programs of one graph.

    Attributes:
        refused: Why engines were refused, by name.
    """

    def __init__(self, model: Model, examples: Examples, precision: Precision, threads: int | None) -> None:
        self._model = model
        self._examples = examples
        self._precision: Precision = precision
        self._threads = threads
        self.refused: dict[str, str] = {}

    def free(self, engine: Engine, sizes: Sequence[int]) -> _Candidate | None:
        """An engine's program for any batch size, checked at some; None if it is refused."""
        return self._candidate(engine, None, sizes)

    def fixed(self, engine: Engine, size: int) -> _Candidate | None:
        """An engine's program for one batch size; None if it is refused, or would gain nothing."""
        return self._candidate(engine, size, [size]) if size <= engine.fixed_up_to else None

    def fastest(self, size: int, base: _Candidate | None, others: Sequence[_Candidate]) -> _Candidate:
        """The fastest program at a size; the base is left for a clear gain only.

        Raises:
            EngineError: There is none.
        """
        best = min(others, key=lambda each: each.seconds[size], default=base)
        if best is None:
            raise EngineError(f"No engine runs the graph at batch size {size}. {' '.join(self.refused.values())}")
        return best if base is None or best.seconds[size] < _GAIN * base.seconds[size] else base

    def choice(self, by_size: Mapping[int, _Candidate]) -> Choice:
        """What was chosen, in the order of sizes."""
        return Choice({size: by_size[size].at(size) for size in sorted(by_size)}, self.refused)

    def time(self, candidates: Sequence[_Candidate], sizes: Sequence[int], seconds: float) -> None:
        """Times programs in turn, so that other load affects all alike."""
        until = time.perf_counter() + seconds
        for round_number in range(_ROUNDS):
            for size in sizes:
                rows, _ = self._examples.part(0, size)
                for each in candidates:
                    if round_number == 0 or time.perf_counter() < until:
                        each.seconds[size] = min(each.seconds.get(size, np.inf), timing.seconds(each.program, rows))

    def _candidate(self, engine: Engine, batch_size: int | None, sizes: Sequence[int]) -> _Candidate | None:
        reason = engine.missing()
        if reason is None:
            try:
                program = engine.load(
                    self._model, batch_size=batch_size, precision=self._precision, threads=self._threads
                )
                seconds: dict[int, float] = {}
                reason = self._disagreement(program, sizes, seconds)
                if reason is None:
                    return _Candidate(self._guarded(program, sizes[0]), engine, batch_size is not None, seconds)
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

    def _guarded(self, program: Program, size: int) -> Program:
        rows, expected = self._examples.part(0, size)
        finite = all(np.isfinite(array).all() for array in (*rows, *expected))
        return program if not finite or passes_nan(program, rows) else Guarded(program)


class Guarded:
    """A program whose engine takes NaN for a number: here a row with a non-finite input gives NaN throughout.

    Args:
        program: It. The first axis of all inputs and outputs is the row.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self.inputs = program.inputs
        self.outputs = program.outputs

    def __call__(self, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Runs it; see `Program.__call__`."""
        outputs = self._program(rows)
        spoilt = ~np.all([_finite(array) for array in rows if array.dtype.kind == "f"], axis=0)
        if spoilt.any():
            for output in outputs:
                if output.dtype.kind == "f":
                    output[spoilt] = np.nan
        return outputs


def _finite(array: Array) -> Array:
    """Which rows have finite numbers alone, (n,) bool."""
    return np.asarray(np.isfinite(array).all(axis=tuple(range(1, array.ndim))))
