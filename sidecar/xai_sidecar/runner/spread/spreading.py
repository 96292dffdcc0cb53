"""Spreads the pictures of a data set over workers, and goes on where one of them dies. No Ray in here."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from xai_sidecar import __version__
from xai_sidecar.errors import ConfigError, DeviceLostError
from xai_sidecar.evaluator.measurement import EvaluatedModel
from xai_sidecar.runner.data import DataItem
from xai_sidecar.runner.outcome import PictureOutcome
from xai_sidecar.runner.spread.cluster import Cluster, Event, Lost, Measured, Ready
from xai_sidecar.runner.spread.travelling import packed

_MOST_IN_HAND = 24
"""Pictures that a worker has at a time: those that it measures, those that are predicted, and those that it reads."""

_LOOKED_AHEAD = 8
"""Pictures for each worker that are looked at ahead of their turn, to see whether the end is near."""

_ALONE, _MOST_LOSSES = 2, 3
"""How often a picture is lost with its worker before it is measured alone, and before it is given up."""

_MOST_LOST = 3
"""Workers that may die in a row, for each one wanted, with no picture measured between."""

_POLL_SECONDS = 0.5

Report = Callable[[str], None]


@dataclass(eq=False)
class _Picture:
    """A picture that is not measured yet.

    Attributes:
        item: The picture.
        losses: How often a worker died that had it.
    """

    item: DataItem
    losses: int = 0


@dataclass(eq=False)
class _Worker:
    """A worker that was begun and is not lost.

    Attributes:
        where: Its machine; empty until it is ready.
        has: Its pictures, by name.
        stopped: Whether it gets no more.
    """

    where: str = ""
    has: dict[str, _Picture] = field(default_factory=dict)
    stopped: bool = False

    @property
    def alone(self) -> bool:
        """Whether it measures a picture that has to be alone."""
        return any(each.losses >= _ALONE for each in self.has.values())


class Spreader:
    """Has workers measure pictures.

    Each worker has its share of the pictures in hand, and gets another one for each that it is done with. Those that a
    worker had when it died go to others, and another worker takes its place. Pictures that were there at several deaths
    are measured alone; one whose worker dies again is given up, so that it cannot hold up the others.

    Args:
        cluster: Where the workers are.
        count: Workers wanted, at least 1.
        report: Called with what happens to workers, in a line.

    Attributes:
        described: The model, once the first worker is ready; see `WorkerFacts`.
    """

    def __init__(self, cluster: Cluster, count: int, report: Report = lambda line: None) -> None:
        self._cluster = cluster
        self._count = count
        self._report = report
        self._workers: dict[int, _Worker] = {}
        self._again: deque[_Picture] = deque()  # lost with their worker
        self._ahead: deque[_Picture] = deque()
        self._evaluated: EvaluatedModel | None = None
        self.described: Mapping[str, Any] = {}
        self._lost_in_a_row = 0
        self._take: Callable[[PictureOutcome], None] = lambda outcome: None

    def start(self, stop: Callable[[], bool] = lambda: False) -> EvaluatedModel:
        """Starts the workers; returns the model once the first one is ready.

        Raises:
            ConfigError: Something named is not there or does not fit.
            DeviceLostError: Workers die while they start.
            KeyboardInterrupt: It was stopped.
        """
        for _ in range(self._count):
            self._start_one()
        while self._evaluated is None:
            if stop():
                raise KeyboardInterrupt
            self._hear()
        return self._evaluated

    def run(self, items: Iterator[DataItem], take: Callable[[PictureOutcome], None], stop: Callable[[], bool]) -> bool:
        """As `Runner.run`.

        Raises:
            ConfigError: A machine has another model, or another release.
            DeviceLostError: Workers die, one after the other.
        """
        self._take = take
        more, stopped = True, False
        while True:
            if not stopped and stop():
                stopped, more = True, False
                self._stop()
            if more:
                more = self._look_ahead(items)
            self._hand_out()
            if not (self._ahead or self._again or any(each.has for each in self._workers.values())):
                return stopped
            self._hear()

    # ------------------------------------------------------------------------------------------------ handing out

    def _look_ahead(self, items: Iterator[DataItem]) -> bool:
        """Looks at the next pictures; returns whether there are more."""
        while len(self._ahead) < _LOOKED_AHEAD * self._count:
            item = next(items, None)
            if item is None:
                return False
            self._ahead.append(_Picture(item))
        return True

    def _hand_out(self) -> None:
        """Gives pictures to the workers that have room, by turns."""
        while (picture := self._next()) is not None:
            free = [
                (len(worker.has), number) for number, worker in self._workers.items() if self._takes(worker, picture)
            ]
            if not free:
                return
            (self._again if self._again else self._ahead).popleft()
            self._give(min(free)[1], picture)

    def _next(self) -> _Picture | None:
        waiting = self._again or self._ahead
        return waiting[0] if waiting else None

    def _takes(self, worker: _Worker, picture: _Picture) -> bool:
        """Whether a worker has room for a picture. Near the end, each has its share of what is left, and no more."""
        if not worker.where or worker.stopped or worker.alone:
            return False
        if picture.losses >= _ALONE:
            return not worker.has
        in_hand = sum(len(each.has) for each in self._workers.values())
        share = math.ceil((len(self._ahead) + len(self._again) + in_hand) / self._count)
        return len(worker.has) < min(_MOST_IN_HAND, share)

    def _give(self, number: int, picture: _Picture) -> None:
        item = packed(picture.item)
        if isinstance(item, PictureOutcome):  # it cannot be opened, here or anywhere
            self._take(item)
            return
        self._workers[number].has[item.name] = picture
        self._cluster.submit(number, item)

    def _stop(self) -> None:
        """Has the pictures measured that were begun, and no others."""
        self._ahead.clear()
        self._again.clear()
        for number, worker in list(self._workers.items()):
            worker.stopped = True
            if worker.where:
                self._cluster.stop(number)
            else:
                self._cluster.remove(number)
                del self._workers[number]

    # ------------------------------------------------------------------------------------------------ events

    def _hear(self) -> None:
        for event in self._cluster.events(_POLL_SECONDS):
            self._heard(event)

    def _heard(self, event: Event) -> None:
        worker = self._workers.get(event.worker)
        if worker is None:  # it was removed
            return
        if isinstance(event, Ready):
            self._ready(worker, event)
        elif isinstance(event, Measured):
            self._lost_in_a_row = 0
            del worker.has[event.name]
            if event.outcome is not None:
                self._take(event.outcome)
        elif isinstance(event, Lost):
            self._lose(event)
        else:
            raise event.error

    def _ready(self, worker: _Worker, event: Ready) -> None:
        facts, known = event.facts, self._evaluated
        if facts.sidecar != __version__:
            raise ConfigError(
                f"{facts.where} has xai-sidecar {facts.sidecar}, and here it is {__version__}. Install the same "
                "release on all machines.",
                field="ray",
            )
        if known is not None and facts.evaluated.version != known.version:
            raise ConfigError(
                f"{facts.where} has another model than the others: its version is {facts.evaluated.version}, "
                f"and theirs {known.version}. Give all machines the same files.",
                field="ray",
            )
        self._evaluated = known or facts.evaluated
        self.described = self.described or facts.described
        worker.where = facts.where
        ready = sum(bool(each.where) for each in self._workers.values())
        self._report(f"ready: {facts.where} ({ready} of {self._count} actors)")

    def _lose(self, event: Lost) -> None:
        worker = self._workers.pop(event.worker)
        self._cluster.remove(event.worker)
        self._lost_in_a_row += 1
        if self._lost_in_a_row > _MOST_LOST * self._count:
            raise DeviceLostError(
                f"{self._lost_in_a_row} actors died in a row without measuring a picture, the last one with: "
                f"{event.why} The same command goes on once that is mended."
            )
        where = worker.where or "an actor that was starting"
        if worker.stopped:
            self._report(f"lost: {where} ({event.why})")
            return
        self._report(f"lost: {where} ({event.why}); {len(worker.has)} pictures go to others")
        for picture in reversed(worker.has.values()):
            picture.losses += 1
            if picture.losses >= _MOST_LOSSES:
                why = f"The actor that measured it died, {picture.losses} times. The last time: {event.why}"
                self._take(PictureOutcome(picture.item.name, problem=why))
            else:
                self._again.appendleft(picture)
        self._start_one()

    def _start_one(self) -> None:
        self._workers[self._cluster.start()] = _Worker()
