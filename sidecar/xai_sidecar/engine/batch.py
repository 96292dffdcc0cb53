"""What waits for the device, and what runs on it next: tasks, their slices, and batches of these."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from xai_sidecar.engine.work import Kind


class Lane(enum.IntEnum):
    """Priority of a job: a lower lane goes first, but for the share that explanations get (`Policy.explain_share`)."""

    PREDICT = 0
    EXPLAIN = 1
    EVALUATE = 2


@dataclass(frozen=True)
class Promise:
    """What an explanation is promised.

    Attributes:
        by: When its rows are to be done, on the scheduler's clock.
        rows: How many rows that takes.
        first_rows: Rows until its first map, which it gets even where not all promises can be kept.
    """

    by: float
    rows: int
    first_rows: int = 0


MOST_LENT = 1.0
"""Device seconds of head starts that may be outstanding among the flows of a caller."""


@dataclass(eq=False)
class Account:
    """A caller's account in a lane.

    Attributes:
        caller: Its name.
        number: Tells it from others of the same start tag.
        service: Service received in device seconds (the start tag), counted from the lane's virtual time.
        tasks: Number of its tasks that wait.
        flows: Number of its flows that have begun and not left.
        virtual_time: Of its flows.
        last_tag: Start tag of the flow served last.
        lendable: Head starts that its flows may have, in device seconds.
    """

    caller: str
    number: int
    service: float = 0.0
    tasks: int = 0
    flows: int = 0
    virtual_time: float = 0.0
    last_tag: float = 0.0
    lendable: float = MOST_LENT


@dataclass(eq=False)
class Flow:
    """A job's account within that of its caller: start-time fair queueing calls it a flow. See `turns`.

    Attributes:
        service: Service received in device seconds (the start tag of fair queueing). A new flow begins at its
            caller's virtual time, not at 0.
        new: Whether it has not queued anything yet.
        head_start: Device seconds by which its tasks are put forward; 0 once they are used up. They count as service.
        lent: Service received since then.
        label: What `Slowdown` learns for; the explainer's name.
        promise: What it is promised; None for nothing.
        rows: Rows that have been put in batches.
        task: The last one queued; None before the first.
        caller: Whose it is; empty for nobody's.
        account: The caller's; None before it has queued anything.
        left: Whether it has ended.
    """

    service: float = 0.0
    new: bool = True
    head_start: float = 0.0
    lent: float = 0.0
    label: str = ""
    promise: Promise | None = None
    rows: int = 0
    task: Task | None = None
    caller: str = ""
    account: Account | None = None
    left: bool = False


@dataclass(eq=False)
class Task:
    """The rows that one job waits for: one `Work` of its computation.

    Attributes:
        owner: The job; opaque to the scheduler.
        lane: Priority.
        kind: Rows of the same kind may share a batch.
        row_count: Number of rows.
        flow: The job's account, shared by all its tasks.
        scheduled: How many rows have been put in batches, from the first one on.
        added: When it was queued, in seconds.
        arrival: Its number in the order of queueing.
        entry: Its entry in the scheduler's queue; None while it has none.
    """

    owner: Any
    lane: Lane
    kind: Kind
    row_count: int
    flow: Flow = field(default_factory=Flow)
    scheduled: int = 0
    added: float = 0.0
    arrival: int = 0
    entry: Any = None

    @property
    def waiting(self) -> int:
        """Rows that are in no batch yet."""
        return self.row_count - self.scheduled


@dataclass(frozen=True)
class TaskSlice:
    """Rows `start` to `stop` of a task."""

    task: Task
    start: int
    stop: int

    @property
    def row_count(self) -> int:
        """Number of rows."""
        return self.stop - self.start


@dataclass(frozen=True)
class Batch:
    """What the device runs in one go: the rows of the slices in this order, padded to `size`.

    Attributes:
        kind: Of all its rows.
        size: Batch size, padding included.
        slices: The rows; all are of one lane.
        expected_seconds: Cost by the cost model.
        urgent: Whether it was out of turn, for a promise in danger.
    """

    kind: Kind
    size: int
    slices: tuple[TaskSlice, ...]
    expected_seconds: float = 0.0
    urgent: bool = False

    @property
    def lane(self) -> Lane:
        """The lane of all its rows."""
        return self.slices[0].task.lane

    @property
    def row_count(self) -> int:
        """Rows without padding."""
        return sum(each.row_count for each in self.slices)
