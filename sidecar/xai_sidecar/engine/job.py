"""A computation under way."""

from __future__ import annotations

import contextlib
import enum
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from xai_sidecar.engine.launch import Lane, Piece, Turn
from xai_sidecar.engine.threads import logged
from xai_sidecar.engine.timer import Alarm
from xai_sidecar.engine.work import Array, Partial, Steps, Work
from xai_sidecar.errors import BudgetSpentError, ExpiredError, HungError, SidecarError

T = TypeVar("T")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Completed(Generic[T]):
    """What a job came to.

    Attributes:
        value: What its computation returned, or had in hand when it was cut short.
        pass_count: Rows that went through the model for it, padding not counted.
        seconds: From being submitted to being done.
        cut_short: Whether its budget ended it.
        device_seconds: What of these the device ran rows of it.
    """

    value: T
    pass_count: int
    seconds: float
    cut_short: bool = False
    device_seconds: float = 0.0


class Outcome(enum.Enum):
    """How a job ended."""

    DONE = "done"
    TRUNCATED = "truncated"
    FAILED = "failed"
    EXPIRED = "expired"
    HUNG = "hung"
    CANCELLED = "cancelled"


class Job(Future["Completed[T]"], Generic[T]):
    """The future of a computation's result, and how far it has come.

    Whoever settles it first, the computation, its caller by `cancel`, a timer or the loss of the device, has decided;
    all others come too late, and nothing is run for it any more.

    Attributes:
        lane: How urgent it is.
        budget_end: When it has to make do with what it has, on the clock of `time.monotonic`.
        give_up: Until when it goes on for something to return if it has nothing then, on the same clock.
        submitted: When it was submitted, on the same clock.
        pass_count: Rows that have gone through the model for it; any thread may look.
        device_seconds: Its share of the time that these took, by rows; any thread may look.
        wound_up: Whether the engine has it make do with what it has, since it is about to end.
        finishing_seconds: What it may take to work out what there is.
        alarms: What is to be called at its times; cancelled when it is settled.
        turn: Its place in its lane.
        piece: The rows that it waits for; belongs to the device thread, as do the next three.
        rows: The same, array by array.
        collected: The results so far, by the first of their rows.
        collected_rows: How many rows these are.
    """

    def __init__(
        self, steps: Steps[T], lane: Lane, budget_end: float, give_up: float = 0.0, head_start: float = 0.0
    ) -> None:
        super().__init__()
        self.lane = lane
        self.budget_end = budget_end
        self.give_up = give_up
        self.submitted = time.monotonic()
        self.pass_count = 0
        self.device_seconds = 0.0
        self.wound_up = False
        self.finishing_seconds = 0.0
        self.alarms: list[Alarm] = []
        self.turn = Turn(head_start=head_start)
        self.piece: Piece | None = None
        self.rows: tuple[Array, ...] = ()
        self.collected: dict[int, tuple[Array, ...]] = {}
        self.collected_rows = 0
        # The rest belongs to the thread that steps it, but for the best, which any thread may take.
        self._steps: Steps[T] = steps
        self._begun = threading.Lock()  # taken once, by who is the first to touch it
        self._asked: Work | None = None
        self._partial: Partial[T] | None = None
        self._best: Completed[T] | None = None

    # ---------------------------------------------------------------------------------------- the stepping thread

    def step(self, rows: tuple[Array, ...] | None) -> Work | None:
        """Sends the computation a result.

        Args:
            rows: Of the last piece of work; None to begin with.

        Returns:
            The next piece of work; None when it has come to its end, and the job is settled.
        """
        if rows is None and not self._begun.acquire(blocking=False):
            return None
        try:
            sent = None if rows is None or self._asked is None else self._asked.result(rows)
            while isinstance(asked := self._steps.send(sent), Partial):
                self._partial, sent = asked, None
            if not len(asked.rows[0]):
                raise ValueError("a piece of work has no rows")
        except StopIteration as stop:
            self.settle(self._completed(stop.value))
            return None
        except Exception as error:
            if not isinstance(error, SidecarError):
                _log.error("computation_failed", exc_info=error)
            self.fail(error)
            return None
        self._asked = asked
        return asked

    def peek(self) -> T | None:
        """What it could return as it stands; None if there is nothing yet, or any more."""
        return None if self._partial is None or self.done() else self._partial.make()

    def keep_best(self) -> float | None:
        """Puts by what it could return as it stands, when it has come twice as far as the last time.

        Returns:
            The seconds that it took; None if nothing was done.
        """
        if self._partial is None or (self._best is not None and self.pass_count < 2 * self._best.pass_count):
            return None
        started = time.monotonic()
        value = self.peek()
        if value is not None:
            self._best = self._completed(value, cut_short=True)
        return time.monotonic() - started

    def finish(self) -> None:
        """Makes do with what there is, if there is something."""
        value = self.peek()
        if value is not None:
            self.settle(self._completed(value, cut_short=True))

    def wind_up(self) -> None:
        """Makes do with what there is, if there is something, as if its budget had ended."""
        self.wound_up, self.give_up = True, 0.0
        self.finish()
        self.cut()

    def close(self) -> None:
        """Lets go of the computation."""
        with logged("computation_failed_to_close"):
            self._steps.close()
        self._asked = self._partial = self._best = None

    # ---------------------------------------------------------------------------------------- any thread

    def settle(self, completed: Completed[T]) -> None:
        """Sets the result, unless it has one."""
        settle(self.set_result, completed)

    def fail(self, error: BaseException) -> None:
        """Fails, unless it is settled. The error's traceback goes: its frames would keep the job, inputs and all."""
        cause: BaseException | None = error
        while cause is not None:
            cause.__traceback__, cause = None, cause.__cause__ or cause.__context__
        settle(self.set_exception, error)

    def expire(self) -> None:
        """Its caller's deadline has passed."""
        self.fail(ExpiredError("The deadline passed before the work was done. Allow it more time."))

    def cut(self) -> None:
        """Its budget is spent: what has been put by has to do, or the first that there will be."""
        best = self._best
        if best is not None:
            self.settle(self._completed(best.value, cut_short=True))
        elif time.monotonic() >= self.give_up:
            self.fail(BudgetSpentError("The budget ended before there was anything to return. Allow it more time."))

    def release(self) -> None:
        """Lets go of what nobody needs any more once it is settled: a timer, or a busy thread, is no reason to keep it.

        A computation that has begun belongs to the thread that steps it, which closes it.
        """
        while self.alarms:
            with contextlib.suppress(IndexError):  # another thread does the same
                self.alarms.pop().cancel()
        if self._begun.acquire(blocking=False):
            self.close()

    @property
    def outcome(self) -> Outcome:
        """How it ended; it has to be settled."""
        if self.cancelled():
            return Outcome.CANCELLED
        error = self.exception()
        if error is None:
            return Outcome.TRUNCATED if self.result().cut_short else Outcome.DONE
        if isinstance(error, BudgetSpentError):
            return Outcome.TRUNCATED
        if isinstance(error, HungError):
            return Outcome.HUNG
        return Outcome.EXPIRED if isinstance(error, ExpiredError) else Outcome.FAILED

    def _completed(self, value: T, *, cut_short: bool = False) -> Completed[T]:
        return Completed(value, self.pass_count, time.monotonic() - self.submitted, cut_short, self.device_seconds)


def settle(setter: Callable[[Any], None], value: Any) -> None:
    """Calls a setter of a future, unless that is settled or cancelled already."""
    with contextlib.suppress(InvalidStateError):
        setter(value)
