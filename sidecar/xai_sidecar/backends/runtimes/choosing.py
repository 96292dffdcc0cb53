"""Chooses what runs a graph at each batch size: the fastest engine among those that agree with the reference.

First every engine's program for any batch size is checked and timed, and the one that is fastest over all sizes is
taken. Another engine's program, or one made for a single batch size, or one that runs the rows in parts (see
`in_parts`), replaces it at a size only where it saves a tenth:
each program that is kept has a copy of the weights, laid out anew for its engine. For a ResNet-50, of 98 MB, that is
107 MB with either engine, or half of that in bfloat16; what a batch is computed in comes on top. While choosing, one
more of each engine is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

from xai_sidecar.backends.runtimes.early import EarlyLoads
from xai_sidecar.backends.runtimes.guarding import Guarded
from xai_sidecar.backends.runtimes.in_parts import InParts, undivided
from xai_sidecar.backends.runtimes.keeping import EngineCache, cache_key
from xai_sidecar.backends.runtimes.memory import trim_heap
from xai_sidecar.backends.runtimes.program import Engine, Model, Precision
from xai_sidecar.backends.runtimes.trial import Candidate, Choice, Chosen, Examples, Trial, sizes_of
from xai_sidecar.cpus import usable_cpus

_RECORD = "chosen, and what is guarded"
"""Names records of choices in the cache, as `recorded` makes them."""

_FIXED_GAINS = 0.75
"""Less than the share of the time of an engine's program for any batch size that its program for one takes: it saves
up to a fifth."""

_LARGE_BYTES = 48 << 20
"""Size of a graph from which on no program for one batch size is made beside one for any: it would cost as much memory
again, and large nets gain nothing by it; see `OpenVino`."""

_LIKE_SHARE = 0.3
"""Share of the time of timing where there is nothing to choose, and only the cost is wanted."""

_SECONDS = 3.0
"""How long programs are timed for one graph, about, though each runs once at least."""


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
    alone: AbstractContextManager[Any] | None = None,
    early: EarlyLoads | None = None,
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
        alone: Entered while programs are timed, when nothing else should run.
        early: Programs that are being loaded already.

    Raises:
        EngineError: No engine runs it rightly at all batch sizes; the message has the reasons.
    """
    trial = Trial(model, examples, precision, threads, alone, early)
    if (threads or usable_cpus()) == 1:  # which has nothing to divide
        engines = undivided(engines)
    try:
        by_size = None
        if cache is not None:
            key = cache_key(model, _RECORD, versions(engines), tuple(sizes), precision, threads or usable_cpus())
            if kept := cache.find(key):
                by_size = _as_recorded(trial, engines, json.loads(kept.read_bytes()))
        if by_size is not None:
            return trial.choice(by_size)
        if like is not None:
            by_size = _like(trial, engines, sizes, _LIKE_SHARE * seconds, like)
        choice = trial.choice(by_size or _chosen(trial, engines, sizes, seconds))
        if cache is not None:
            cache.keep(key, json.dumps(recorded(choice)).encode())
        return choice
    finally:
        trim_heap()


def chosen_before(
    model: Model,
    engines: Sequence[Engine],
    record: Any,
    examples: Examples,
    *,
    precision: Precision = "float32",
    threads: int | None = None,
) -> Choice | None:
    """What ran a graph at an earlier start, its programs compared anew; None if one is not there or not right.

    Args:
        model: The graph.
        engines: Those that may run it.
        record: The earlier choice, as `recorded`.
        examples: What programs are compared with.
        precision: What it is computed in.
        threads: Number of threads; see `Engine.load`.
    """
    trial = Trial(model, examples, precision, threads)
    by_size = _as_recorded(trial, engines, record)
    return None if by_size is None else trial.choice(by_size)


def versions(engines: Sequence[Engine]) -> list[tuple[str, str]]:
    """The names of engines, and their versions or why they are missing."""
    return [(engine.name, engine.missing() or engine.version) for engine in engines]


def _chosen(trial: Trial, engines: Sequence[Engine], sizes: Sequence[int], seconds: float) -> dict[int, Candidate]:
    whole = undivided(engines)
    if len(sizes) == 1:  # a program for any size would never be the better one
        fitting = trial.of_each(whole, sizes)
        trial.time(fitting, sizes, seconds)
        return {sizes[0]: trial.fastest(sizes[0], None, fitting)}
    free = trial.of_each(whole, sizes)
    trial.time(free, sizes, seconds / 2)
    base = _fastest_overall(free, sizes)
    small = base is None or trial.model_bytes < _LARGE_BYTES
    in_parts = _in_parts(trial, engines, sizes, base, seconds / 2) if small else []
    by_size = {}
    for size in sizes:
        hopeful = [engine for engine in whole if small and _may_gain(engine, size, free, base)]
        fixed = [made for engine in hopeful if (made := trial.fixed(engine, size))]
        if fixed:
            trial.time([*fixed, *([base] if base else [])], [size], seconds / 2 / len(sizes))
        by_size[size] = trial.fastest(size, base, [*free, *fixed, *(each for each in in_parts if size in each.seconds)])
    return by_size


def _in_parts(
    trial: Trial, engines: Sequence[Engine], sizes: Sequence[int], base: Candidate | None, seconds: float
) -> list[Candidate]:
    """The program of the base's engine that runs rows in parts, timed beside the base, where there is one."""
    several = [size for size in sizes if size > 1]
    own = [each for each in engines if isinstance(each, InParts) and base and each.whole == base.engine.name]
    made = [made for engine in own if several and (made := trial.free(engine, several))]
    if made and base:
        trial.time([*made, base], several, seconds)
    return made


def _may_gain(engine: Engine, size: int, free: Sequence[Candidate], base: Candidate | None) -> bool:
    """Whether an engine's program for one batch size may be the fastest there, by what its program for any takes."""
    own = next((each for each in free if each.engine is engine), None)
    return own is None or base is None or _FIXED_GAINS * own.seconds[size] < base.seconds[size]


_Plan: TypeAlias = Sequence[tuple[str, bool, bool | None, Sequence[int]]]
"""Programs: the engine's name, whether it is for one batch size alone, whether it is guarded (see `Guarded`; None where
that has to be found out), and the batch sizes that it runs."""


def _plan(by_size: Mapping[int, Chosen]) -> _Plan:
    plan: dict[tuple[str, int, bool], list[int]] = {}
    for size, chosen in by_size.items():
        guarded = isinstance(chosen.program, Guarded)
        plan.setdefault((chosen.name, size if chosen.fixed else 0, guarded), []).append(size)
    return [(name, fixed > 0, guarded, sizes) for (name, fixed, guarded), sizes in plan.items()]


def _planned(trial: Trial, engines: Sequence[Engine], plan: _Plan) -> dict[int, Candidate] | None:
    """The programs of a plan; None if an engine is not there, or its program is not right."""
    named = {engine.name: engine for engine in engines}
    by_size: dict[int, Candidate] = {}
    for name, fixed, guarded, sizes in plan:
        made = None
        if engine := named.get(name):
            made = trial.fixed(engine, sizes[0], guarded) if fixed else trial.free(engine, sizes, guarded)
        if made is None:
            trial.refused.clear()
            return None
        by_size |= dict.fromkeys(sizes, made)
    return by_size


def _like(
    trial: Trial, engines: Sequence[Engine], sizes: Sequence[int], seconds: float, like: Choice
) -> dict[int, Candidate] | None:
    """The programs of another choice, made of this graph and timed."""
    nearest = {size: like.by_size[min(like.by_size, key=lambda other: abs(other - size))] for size in sizes}
    by_size = _planned(trial, engines, [(name, fixed, None, sizes) for name, fixed, _, sizes in _plan(nearest)])
    for made, own in sizes_of(by_size or {}).items():
        trial.time([made], own, seconds)
    return by_size


def _as_recorded(trial: Trial, engines: Sequence[Engine], record: Any) -> dict[int, Candidate] | None:
    """The choice of an earlier start, its programs checked anew. It has timed them; what a check takes is more."""
    trial.refused.update(record["refused"])
    by_size = _planned(trial, engines, record["programs"])
    for size, seconds in record["seconds"]:
        if by_size:
            by_size[size].seconds[size] = min(by_size[size].seconds[size], seconds)
    return by_size


def recorded(choice: Choice) -> dict[str, Any]:
    """A choice as `chosen_before` reads it, in values that JSON has."""
    seconds = [(size, chosen.seconds) for size, chosen in choice.by_size.items()]
    return {"programs": _plan(choice.by_size), "seconds": seconds, "refused": dict(choice.refused)}


def _fastest_overall(candidates: list[Candidate], sizes: Sequence[int]) -> Candidate | None:
    """The program for all sizes whose time, relative to the best at each size, is the least on average."""
    best = {size: min((each.seconds[size] for each in candidates), default=0.0) for size in sizes}
    return min(candidates, key=lambda each: sum(each.seconds[size] / best[size] for size in sizes), default=None)
