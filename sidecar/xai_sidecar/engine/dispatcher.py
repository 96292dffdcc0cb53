"""Makes batches of what waits for the device, and runs them."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import structlog

from xai_sidecar.engine.backend import Backend
from xai_sidecar.engine.background import BackgroundBatches
from xai_sidecar.engine.batch import Batch, Lane, Task, TaskSlice
from xai_sidecar.engine.batching import Run, fitting, joined, padded, rows_of
from xai_sidecar.engine.costs import CostModel, Slowdown, Utilization, row_seconds
from xai_sidecar.engine.job import Job, JobOutcome
from xai_sidecar.engine.overlapping import BatchThreads, Outcome
from xai_sidecar.engine.scheduler import Policy, Scheduler
from xai_sidecar.engine.threads import logged
from xai_sidecar.engine.work import Array, Kind, Work
from xai_sidecar.errors import DeviceError, HungError, SidecarError, device_error

_LEAST_SHARE = 0.01
"""Assumed share of explanations where predictions leave nothing, so that predicted times are finite."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class BatchRecord:
    """A batch that ran, as it is reported to observers.

    Attributes:
        kind: Of its rows.
        lane: Of its jobs.
        size: Batch size, padding included.
        row_count: Rows without padding.
        seconds: Time on the device; where batches overlap, since the last one ended, so that no second counts twice.
            Of one beside the device, what was used of its CPUs since the last one ended, in seconds of all of them.
        overrun: Whether that was more than a time slice.
        waits: Of each task whose first row is in it, the seconds that the task had waited.
    """

    kind: Kind
    lane: Lane
    size: int
    row_count: int
    seconds: float
    overrun: bool
    waits: tuple[float, ...]


class Observer(Protocol):
    """Receives the events of an engine. It must be quick; what it raises is logged."""

    def batch_ran(self, record: BatchRecord) -> None:
        """A batch ran without an error; called on the device thread."""

    def ended(self, lane: Lane, outcome: JobOutcome) -> None:
        """A job was settled; called on the thread that settled it."""


class NoObserver:
    """Ignores all events."""

    def batch_ran(self, record: BatchRecord) -> None:
        """Ignored."""

    def ended(self, lane: Lane, outcome: JobOutcome) -> None:
        """Ignored."""


class Dispatcher:
    """Queues the tasks of jobs, runs them in batches, and hands the results back. For the device thread alone.

    Methods that any thread may call say so.

    Args:
        backend: Knows its batch sizes and their costs.
        run: Runs a batch on it, as `Backend.run`.
        policy: How the device is shared.
        observer: Receives each batch that ran.
        completed: Called with a job and its result rows when all rows of its task are done.
        threads: Run batches beside each other; None where the device runs one at a time.
        background: Runs evaluation beside the device; None where nothing does.

    Attributes:
        slowdown: How much longer explanations take than was measured at start.
    """

    def __init__(
        self,
        backend: Backend,
        run: Run,
        policy: Policy,
        observer: Observer,
        completed: Callable[[Job[Any], tuple[Array, ...]], None],
        threads: BatchThreads | None = None,
        background: BackgroundBatches | None = None,
    ) -> None:
        self._backend = backend
        self._background = background
        self._threads = threads
        self._run_rows = run
        self._policy = policy
        self._observer = observer
        self._completed = completed
        self._cost_model = CostModel(backend.costs)
        self._predicting = Utilization()
        self.slowdown = Slowdown()
        self._scheduler = Scheduler(self._cost_model.costs, policy, self._row_seconds_now, self._runs_beside)
        self._running: tuple[Batch, float] | None = None  # the batch in progress here, and when it began
        self._last_ended = 0.0  # when the last batch ended

    def waiting(self, lane: Lane) -> int:
        """Rows that wait in a lane; any thread may ask."""
        return self._scheduler.waiting(lane)

    def seconds(self, kind: Kind, row_count: int) -> float:
        """Predicted seconds of rows if nothing else runs, see `CostModel`; any thread may ask."""
        return self._cost_model.seconds(kind, row_count)

    def explaining_seconds(self, label: str, kind: Kind, row_count: int, now: float) -> float:
        """Predicted seconds of an explanation's rows, with all that comes on top; any thread may ask.

        Args:
            label: The explainer's name.
            kind: Of the rows.
            row_count: How many.
            now: On the clock of `time.monotonic`.
        """
        return row_count * self._row_seconds(kind) * self.slowdown.ratio(label, now)

    def _row_seconds_now(self, kind: Kind, label: str) -> float:
        """Seconds of a row of an explanation beside the predictions that come now."""
        now = time.monotonic()
        return self.explaining_seconds(label, kind, 1, now) / self.left_by_predictions(now)

    def _row_seconds(self, kind: Kind) -> float:
        return row_seconds(self._backend.costs(kind), self._policy.slice_seconds)

    def left_by_predictions(self, now: float) -> float:
        """Share of device time that predictions leave, at least what explanations get anyway; any thread may ask.

        Args:
            now: On the clock of `time.monotonic`.
        """
        return max(1 - self._predicting.share(now), self._policy.explain_share, _LEAST_SHARE)

    def announce(self) -> None:
        """See `Scheduler.announce`; any thread may call it."""
        self._scheduler.announce(time.monotonic())

    def due(self) -> float | None:
        """When the next batch may run if nothing is added, on the clock of `time.monotonic`; None if nothing can."""
        times = [self._scheduler.due() if self._has_room else None]
        if self._background is not None:
            times += [self._scheduler.due_beside() if self._background.has_room else None, self._background.next_late]
        return min((each for each in times if each is not None), default=None)

    def _runs_beside(self, kind: Kind) -> bool:
        return self._background is not None and self._background.takes(kind)

    @property
    def _has_room(self) -> bool:
        return self._threads is None or self._threads.has_room

    def queue(self, job: Job[Any], work: Work) -> None:
        """Queues the rows of a `Work` as a task of its job, unless the job is settled."""
        if job.done():
            return
        now = time.monotonic()
        if job.lane is Lane.EXPLAIN:
            self.slowdown.began(job, now)
        job.rows, job.collected, job.collected_rows = work.rows, {}, 0
        job.task = Task(job, job.lane, work.kind, len(job.rows[0]), job.flow)
        self._scheduler.add(job.task, now)
        if job.trace is not None:
            job.trace.mark("hand_over", now)

    def drop(self, job: Job[Any]) -> None:
        """Discards the task and the rows of a settled job."""
        self._scheduler.leave(job.flow)
        now = time.monotonic()
        self.slowdown.ended(job, job.flow.label, now, self.left_by_predictions(now))
        if job.task is not None:
            self._scheduler.discard(job.task)
        job.rows, job.task = (), None  # the task refers to its job
        job.collected = {}

    def run_next(self) -> bool:
        """Runs the next batch, or begins it where others are in progress; False when none may run yet."""
        began = self._background is not None and self._begin_beside(self._background)
        batch = self._scheduler.next(time.monotonic()) if self._has_room else None
        if batch is None:
            return began
        # Jobs may have been dropped while their slices of a failed batch waited to be tried again.
        slices = tuple(each for each in batch.slices if each.task is each.task.owner.task)
        if slices:
            self._run_batch(batch if slices == batch.slices else self._batch_of(batch.kind, slices))
        else:
            self._scheduler.ran(batch, 0.0)
        return True

    def _begin_beside(self, background: BackgroundBatches) -> bool:
        """Begins the next batch beside the device, if one may; those that are late there are run on the device."""
        for late in background.give_up_late():
            self._again_on_device(late)
        if not background.has_room:
            return False
        batch = self._scheduler.next_beside(time.monotonic(), background.costs)
        if batch is None:
            return False
        columns = tuple(zip(*(rows_of(each) for each in batch.slices), strict=True))
        run = partial(background.run, batch.kind, batch.size, columns)
        background.begin(batch, run, partial(self._ended_beside, batch, time.monotonic()))
        return True

    def _ended_beside(self, batch: Batch, started: float, used: float, outcome: Outcome | None) -> None:
        """Charges what ran beside the device, and hands its rows back; None if they were given up."""
        self._scheduler.ran_beside(time.monotonic(), used)
        if isinstance(outcome, Exception):
            self._again_on_device(batch)
        elif outcome is not None:
            self._report_batch(batch, started, used, overrun=False)
            self._hand_back(batch, started, outcome)

    def _again_on_device(self, batch: Batch) -> None:
        self._scheduler.again(self._batch_of(batch.kind, batch.slices))

    def _batch_of(self, kind: Kind, slices: tuple[TaskSlice, ...]) -> Batch:
        size = fitting(sum(each.row_count for each in slices), self._backend.costs(kind))
        return Batch(kind, size, slices, self._cost_model.costs(kind)[size])

    def _run_batch(self, batch: Batch) -> None:
        started = time.monotonic()
        columns = tuple(zip(*(rows_of(each) for each in batch.slices), strict=True))
        run = partial(self._run, batch.kind, batch.size, columns)
        if self._threads is not None:
            # The next one is made before this one ends: what it is expected to take is charged.
            self._scheduler.ran(batch, batch.expected_seconds)
            self._threads.begin(run, partial(self._ended, batch, started))
            return
        self._running = batch, started
        try:
            outcome: Outcome = run()
        except Exception as error:
            outcome = error
        self._running = None
        self._ended(batch, started, outcome)

    def _ended(self, batch: Batch, started: float, outcome: Outcome) -> None:
        """Charges a batch, and hands its rows back or says why there are none."""
        now = time.monotonic()
        seconds, self._last_ended = now - max(started, self._last_ended), now
        if not isinstance(outcome, Exception):
            self._cost_model.ran(batch.kind, batch.size, seconds)
            if batch.lane is Lane.PREDICT:
                self._predicting.ran(now, seconds)
            if batch.lane is Lane.EXPLAIN:
                self._explanations_ran(batch, now)
        if self._threads is None:
            self._scheduler.ran(batch, seconds)
        if isinstance(outcome, Exception):
            self._blame(batch, outcome)
        else:
            self._report_batch(batch, started, seconds, overrun=seconds > self._policy.slice_seconds)
            self._hand_back(batch, started, outcome)

    def _hand_back(self, batch: Batch, started: float, outputs: tuple[Array, ...]) -> None:
        offset, now = 0, time.monotonic()
        for each in batch.slices:
            if each.task.owner.trace is not None:
                each.task.owner.trace.mark("device_wait", started)
                each.task.owner.trace.mark("pass", now)
            self._collect(each, tuple(output[offset : offset + each.row_count] for output in outputs))
            offset += each.row_count

    def give_up(self) -> None:
        """Fails the batch in progress, which hangs; on the thread that takes the place of the one that runs it."""
        if self._running is None:
            return
        (batch, started), self._running = self._running, None
        hung = HungError("The model's backend did not come back, and the batch was given up. Try again later.")
        self._ended(batch, started, hung)

    def _explanations_ran(self, batch: Batch, now: float) -> None:
        measured = batch.row_count * self._row_seconds(batch.kind)
        self.slowdown.ran(batch.slices[0].task.flow.label, measured, now, self.left_by_predictions(now))

    def _run(self, kind: Kind, size: int, columns: tuple[tuple[Array, ...], ...]) -> tuple[Array, ...]:
        outputs = self._run_rows(kind, tuple(padded(column, size) for column in columns))
        if any(len(output) != size for output in outputs):
            raise DeviceError(f"The device returned another number of rows than the {size} that it was given.")
        return outputs

    def _blame(self, batch: Batch, error: Exception) -> None:
        """Fails the job of a failed batch; of several jobs, both halves run again, to find the one at fault."""
        slices = batch.slices
        if isinstance(error, SidecarError) and not error.blames_rows:  # each half would fail as well
            self._failed(batch, error)
            return
        if len(slices) == 1:
            _log.warning("batch_failed", kind=str(batch.kind), exc_info=error)
            slices[0].task.owner.fail(device_error(error))
            return
        middle = len(slices) // 2
        for half in (slices[:middle], slices[middle:]):
            self._scheduler.again(self._batch_of(batch.kind, half))

    def _failed(self, batch: Batch, error: SidecarError) -> None:
        """Fails the jobs of a batch that no row was at fault of; evaluation waits instead where that may help."""
        if batch.lane is Lane.EVALUATE and error.retry_seconds is not None:
            self._scheduler.again(batch)
            self._scheduler.pause_evaluation(time.monotonic() + error.retry_seconds)
            return
        for each in batch.slices:
            each.task.owner.fail(copy.copy(error))

    def _collect(self, each: TaskSlice, rows: tuple[Array, ...]) -> None:
        job = each.task.owner
        job.pass_count += each.row_count
        if job.done() or each.task is not job.task:
            return
        job.collected[each.start] = rows
        job.collected_rows += each.row_count
        if job.collected_rows == each.task.row_count:
            in_order = [job.collected[start] for start in sorted(job.collected)]
            job.collected = {}
            self._completed(job, tuple(joined(column) for column in zip(*in_order, strict=True)))

    def _report_batch(self, batch: Batch, started: float, seconds: float, *, overrun: bool) -> None:
        waits = tuple(started - each.task.added for each in batch.slices if each.start == 0)
        record = BatchRecord(
            batch.kind,
            batch.lane,
            batch.size,
            batch.row_count,
            seconds,
            overrun,
            waits,
        )
        with logged("observer_failed"):
            self._observer.batch_ran(record)
