"""The device thread: drives the jobs' computations, launch by launch, and owns their futures."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import structlog

from xai_sidecar.engine.backend import Backend, Report
from xai_sidecar.engine.batching import fitting, joined, padded, rows_of
from xai_sidecar.engine.scheduler import Lane, Launch, Piece, Scheduler
from xai_sidecar.engine.work import Array, Kind, Steps, Work
from xai_sidecar.errors import DeviceError, DeviceLostError, ExpiredError, ShuttingDownError, device_error

T = TypeVar("T")

_STARTING_SECONDS = 0.002

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Completed(Generic[T]):
    """What a job came to.

    Attributes:
        value: What its computation returned.
        pass_count: Rows that went through the model for it, padding not counted.
        seconds: From being submitted to being done.
    """

    value: T
    pass_count: int
    seconds: float


@dataclass(frozen=True)
class LaunchRecord:
    """One launch, as `Engine` reports it to its observer."""

    kind: Kind
    size: int
    row_count: int
    seconds: float


@dataclass(eq=False)
class _Job:
    steps: Steps[Any]
    lane: Lane
    deadline: float
    future: Future[Completed[Any]]
    submitted: float
    work: Work | None = None
    piece: Piece | None = None
    collected: list[tuple[Array, ...]] = field(default_factory=list)
    collected_rows: int = 0
    pass_count: int = 0


class Engine:
    """Runs computations on one device.

    Every submitted computation becomes a job; the rows of its pieces of work are cut and mixed with those of other
    jobs into launches of the compiled batch sizes. Everything that touches the backend, and every step of every
    computation, happens on the one device thread.

    How much may be under way is for the callers to limit, who know what belongs together.

    Args:
        make_backend: Called once, on the device thread.
        observe: Told of each launch, on the device thread.
        on_lost: Called when the device thread dies of an error nobody foresaw, on that thread.
    """

    def __init__(
        self,
        make_backend: Callable[[], Backend],
        *,
        observe: Callable[[LaunchRecord], None] = lambda record: None,
        on_lost: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._make_backend = make_backend
        self._observe = observe
        self._on_lost = on_lost
        # A job to be taken in or, if it is already in, to be dropped because its future was cancelled; None to wake up.
        self._inbox: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closing = False
        self._lost = False
        self._lock = threading.Lock()  # guards _closing and _lost against submissions
        self._ready: Future[Mapping[Kind, str]] = Future()
        self._thread = threading.Thread(target=self._main, name="device", daemon=True)
        # The rest belongs to the device thread.
        self._jobs: set[_Job] = set()
        self._deadlines: list[tuple[float, int, weakref.ref[_Job]]] = []
        self._arrivals = itertools.count()
        self._unstarted: deque[_Job] = deque()

    # ---------------------------------------------------------------------------------------- any thread

    def start(
        self, kinds: Callable[[Backend], list[Kind]], report: Report = lambda line: None
    ) -> Future[Mapping[Kind, str]]:
        """Begins to make the backend and to compile.

        Args:
            kinds: Says, once the backend is there, what has to be compiled.
            report: Told of the progress, on the device thread.

        Returns:
            Once the backend is ready to serve, the kinds that it cannot do after all, with the reasons; or a
            ConfigError, as the backend says.
        """
        self._kinds = kinds
        self._report = report
        self._thread.start()
        return self._ready

    @property
    def alive(self) -> bool:
        """Whether the device thread runs."""
        return self._thread.is_alive()

    def submit(self, steps: Steps[T], lane: Lane, *, deadline: float = float("inf")) -> Future[Completed[T]]:
        """Starts a computation.

        Cancelling the future ends it at the next launch boundary.

        Args:
            steps: The computation.
            lane: How urgent it is.
            deadline: On the clock of `time.monotonic`; when it passes the job fails with ExpiredError.

        Raises:
            ShuttingDownError: `close` was called.
            DeviceLostError: The device thread is gone.
        """
        future: Future[Completed[T]] = Future()
        job = _Job(steps, lane, deadline, future, time.monotonic())
        with self._lock:
            if self._lost:
                raise DeviceLostError("The device thread has ended. The server has to be restarted.")
            if self._closing:
                raise ShuttingDownError("The server is shutting down. Send the request to another one.")
            self._inbox.put(job)

        waiting = weakref.ref(job)  # or else future, callback and job would keep each other, inputs and all

        def wake(settled: Future[Completed[T]]) -> None:
            cancelled = waiting() if settled.cancelled() else None
            if cancelled is not None:
                self._inbox.put(cancelled)

        future.add_done_callback(wake)
        return future

    def close(self, timeout: float | None = None) -> bool:
        """Takes no more jobs, finishes those under way, and lets go of the backend.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.

        Returns:
            Whether all of it was done in time.
        """
        with self._lock:
            self._closing = True
            self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    # ---------------------------------------------------------------------------------------- the device thread

    def _main(self) -> None:
        try:
            backend = self._make_backend()
            failed = backend.warm_up(self._kinds(backend), self._report)
        except BaseException as error:
            self._lose(error)
            _settle(self._ready.set_exception, error)
            return
        self._backend = backend
        self._scheduler = Scheduler(backend.costs)
        _settle(self._ready.set_result, failed)
        try:
            while self._accept():
                self._expire()
                self._start_some()
                launch = self._scheduler.next()
                if launch is not None:
                    self._launch(launch)
            self._backend.close()
        except BaseException as error:
            _log.exception("device_thread_died")
            self._lose(error)
            self._on_lost(error)

    def _accept(self) -> bool:
        """Takes in what was submitted, waiting for it when there is nothing to do; False when all is over."""
        while True:
            idle = not self._jobs
            if idle and self._closing and self._inbox.empty():
                return False
            try:
                job = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if job is not None:
                self._take(job)

    def _take(self, job: _Job) -> None:
        if job.future.cancelled():
            self._end(job)
        elif job not in self._jobs:
            self._jobs.add(job)
            if job.deadline < float("inf"):
                heapq.heappush(self._deadlines, (job.deadline, next(self._arrivals), weakref.ref(job)))
            if job.lane is Lane.PREDICT:
                self._advance(job, None)
            else:
                self._unstarted.append(job)

    def _start_some(self) -> None:
        """Begins explanations, for a moment and at least one: predictions wait while the first steps make masks."""
        until = time.perf_counter() + _STARTING_SECONDS
        while self._unstarted:
            job = self._unstarted.popleft()
            if job in self._jobs:
                self._advance(job, None)
            if time.perf_counter() > until:
                return

    def _expire(self) -> None:
        now = time.monotonic()
        while self._deadlines and self._deadlines[0][0] < now:
            job = heapq.heappop(self._deadlines)[2]()
            if job is not None and job in self._jobs:
                self._fail(job, ExpiredError("The deadline passed before the work was done. Allow it more time."))

    def _launch(self, launch: Launch) -> None:
        started = time.perf_counter()
        try:
            outputs = self._run(launch)
        except Exception as error:
            if len(launch.parts) == 1:
                self._fail(launch.parts[0].piece.owner, device_error(error))
                return
            # One row may have spoilt it for all: each job's part again on its own.
            costs = self._backend.costs(launch.kind)
            for part in launch.parts:
                self._launch(Launch(launch.kind, fitting(part, costs), (part,)))
            return
        seconds = time.perf_counter() - started
        with _logged("observer_failed"):
            self._observe(LaunchRecord(launch.kind, launch.size, launch.row_count, seconds))
        offset = 0
        for part in launch.parts:
            count = part.stop - part.start
            self._collect(part.piece.owner, tuple(output[offset : offset + count] for output in outputs), count)
            offset += count

    def _run(self, launch: Launch) -> tuple[Array, ...]:
        columns = zip(*(rows_of(part) for part in launch.parts), strict=True)
        outputs = self._backend.run(launch.kind, tuple(padded(column, launch.size) for column in columns))
        if any(len(output) != launch.size for output in outputs):
            raise DeviceError(f"The device returned another number of rows than the {launch.size} that it was given.")
        return outputs

    def _collect(self, job: _Job, rows: tuple[Array, ...], count: int) -> None:
        if job not in self._jobs or job.work is None:
            return
        job.collected.append(rows)
        job.collected_rows += count
        job.pass_count += count
        if job.collected_rows == len(job.work.rows[0]):
            self._advance(job, tuple(joined(column) for column in zip(*job.collected, strict=True)))

    def _advance(self, job: _Job, rows: tuple[Array, ...] | None) -> None:
        """Sends a result to a job's computation, None to begin with, and queues what it asks for next."""
        try:
            result = None if rows is None or job.work is None else job.work.result(rows)
            job.work = work = job.steps.send(result)
            job.piece = Piece(job, job.lane, work.kind, len(work.rows[0]))
        except StopIteration as stop:
            self._succeed(job, stop.value)
        except Exception as error:
            self._fail(job, error)
        else:
            job.collected, job.collected_rows = [], 0
            self._scheduler.add(job.piece)

    def _succeed(self, job: _Job, value: Any) -> None:
        self._end(job)
        _settle(job.future.set_result, Completed(value, job.pass_count, time.monotonic() - job.submitted))

    def _fail(self, job: _Job, error: BaseException) -> None:
        self._end(job)
        _settle(job.future.set_exception, error)

    def _end(self, job: _Job) -> None:
        self._jobs.discard(job)
        if job.piece is not None:
            self._scheduler.discard(job.piece)
        job.work = job.piece = None  # the piece knows its job
        job.collected = []
        with _logged("computation_failed_to_close"):
            job.steps.close()

    def _lose(self, error: BaseException) -> None:
        """Takes no more jobs and fails all there are."""
        with self._lock:
            self._lost = True
        waiting = set(self._jobs)
        while not self._inbox.empty():
            waiting |= {job for job in (self._inbox.get(),) if job is not None}
        for job in waiting:
            lost = DeviceLostError(f"The device thread ended with {type(error).__name__}: {error}")
            _settle(job.future.set_exception, lost)


def _settle(setter: Callable[[Any], None], value: Any) -> None:
    """Sets a future unless its caller has just cancelled it."""
    with contextlib.suppress(InvalidStateError):
        setter(value)


@contextlib.contextmanager
def _logged(event: str) -> Iterator[None]:
    """Logs what others' code raises where it must not disturb the jobs."""
    try:
        yield
    except Exception:
        _log.exception(event)
