"""Engines that run a batch in parts: several launches in flight, each of some of the rows, on a share of the CPUs.

The threads of a launch wait for each other after every operator, and longer where other work takes one of their CPUs.
Launches of one thread each wait for nobody until all rows are done: on two CPUs, two of them get through up to half as
many rows more. One row alone still has all CPUs, from the engine itself.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Sequence

from xai_sidecar.backends.runtimes.program import Engine, Model, Precision, Program
from xai_sidecar.cpus import usable_cpus
from xai_sidecar.engine.batching import joined
from xai_sidecar.engine.work import Array

_Rows = tuple[Array, ...]


class InParts:
    """An engine that runs batches in parts, as an `Engine`.

    Args:
        engine: Runs each part. It has to divide its threads among so many calls at once.
        parts: In how many parts a batch is run, at most.

    Attributes:
        whole: The name of the engine that runs batches whole.
    """

    fixed_up_to = 0

    def __init__(self, engine: Engine, parts: int) -> None:
        self.whole = engine.name
        self.name = f"{engine.name}-in-parts"
        self._engine = engine
        self._parts = parts

    @property
    def version(self) -> str:
        """The engine's version."""
        return self._engine.version

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those of the engine."""
        return self._engine.precisions

    def missing(self) -> str | None:
        """Why the engine cannot be used; see `Engine.missing`."""
        return self._engine.missing()

    def load(
        self,
        model: Model,
        *,
        batch_size: int | None = None,
        precision: Precision = "float32",
        threads: int | None = None,
    ) -> ProgramInParts:
        """Loads a graph for any batch size; see `Engine.load`."""
        parts = min(self._parts, usable_cpus() if threads is None else threads)
        return ProgramInParts(self._engine.load(model, precision=precision, threads=threads), parts)

    def settle(self, program: Program) -> Program:
        """Settles what runs the parts; see `Engine.settle`."""
        return program.settled(self._engine) if isinstance(program, ProgramInParts) else program


def undivided(engines: Sequence[Engine]) -> list[Engine]:
    """The engines that run batches whole."""
    return [engine for engine in engines if not isinstance(engine, InParts)]


class ProgramInParts:
    """A program that runs the rows of a batch in parts at once; see `Program`.

    Args:
        program: Runs any number of rows. The first axis of all inputs and outputs is the row.
        parts: In how many parts, at most.
    """

    def __init__(self, program: Program, parts: int) -> None:
        self._program = program
        self._parts = parts
        self.inputs = program.inputs
        self.outputs = program.outputs

    def settled(self, engine: Engine) -> ProgramInParts:
        """It, or one in its place, whose parts are run by a program that the engine has settled."""
        program = engine.settle(self._program)
        return self if program is self._program else ProgramInParts(program, self._parts)

    def __call__(self, rows: _Rows) -> _Rows:
        """Runs the graph; see `Program.__call__`."""
        count = len(rows[0])
        parts = min(self._parts, count)
        bounds = [count * part // parts for part in range(parts + 1)]
        first, *others = (tuple(array[start:stop] for array in rows) for start, stop in itertools.pairwise(bounds))
        helpers = [_idle_helper() for _ in others]
        for helper, part in zip(helpers, others, strict=True):
            helper.begin(self._program, part)
        try:
            done = [self._program(first)]
        finally:  # where it fails, too, or the helpers' next answers would be these
            answers = [helper.end() for helper in helpers]
            _idle.extend(helpers)
        done += map(_unless_failed, answers)
        return tuple(joined(column) for column in zip(*done, strict=True))


class _Helper:
    """A thread that runs a part of a batch."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[tuple[Program, _Rows]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[_Rows | BaseException] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="part", daemon=True).start()

    def begin(self, program: Program, rows: _Rows) -> None:
        """Has it run a program."""
        self._asked.put((program, rows))

    def end(self) -> _Rows | BaseException:
        """Waits for what that returns or raises."""
        return self._answers.get()

    def _work(self) -> None:
        while True:
            program, rows = self._asked.get()
            try:
                answer: _Rows | BaseException = program(rows)
            except BaseException as error:  # it is raised where it was asked
                answer = error
            self._answers.put(answer)
            del program, rows, answer


_idle: deque[_Helper] = deque()
"""Helpers that wait. As many are made as are wanted at once; one that hangs never comes back here."""


def _idle_helper() -> _Helper:
    try:
        return _idle.pop()
    except IndexError:
        return _Helper()


def _unless_failed(answer: _Rows | BaseException) -> _Rows:
    if isinstance(answer, BaseException):
        raise answer
    return answer
