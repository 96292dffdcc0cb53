"""Programs of the kinds of work: an engine's program, between the arrays that a backend gets and those of the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from xai_sidecar.backends.graph.comparing import compared_rows, graph_rows, plain_outputs, tolerances
from xai_sidecar.backends.graph.graph import Graph, write
from xai_sidecar.backends.graph.kept_runs import GraphDigests
from xai_sidecar.backends.graph.kinds import KindGraphs
from xai_sidecar.backends.graph.tracing import Run
from xai_sidecar.backends.runtimes.agreement import GRADIENT_TOLERANCE, disagreement
from xai_sidecar.backends.runtimes.choosing import choose
from xai_sidecar.backends.runtimes.early import EarlyLoads
from xai_sidecar.backends.runtimes.keeping import EngineCache
from xai_sidecar.backends.runtimes.onnxruntime import OnnxRuntime
from xai_sidecar.backends.runtimes.program import Engine, EngineError, LazyModel, Precision, described
from xai_sidecar.backends.runtimes.sharing import SharedPrograms
from xai_sidecar.backends.runtimes.trial import Choice, Chosen, Examples
from xai_sidecar.backends.timing import seconds, take_times
from xai_sidecar.engine.work import Array, Features, Forward, Kind
from xai_sidecar.errors import PreconditionError

_GAIN = 0.85
"""A program in a reduced precision has to take less than this share of the time: it costs memory, and exactness."""

_GAIN_ROUNDS = 3
_CLEAR = 0.7
"""A share of the time that is less than this share of `_GAIN`, or more than its inverse, needs no further round."""

_SECONDS = 0.25
"""How long the engines are timed for a kind of work; a start has half a dozen of these."""


_NEARLY = {Features.kind.name: Forward.kind.name, "layer_gradient": Forward.kind.name}
"""Kinds of work by others whose graph is most of theirs: the features are one more output, and behind the layer by
which the gradient is taken there is little."""


@dataclass(frozen=True)
class Origin:
    """What a program was made of, and compared with.

    Attributes:
        graph: Its graph; the inputs are the picture's, and the weights of the logits if it has a gradient.
        run: Runs graphs plainly.
        digest: Tells its graph from all others.
        expected: The graph's outputs, run plainly, for the rows that the program was made with.
    """

    graph: Graph
    run: Run
    digest: str
    expected: tuple[Array, ...]


@dataclass(frozen=True)
class Prepared:
    """A kind of work, ready to have its program made: what that has to give is known.

    Attributes:
        kind: The kind.
        origin: Its graph, and what that gives.
        model: The graph as engines read it.
        fed: The graph's inputs on which programs are compared with it.
    """

    kind: Kind
    origin: Origin
    model: LazyModel
    fed: tuple[Array, ...]


class KindProgram:
    """A program for a kind of work.

    Attributes:
        kind: The kind.
        choice: The engines that run it.
        origin: What it was made of; None if that was an earlier start's, or was forgotten.

    Args:
        kind: The kind.
        choice: The engines that run its graph.
        class_count: Number of logits.
        rows: Rows that the graph takes at once; None for any number.
        origin: What it was made of; None if an earlier start has made it.
    """

    def __init__(
        self, kind: Kind, choice: Choice, class_count: int, rows: int | None, origin: Origin | None = None
    ) -> None:
        self.kind = kind
        self.choice = choice
        self.origin = origin
        self._class_count = class_count
        self._rows = rows

    def __call__(self, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Runs it: inputs as the net takes them, and targets, (n,), for gradients → the graph's outputs."""
        fed = graph_rows(self.kind, rows, self._class_count)
        if self._rows is None:
            return self.choice(fed)
        parts = [self._part(fed, start) for start in range(0, len(fed[0]), self._rows)]
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def plainly(self, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """What it has to give: its graph run plainly, each row alone. It is called as the program is.

        Raises:
            RuntimeError: The graph was forgotten.
        """
        if self.origin is None:
            raise RuntimeError("a program was to be compared after its graph was forgotten")
        fed = graph_rows(self.kind, rows, self._class_count)
        return plain_outputs(self.origin.graph, fed, self.origin.run, self._rows or 1)

    def forget(self) -> None:
        """Lets go of what it was made of, which only `plainly` needs."""
        self.origin = None

    def _part(self, fed: tuple[Array, ...], start: int) -> tuple[Array, ...]:
        """Some rows at a time, the last one repeated where there are too few."""
        count = self._rows or 0
        part = [array[start : start + count] for array in fed]
        missing = count - len(part[0])
        filled = tuple(np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for array in part)
        return tuple(output[: len(part[0])] for output in self.choice(filled))


@dataclass(frozen=True)
class Maker:
    """Makes programs of a classifier.

    Attributes:
        graphs: Gives the graphs of the classifier.
        engines: What may run them; the first is taken at equal speed.
        class_count: Number of logits.
        rows: Rows that its graph takes at once; None for any number.
        threads: Threads of the engines; None for one on each usable CPU.
        run: Runs graphs plainly; programs are compared with it.
        cache: Where choices of engines are kept; None keeps none.
        digests: Tell graphs apart.
        alone: Entered while programs are timed, when nothing else should run.
        shared: What runs graphs at present: kinds of work may have one in common.
        early: Programs that are being loaded already.
    """

    graphs: KindGraphs
    engines: Sequence[Engine]
    class_count: int
    rows: int | None
    threads: int | None
    run: Run
    cache: EngineCache | None = None
    digests: GraphDigests = field(default_factory=GraphDigests)
    alone: AbstractContextManager[Any] = field(default_factory=nullcontext)
    shared: SharedPrograms = field(default_factory=SharedPrograms)
    early: EarlyLoads = field(default_factory=EarlyLoads)
    _choices: dict[tuple[str, str], Choice] = field(default_factory=dict)

    def make(self, kind: Kind, sizes: Sequence[int], rows: tuple[Array, ...]) -> KindProgram:
        """Makes the program of a kind, with the fastest engine that agrees with the graph run plainly.

        Args:
            kind: The kind.
            sizes: Batch sizes.
            rows: Inputs of the kind, as many as the largest batch size and at least two, all different.

        Raises:
            PreconditionError: This model does not support the kind, or no engine runs it right, or has its precision.
        """
        return self.load(self.prepare(kind, rows), sizes)

    def prepare(self, kind: Kind, rows: tuple[Array, ...]) -> Prepared:
        """Makes the graph of a kind, and runs it plainly. Arguments are as of `make`; any thread may call it.

        Raises:
            PreconditionError: This model does not support the kind.
        """
        graph = self.graphs(kind)
        fed = compared_rows(kind, rows, self.class_count, self.rows)
        digest = self.digests(graph)
        expected = plain_outputs(graph, fed, self.run, self.rows or 1)
        return Prepared(kind, Origin(graph, self.run, digest, expected), as_model(graph, digest), fed)

    def load(self, prepared: Prepared, sizes: Sequence[int]) -> KindProgram:
        """Makes the program of a kind that was prepared. Arguments are as of `make`.

        Raises:
            PreconditionError: No engine runs it right, or has its precision.
        """
        kind, origin, model, fed = prepared.kind, prepared.origin, prepared.model, prepared.fed
        expected = origin.expected
        examples = Examples(fed, expected, tolerances(kind, len(expected)), origin.graph.outputs)
        sizes = [self.rows] if self.rows else sizes
        choice = self.shared.find(origin.digest, kind.precision, examples)
        try:
            choice = choice or self._choice(kind, model, sizes, examples)
        except EngineError as error:
            if kind.precision:
                raise PreconditionError(str(error)) from error
            choice = self._unoptimised(model, sizes, fed, expected, str(error))
        self.shared.add(origin.digest, kind.precision, choice)
        self.knows(kind, choice)
        return KindProgram(kind, choice, self.class_count, self.rows, origin)

    def knows(self, kind: Kind, choice: Choice) -> None:
        """Notes what runs a kind: graphs that are nearly the same may have the same engines."""
        self._choices.setdefault((kind.name, kind.precision), choice)

    def _choice(self, kind: Kind, model: LazyModel, sizes: Sequence[int], examples: Examples) -> Choice:
        """The engines for a kind: those of what is nearly the same, if they agree here."""
        return choose(
            model,
            self.engines,
            sizes,
            examples,
            precision=cast(Precision, kind.precision or "float32"),
            threads=self.threads,
            seconds=_SECONDS,
            cache=self.cache,
            like=self._like(kind),
            alone=self.alone,
            early=self.early,
        )

    def _like(self, kind: Kind) -> Choice | None:
        """What runs a graph that is nearly that of a kind; in a reduced precision, the same graph in float32."""
        wanted = (kind.name, kind.precision), (_NEARLY.get(kind.name, ""), kind.precision), (kind.name, "")
        return next((self._choices[key] for key in wanted if key in self._choices), None)

    def _unoptimised(
        self, model: LazyModel, sizes: Sequence[int], fed: tuple[Array, ...], expected: tuple[Array, ...], why: str
    ) -> Choice:
        """The graph as it stands, which is right by definition; it serves where engines differ from it.

        They do in nets so rough that the order of a sum decides which way a ReLU goes.
        """
        plain = OnnxRuntime().load_unoptimised(model, self.threads)
        if how := disagreement(plain(fed), expected, [GRADIENT_TOLERANCE] * len(expected)):
            raise PreconditionError(f"{why} Without optimisations, it {how}.")
        taken = _times(plain, sizes, fed)
        engine = f"{described(OnnxRuntime())} unoptimised"
        return Choice({size: Chosen(plain, engine, taken[size], "unoptimised", False) for size in sizes}, {"": why})


def as_model(graph: Graph, digest: str) -> LazyModel:
    """A graph as engines read it."""
    return LazyModel(digest, lambda: bytes(write(graph).SerializeToString()))


def costs(program: KindProgram, sizes: Sequence[int], rows: tuple[Array, ...]) -> dict[int, float]:
    """Seconds of a batch by batch size."""
    if set(sizes) <= set(program.choice.by_size):
        return {size: program.choice.by_size[size].seconds for size in sizes}
    return _times(program, sizes, rows)


def check_gain(kind: Kind, reduced: KindProgram, full: KindProgram | None, rows: tuple[Array, ...]) -> None:
    """Refuses a program in a reduced precision that hardly gains speed.

    Args:
        kind: Its kind.
        reduced: The program.
        full: The same in float32; None if there is none.
        rows: Inputs, as many as the largest batch or more.

    Raises:
        PreconditionError: It gains too little, or there is none in float32.
    """
    if full is None:
        raise PreconditionError("There is no such program in float32.")
    batch = tuple(array[: max(reduced.choice.by_size)] for array in rows)
    share = _share_of_time(reduced, full, batch)
    if share > _GAIN:
        raise PreconditionError(f"{kind.precision} gains little here: it takes {100 * share:.0f} % of float32's time.")


def _share_of_time(one: KindProgram, other: KindProgram, rows: tuple[Array, ...]) -> float:
    """The time of one program over that of another, run in turn, so that other load adds to both."""
    least = [np.inf, np.inf]
    share = 1.0
    for _ in range(_GAIN_ROUNDS):
        least = [min(before, seconds(program, rows)) for before, program in zip(least, (one, other), strict=True)]
        share = least[0] / least[1]
        if not _CLEAR * _GAIN <= share <= _GAIN / _CLEAR:
            break
    return float(share)


def _times(
    program: Callable[[tuple[Array, ...]], object], sizes: Sequence[int], rows: tuple[Array, ...]
) -> dict[int, float]:
    """Seconds of a program by batch size."""
    taken = {"": dict.fromkeys(sizes, np.inf)}
    take_times(taken, lambda _, size: seconds(program, tuple(array[:size] for array in rows)))
    return taken[""]
