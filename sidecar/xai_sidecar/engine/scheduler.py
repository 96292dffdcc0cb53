"""The policy: which rows go into the next launch, and how large it is. No clock, thread or device in here."""

from __future__ import annotations

import enum
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xai_sidecar.engine.work import Kind


class Lane(enum.IntEnum):
    """Who goes first: a lower lane always does."""

    PREDICT = 0
    EXPLAIN = 1


@dataclass(eq=False)
class Piece:
    """The rows that one job waits for.

    Attributes:
        owner: Whose rows they are; it means nothing here.
        lane: How urgent they are.
        kind: What they can share a launch with.
        row_count: How many there are.
        scheduled: How many of them are in a launch already, or were.
    """

    owner: Any
    lane: Lane
    kind: Kind
    row_count: int
    scheduled: int = 0

    @property
    def waiting(self) -> int:
        """Rows that are not in a launch yet."""
        return self.row_count - self.scheduled


@dataclass(frozen=True)
class Part:
    """Rows `start` to `stop` of a piece."""

    piece: Piece
    start: int
    stop: int


@dataclass(frozen=True)
class Launch:
    """What the device does next: the rows of the parts in this order, padded to `size`."""

    kind: Kind
    size: int
    parts: tuple[Part, ...]

    @property
    def row_count(self) -> int:
        """Rows that are not padding."""
        return sum(part.stop - part.start for part in self.parts)


class Scheduler:
    """Strictly lane by lane, first come first served within one, rows of one kind together.

    Args:
        costs: The batch sizes of a kind, with the seconds that a launch of each takes.
    """

    def __init__(self, costs: Callable[[Kind], Mapping[int, float]]) -> None:
        self._costs = costs
        self._arrivals = itertools.count()
        self._queues: dict[Lane, dict[Kind, deque[tuple[int, Piece]]]] = {lane: {} for lane in Lane}

    def add(self, piece: Piece) -> None:
        """Queues a piece of at least one row."""
        queue = self._queues[piece.lane].setdefault(piece.kind, deque())
        queue.append((next(self._arrivals), piece))

    @staticmethod
    def discard(piece: Piece) -> None:
        """Forgets the rows of a piece that are not in a launch."""
        piece.scheduled = piece.row_count

    def next(self) -> Launch | None:
        """Takes the rows of the next launch out of the queues; None when nothing waits."""
        for lane in Lane:
            kinds = self._queues[lane]
            for kind in list(kinds):
                _drop_finished(kinds[kind])
                if not kinds[kind]:
                    del kinds[kind]
            if kinds:
                kind = min(kinds, key=lambda kind: kinds[kind][0][0])
                return self._launch(kind, kinds[kind])
        return None

    def _launch(self, kind: Kind, queue: deque[tuple[int, Piece]]) -> Launch:
        costs = self._costs(kind)
        size = best_size(_waiting(queue, max(costs)), costs)
        parts = []
        room = size
        while room and queue:
            piece = queue[0][1]
            count = min(room, piece.waiting)
            if count:
                parts.append(Part(piece, piece.scheduled, piece.scheduled + count))
            piece.scheduled += count
            room -= count
            if not piece.waiting:
                queue.popleft()
        return Launch(kind, size, tuple(parts))


def _drop_finished(queue: deque[tuple[int, Piece]]) -> None:
    while queue and not queue[0][1].waiting:
        queue.popleft()


def _waiting(queue: deque[tuple[int, Piece]], enough: int) -> int:
    """Rows that wait, counted no further than `enough`."""
    count = 0
    for _, piece in queue:
        count += piece.waiting
        if count >= enough:
            break
    return count


def best_size(row_count: int, costs: Mapping[int, float]) -> int:
    """The batch size that gets the most rows done per second when `row_count` of them wait; the smaller on a tie.

    Padding is thus only accepted where it pays: on a device where 8 rows cost 8 times one row, 3 rows run one by one.
    """
    return max(sorted(costs), key=lambda size: min(size, row_count) / costs[size])
