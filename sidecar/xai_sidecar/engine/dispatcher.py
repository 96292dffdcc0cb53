"""Launching what waits for the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from xai_sidecar.engine.backend import Backend
from xai_sidecar.engine.batching import Run, fitting, joined, padded, rows_of
from xai_sidecar.engine.costs import Busy, CostModel
from xai_sidecar.engine.job import Job, Outcome
from xai_sidecar.engine.launch import Lane, Launch, Part, Piece
from xai_sidecar.engine.scheduler import Policy, Scheduler
from xai_sidecar.engine.threads import logged
from xai_sidecar.engine.work import Array, Kind, Work
from xai_sidecar.errors import DeviceError, HungError, device_error

_LEAST_SHARE = 0.01
"""What is expected for explanations where predictions leave nothing, so that times are finite."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LaunchRecord:
    """One launch, as the engine reports it.

    Attributes:
        kind: Of its rows.
        lane: Of its jobs.
        size: Its batch size.
        row_count: Rows that were not padding.
        seconds: What it took.
        overrun: Whether that was more than a slice.
        waits: Seconds that each of its pieces of work had waited, of those that it began with.
    """

    kind: Kind
    lane: Lane
    size: int
    row_count: int
    seconds: float
    overrun: bool
    waits: tuple[float, ...]


class Observer(Protocol):
    """Told what an engine does; it must be quick. What it raises is logged."""

    def launched(self, record: LaunchRecord) -> None:
        """Told of each launch that went well, on the device thread."""

    def ended(self, lane: Lane, outcome: Outcome) -> None:
        """Told of each job that is settled, on the thread that settles it."""


class NoObserver:
    """An observer of no interest in it."""

    def launched(self, record: LaunchRecord) -> None:
        """Nothing."""

    def ended(self, lane: Lane, outcome: Outcome) -> None:
        """Nothing."""


class Dispatcher:
    """What waits for a backend, and how it comes to run. Belongs to the device thread, but for what says otherwise.

    Args:
        backend: Says what launches cost.
        run: Runs a launch on it.
        policy: How it is shared.
        observer: Told of the launches.
        completed: Told of each piece of work that is done, with its result.
    """

    def __init__(
        self,
        backend: Backend,
        run: Run,
        policy: Policy,
        observer: Observer,
        completed: Callable[[Job[Any], tuple[Array, ...]], None],
    ) -> None:
        self._backend = backend
        self._run_batch = run
        self._policy = policy
        self._observer = observer
        self._completed = completed
        self._pace = CostModel(backend.costs)
        self._predicting = Busy()
        self._scheduler = Scheduler(self._pace.costs, policy)

    def waiting(self, lane: Lane) -> int:
        """Rows that wait in a lane; any thread may ask."""
        return self._scheduler.waiting(lane)

    def seconds(self, kind: Kind, row_count: int) -> float:
        """What rows take as things are, if nothing else runs; any thread may ask."""
        return self._pace.seconds(kind, row_count)

    def left_by_predictions(self, now: float) -> float:
        """The part of its time that is left to explanations, on the clock of `time.monotonic`; any thread may ask."""
        return max(1 - self._predicting.share(now), self._policy.explain_share, _LEAST_SHARE)

    def due(self) -> float | None:
        """When there will be something to run if nothing else comes, on the clock of `time.monotonic`."""
        return self._scheduler.due()

    def queue(self, job: Job[Any], work: Work) -> None:
        """Has a piece of work wait; that of a settled job is passed over."""
        if job.done():
            return
        job.rows, job.collected, job.collected_rows = work.rows, {}, 0
        job.piece = Piece(job, job.lane, work.kind, len(job.rows[0]), job.turn)
        self._scheduler.add(job.piece, time.monotonic())

    def drop(self, job: Job[Any]) -> None:
        """Forgets the work of a settled job."""
        if job.piece is not None:
            self._scheduler.discard(job.piece)
        job.rows, job.piece = (), None  # the piece knows its job
        job.collected = {}

    def run_next(self) -> bool:
        """Runs one launch; False when nothing may run yet."""
        launch = self._scheduler.next(time.monotonic())
        if launch is None:
            return False
        # Jobs may have been dropped while their part of a launch that failed waited to be tried again.
        parts = tuple(part for part in launch.parts if part.piece is part.piece.owner.piece)
        if parts:
            self._launch(launch if parts == launch.parts else self._launch_of(launch.kind, parts))
        else:
            self._scheduler.ran(launch, 0.0)
        return True

    def _launch_of(self, kind: Kind, parts: tuple[Part, ...]) -> Launch:
        return Launch(kind, fitting(sum(part.row_count for part in parts), self._backend.costs(kind)), parts)

    def _launch(self, launch: Launch) -> None:
        started = time.monotonic()
        try:
            outputs = self._run(launch)
        except Exception as error:
            self._scheduler.ran(launch, time.monotonic() - started)
            self._blame(launch, error)
            return
        seconds = time.monotonic() - started
        self._pace.ran(launch.kind, launch.size, seconds)
        if launch.lane is Lane.PREDICT:
            self._predicting.ran(started + seconds, seconds)
        self._scheduler.ran(launch, seconds)
        self._report_launch(launch, started, seconds)
        offset = 0
        for part in launch.parts:
            part.piece.owner.device_seconds += seconds * part.row_count / launch.row_count
            self._collect(part, tuple(output[offset : offset + part.row_count] for output in outputs))
            offset += part.row_count

    def _run(self, launch: Launch) -> tuple[Array, ...]:
        columns = zip(*(rows_of(part) for part in launch.parts), strict=True)
        outputs = self._run_batch(launch.kind, tuple(padded(column, launch.size) for column in columns))
        if any(len(output) != launch.size for output in outputs):
            raise DeviceError(f"The device returned another number of rows than the {launch.size} that it was given.")
        return outputs

    def _blame(self, launch: Launch, error: Exception) -> None:
        """Fails the job of a launch that failed; of several jobs, halves are tried to find the one at fault."""
        parts = launch.parts
        if isinstance(error, HungError):  # nobody's fault, and each half might hang as long
            for part in parts:
                part.piece.owner.fail(HungError(error.message))
            return
        if len(parts) == 1:
            _log.warning("launch_failed", kind=str(launch.kind), exc_info=error)
            parts[0].piece.owner.fail(device_error(error))
            return
        middle = len(parts) // 2
        for half in (parts[:middle], parts[middle:]):
            self._scheduler.again(self._launch_of(launch.kind, half))

    def _collect(self, part: Part, rows: tuple[Array, ...]) -> None:
        job = part.piece.owner
        job.pass_count += part.row_count
        if job.done() or part.piece is not job.piece:
            return
        job.collected[part.start] = rows
        job.collected_rows += part.row_count
        if job.collected_rows == part.piece.row_count:
            in_order = [job.collected[start] for start in sorted(job.collected)]
            job.collected = {}
            self._completed(job, tuple(joined(column) for column in zip(*in_order, strict=True)))

    def _report_launch(self, launch: Launch, started: float, seconds: float) -> None:
        waits = tuple(started - part.piece.added for part in launch.parts if part.start == 0)
        record = LaunchRecord(
            launch.kind,
            launch.lane,
            launch.size,
            launch.row_count,
            seconds,
            seconds > self._policy.slice_seconds,
            waits,
        )
        with logged("observer_failed"):
            self._observer.launched(record)
