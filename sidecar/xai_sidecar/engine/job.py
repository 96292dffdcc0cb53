"""A computation in progress."""

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

from xai_sidecar.engine.batch import Flow, Lane, Task
from xai_sidecar.engine.threads import logged
from xai_sidecar.engine.timer import Alarm
from xai_sidecar.engine.trace import Trace, branched
from xai_sidecar.engine.work import Array, Partial, Steps, Work
from xai_sidecar.errors import BudgetSpentError, ExpiredError, HungError, SidecarError

T = TypeVar("T")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Completed(Generic[T]):
    """The result of a job.

    Attributes:
        value: What its computation returned, or its best partial result if it was cut short.
        pass_count: Rows that went through the model for it, without padding.
        seconds: From submission to completion.
        cut_short: Whether its budget ended it.
    """

    value: T
    pass_count: int
    seconds: float
    cut_short: bool = False


class JobOutcome(enum.Enum):
    """How a job ended."""

    DONE = "done"
    TRUNCATED = "truncated"
    FAILED = "failed"
    EXPIRED = "expired"
    HUNG = "hung"
    CANCELLED = "cancelled"


class Job(Future["Completed[T]"], Generic[T]):
    """A computation in progress, and the future of its result.

    It is settled once: by its result, an error, its caller's `cancel`, its deadline or budget, or the loss of the
    device. Whatever comes second has no effect, and nothing more is run for it.

    Times are in seconds on the clock of `time.monotonic`.

    Attributes:
        lane: Its priority.
        budget_end: When it completes with its best partial result.
        give_up: Without a partial result at `budget_end` it goes on for its first one until then.
        submitted: When it was submitted.
        pass_count: Rows that have gone through the model for it; any thread may read it.
        wound_up: Whether the engine ended it early because it is about to close.
        finishing_seconds: Estimated seconds to compute the partial result.
        alarms: Its deadline and budget at the timer; cancelled when it is settled.
        flow: Its account in its lane, for fair queueing.
        task: The rows that it waits for; belongs to the device thread, as do the next three.
        rows: The input arrays of the task.
        collected: The result arrays so far, by the index of their first row.
        collected_rows: How many rows these have.
        trace: A branch of the trace of the call that submitted it; None if it is not traced.
    """

    def __init__(
        self,
        steps: Steps[T],
        lane: Lane,
        budget_end: float,
        give_up: float = 0.0,
        flow: Flow | None = None,
    ) -> None:
        super().__init__()
        self.lane = lane
        self.budget_end = budget_end
        self.give_up = give_up
        self.submitted = time.monotonic()
        self.pass_count = 0
        self.wound_up = False
        self.finishing_seconds = 0.0
        self.alarms: list[Alarm] = []
        self.flow = flow or Flow()
        self.task: Task | None = None
        self.rows: tuple[Array, ...] = ()
        self.collected: dict[int, tuple[Array, ...]] = {}
        self.collected_rows = 0
        self.trace: Trace | None = branched() if lane is Lane.PREDICT else None
        # The rest belongs to the thread that steps it; but any thread may read the best.
        self._steps: Steps[T] = steps
        self._begun = threading.Lock()  # acquired once, by its first step or by its release before that
        self._asked: Work | None = None
        self._partial: Partial[T] | None = None
        self._best: Completed[T] | None = None

    # ---------------------------------------------------------------------------------------- the stepping thread

    def step(self, rows: tuple[Array, ...] | None) -> Work | None:
        """Sends the computation the result that it waits for, and runs it up to the next request.

        Args:
            rows: The result arrays of the last `Work`; None for the first step.

        Returns:
            What the computation asks of the model next; None when it has ended, and the job is settled.
        """
        if rows is None and not self._begun.acquire(blocking=False):
            return None
        try:
            sent = None if rows is None or self._asked is None else self._asked.result(rows)
            while isinstance(asked := self._steps.send(sent), Partial):
                self._partial, sent = asked, None
            if not len(asked.rows[0]):
                raise ValueError("a work has no rows")
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
        """Computes its partial result; None if there is none yet, or it is settled."""
        return None if self._partial is None or self.done() else self._partial.make()

    def keep_best(self) -> float | None:
        """Caches a partial result each time the pass count has doubled.

        Returns:
            The seconds that computing it took; None if none was computed.
        """
        if self._partial is None or (self._best is not None and self.pass_count < 2 * self._best.pass_count):
            return None
        started = time.monotonic()
        value = self.peek()
        if value is not None:
            self._best = self._completed(value, cut_short=True)
        return time.monotonic() - started

    def finish(self) -> None:
        """Completes with the partial result, if there is one."""
        value = self.peek()
        if value is not None:
            self.settle(self._completed(value, cut_short=True))

    def wind_up(self) -> None:
        """Completes with the partial result, or fails as if its budget had ended without one."""
        self.wound_up, self.give_up = True, 0.0
        self.finish()
        self.cut()

    def close(self) -> None:
        """Closes the computation and drops its results."""
        with logged("computation_failed_to_close"):
            self._steps.close()
        self._asked = self._partial = self._best = None

    # ---------------------------------------------------------------------------------------- any thread

    def settle(self, completed: Completed[T]) -> None:
        """Sets the result, unless it has one."""
        settle(self.set_result, completed)

    def fail(self, error: BaseException) -> None:
        """Fails, unless it is settled. Drops the error's traceback, whose frames would keep the job and its inputs."""
        cause: BaseException | None = error
        while cause is not None:
            cause.__traceback__, cause = None, cause.__cause__ or cause.__context__
        settle(self.set_exception, error)

    def expire(self) -> None:
        """Fails because its caller's deadline has passed."""
        self.fail(ExpiredError("The deadline passed before the work was done. Allow it more time."))

    def cut(self) -> None:
        """Ends its budget: completes with the cached partial result, or goes on for the first until `give_up`."""
        best = self._best
        if best is not None:
            self.settle(self._completed(best.value, cut_short=True))
        elif time.monotonic() >= self.give_up:
            self.fail(BudgetSpentError("The budget ended before there was anything to return. Allow it more time."))

    def release(self) -> None:
        """Called when it is settled: cancels its alarms, and closes the computation unless that has begun.

        One that has begun is closed by the thread that steps it.
        """
        while self.alarms:
            with contextlib.suppress(IndexError):  # another thread does the same
                self.alarms.pop().cancel()
        if self._begun.acquire(blocking=False):
            self.close()

    @property
    def outcome(self) -> JobOutcome:
        """How it ended; it has to be settled."""
        if self.cancelled():
            return JobOutcome.CANCELLED
        error = self.exception()
        if error is None:
            return JobOutcome.TRUNCATED if self.result().cut_short else JobOutcome.DONE
        if isinstance(error, BudgetSpentError):
            return JobOutcome.TRUNCATED
        if isinstance(error, HungError):
            return JobOutcome.HUNG
        return JobOutcome.EXPIRED if isinstance(error, ExpiredError) else JobOutcome.FAILED

    def _completed(self, value: T, *, cut_short: bool = False) -> Completed[T]:
        return Completed(value, self.pass_count, time.monotonic() - self.submitted, cut_short)


def settle(setter: Callable[[Any], None], value: Any) -> None:
    """Calls a setter of a future, unless that is settled or cancelled already."""
    with contextlib.suppress(InvalidStateError):
        setter(value)
