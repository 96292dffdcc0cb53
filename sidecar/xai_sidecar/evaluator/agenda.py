"""What the evaluator does next: breadth first, with enough at a time to fill batches. No clock or thread in here.

Of samples that are measured, maps and first scores come before everything else, the oldest sample's first; maps that
take far more passes than first scores do come after those of all samples at hand. What takes passes of one kind waits
for its turn apart from other kinds: gradients, which may run rarely beside predictions, do not hold up masked passes.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from xai_sidecar.engine.work import Kind, MaskedForward
from xai_sidecar.evaluator.runs import Measurement

MOST_MASKED, MOST_OTHERS = 8, 4
"""Runs at a time of masked passes, which hold a batch of masks each, and of every other kind."""

FIRST, COSTLY, LATER = 0, 1, 2
"""Stages: maps and first scores, maps that take many passes, and all other scores."""


@dataclass(eq=False)
class Run:
    """A computation to submit.

    Attributes:
        sample: Number of the sample, in the order in which they were begun.
        stage: `FIRST`, `COSTLY` or `LATER`.
        kind: The kind of its passes.
        measurements: What it is for; none for passes that are the sample's.
        metrics: What it measures of the one map there is; None where it makes maps.
        measured: The sample, as the evaluator knows it.
    """

    sample: int
    stage: int
    kind: Kind
    measurements: Sequence[Measurement] = ()
    metrics: tuple[str, ...] | None = None
    measured: Any = None


_Key: TypeAlias = tuple[int, int, int]


class Agenda:
    """The runs that wait, by turns of stage, sample and arrival."""

    def __init__(self) -> None:
        self._waiting: dict[Kind, list[tuple[_Key, Run]]] = {}
        self._running: Counter[Kind] = Counter()
        self._arrivals = itertools.count()

    def add(self, run: Run) -> None:
        """Queues a run."""
        heapq.heappush(self._waiting.setdefault(run.kind, []), ((run.stage, run.sample, next(self._arrivals)), run))

    def next(self, last_stage: int = LATER) -> Run | None:
        """Takes the next run of a stage up to the last one given, of a kind that has room; None if there is none."""
        heads = [
            (runs[0][0], kind)
            for kind, runs in self._waiting.items()
            if runs and runs[0][0][0] <= last_stage and self._running[kind] < _most(kind)
        ]
        if not heads:
            return None
        kind = min(heads, key=lambda head: head[0])[1]
        self._running[kind] += 1
        return heapq.heappop(self._waiting[kind])[1]

    def ended(self, run: Run) -> None:
        """Makes room for another run."""
        self._running[run.kind] -= 1

    def has_room(self, kind: Kind) -> bool:
        """Whether another run of a kind could run now, as none of the first stage waits."""
        return self._running[kind] < _most(kind) and not self.waiting(kind, FIRST)

    def waiting(self, kind: Kind, stage: int) -> int:
        """How many runs of a kind and stage wait."""
        return sum(key[0] == stage for key, _ in self._waiting.get(kind, ()))


def _most(kind: Kind) -> int:
    return MOST_MASKED if kind == MaskedForward.kind else MOST_OTHERS
