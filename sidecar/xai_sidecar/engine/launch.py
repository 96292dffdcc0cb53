"""What waits for the device, and what runs on it next."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from xai_sidecar.engine.work import Kind


class Lane(enum.IntEnum):
    """Who goes first: a lower lane always does."""

    PREDICT = 0
    EXPLAIN = 1
    EVALUATE = 2


@dataclass(eq=False)
class Turn:
    """A job's place among the others of its lane.

    Attributes:
        had: Device seconds that it has had, counted from where the others stood when it came.
        new: Whether it has yet to come.
        head_start: Device seconds that it may have before its turn comes; 0 once it has had them. They count as any.
        lent: What it has had of these.
    """

    had: float = 0.0
    new: bool = True
    head_start: float = 0.0
    lent: float = 0.0


@dataclass(eq=False)
class Piece:
    """The rows that one job waits for.

    Attributes:
        owner: Whose rows they are; it means nothing here.
        lane: How urgent they are.
        kind: What they can share a launch with.
        row_count: How many there are.
        turn: The job's, the same for all its pieces.
        scheduled: How many of the rows are in a launch already, or were.
        added: When it was queued.
        arrival: Its number in the order of being queued.
    """

    owner: Any
    lane: Lane
    kind: Kind
    row_count: int
    turn: Turn = field(default_factory=Turn)
    scheduled: int = 0
    added: float = 0.0
    arrival: int = 0

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

    @property
    def row_count(self) -> int:
        """How many they are."""
        return self.stop - self.start


@dataclass(frozen=True)
class Launch:
    """What the device does next: the rows of the parts in this order, padded to `size`; all are of one lane.

    Attributes:
        kind: Of all its rows.
        size: Batch size.
        parts: The rows.
        expected_seconds: What it is taken to cost.
    """

    kind: Kind
    size: int
    parts: tuple[Part, ...]
    expected_seconds: float = 0.0

    @property
    def lane(self) -> Lane:
        """How urgent it is."""
        return self.parts[0].piece.lane

    @property
    def row_count(self) -> int:
        """Rows that are not padding."""
        return sum(part.row_count for part in self.parts)
