"""The policy: which rows go into the next launch, and how large it is. No clock, thread or device in here."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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


@dataclass
class Scheduler:
    """Strictly lane by lane, first come first served within one, rows of one kind together."""

    costs: Callable[[Kind], Mapping[int, float]]
    _queues: dict[Lane, deque[Piece]] = field(default_factory=lambda: {lane: deque() for lane in Lane})

    def add(self, piece: Piece) -> None:
        """Queues a piece of at least one row."""
        self._queues[piece.lane].append(piece)

    def discard(self, owner: Any) -> None:
        """Forgets the rows of an owner that are not in a launch."""
        for lane, queue in self._queues.items():
            self._queues[lane] = deque(piece for piece in queue if piece.owner != owner)

    def next(self) -> Launch | None:
        """Takes the rows of the next launch out of the queues; None when nothing waits."""
        queue = next((self._queues[lane] for lane in Lane if self._queues[lane]), None)
        if queue is None:
            return None
        kind = queue[0].kind
        alike = [piece for piece in queue if piece.kind == kind]
        size = best_size(sum(piece.row_count - piece.scheduled for piece in alike), self.costs(kind))
        parts = []
        room = size
        for piece in alike:
            start = piece.scheduled
            piece.scheduled = min(piece.row_count, start + room)
            parts.append(Part(piece, start, piece.scheduled))
            room -= piece.scheduled - start
            if piece.scheduled == piece.row_count:
                queue.remove(piece)
            if room == 0:
                break
        return Launch(kind, size, tuple(parts))


def best_size(row_count: int, costs: Mapping[int, float]) -> int:
    """The batch size that gets the most rows done per second when `row_count` of them wait; the smaller on a tie.

    Padding is thus only accepted where it pays: on a device where 8 rows cost 8 times one row, 3 rows run one by one.
    """
    return max(sorted(costs), key=lambda size: min(size, row_count) / costs[size])
