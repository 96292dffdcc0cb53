"""The device thread: drives the jobs' computations, launch by launch, and owns their futures."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from xai_sidecar.engine.backend import Backend, Report
from xai_sidecar.engine.scheduler import Lane, Launch, Part, Piece, Scheduler
from xai_sidecar.engine.work import Array, Kind, Steps, Work
from xai_sidecar.errors import (
    DeviceError,
    DeviceLostError,
    ExpiredError,
    OverloadedError,
    ShuttingDownError,
    SidecarError,
)

T = TypeVar("T")


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
    collected: list[tuple[Array, ...]] = field(default_factory=list)
    collected_rows: int = 0
    pass_count: int = 0


class Engine:
    """Runs computations on one device.

    Every submitted computation becomes a job; the rows of its pieces of work are cut and mixed with those of other
    jobs into launches of the compiled batch sizes. Everything that touches the backend, and every step of every
    computation, happens on the one device thread.

    Args:
        make_backend: Called once, on the device thread.
        capacity: Jobs that may be under way at once; one more is refused.
        observe: Told of each launch, on the device thread.
        on_lost: Called when the device thread dies of an error nobody foresaw, on that thread.
    """

    def __init__(
        self,
        make_backend: Callable[[], Backend],
        *,
        capacity: int = 256,
        observe: Callable[[LaunchRecord], None] = lambda record: None,
        on_lost: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._make_backend = make_backend
        self._capacity = capacity
        self._observe = observe
        self._on_lost = on_lost
        self._inbox: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._jobs: set[_Job] = set()  # device thread only
        self._open = 0
        self._closing = False
        self._lock = threading.Lock()  # guards _open and _closing
        self._ready: Future[Backend] = Future()
        self._thread = threading.Thread(target=self._main, name="device", daemon=True)

    # ---------------------------------------------------------------------------------------- any thread

    def start(self, kinds: Callable[[Backend], list[Kind]], report: Report = lambda line: None) -> Future[Backend]:
        """Begins to make the backend and to compile.

        Args:
            kinds: Says, once the backend is there, what has to be compiled.
            report: Told of the progress, on the device thread.

        Returns:
            The backend, once it is ready to serve; or a ConfigError, as the backend says.
        """
        self._kinds = kinds
        self._report = report
        self._thread.start()
        return self._ready

    @property
    def alive(self) -> bool:
        """Whether the device thread runs."""
        return self._thread.is_alive()

    @property
    def open_jobs(self) -> int:
        """Jobs that are not done."""
        return self._open

    def submit(self, steps: Steps[T], lane: Lane, *, deadline: float = float("inf")) -> Future[Completed[T]]:
        """Starts a computation.

        Cancelling the future ends it at the next launch boundary.

        Args:
            steps: The computation.
            lane: How urgent it is.
            deadline: On the clock of `time.monotonic`; when it passes the job fails with ExpiredError.

        Raises:
            OverloadedError: `capacity` jobs are under way.
            ShuttingDownError: `close` was called.
            DeviceLostError: The device thread is gone.
        """
        with self._lock:
            if self._closing:
                raise ShuttingDownError("The server is shutting down. Send the request to another one.")
            if not self._thread.is_alive():
                raise DeviceLostError("The device thread has ended. The server has to be restarted.")
            if self._open >= self._capacity:
                raise OverloadedError(
                    f"{self._open} predictions and explanations are under way already. Try again shortly.",
                    retry_seconds=1.0,
                )
            self._open += 1
            future: Future[Completed[T]] = Future()
            future.add_done_callback(self._one_less)
            self._inbox.put(_Job(steps, lane, deadline, future, time.monotonic()))
        return future

    def close(self, timeout: float | None = None) -> bool:
        """Takes no more jobs, finishes those under way, and lets go of the backend.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.

        Returns:
            Whether all of it was done in time.
        """
        with self._lock:
            if not self._closing:
                self._closing = True
                self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _one_less(self, _: Future[Any]) -> None:
        with self._lock:
            self._open -= 1

    # ---------------------------------------------------------------------------------------- the device thread

    def _main(self) -> None:
        try:
            backend = self._make_backend()
            backend.warm_up(self._kinds(backend), self._report)
        except BaseException as error:
            self._ready.set_exception(error)
            return
        self._backend = backend
        self._scheduler = Scheduler(backend.costs)
        self._ready.set_result(backend)
        del backend
        try:
            while self._accept():
                self._drop_stale()
                launch = self._scheduler.next()
                if launch is not None:
                    self._launch(launch)
        except BaseException as error:
            self._lose(error)
            raise
        self._backend.close()

    def _accept(self) -> bool:
        """Takes in what was submitted, waiting for it when there is nothing to do; False when all is over."""
        while self._jobs or not self._closing:
            try:
                job = self._inbox.get(block=not self._jobs)
            except queue.Empty:
                return True
            if job is not None:
                self._jobs.add(job)
                self._advance(job, None)
        # What was submitted before `close` is already in front of its marker in the inbox.
        while not self._inbox.empty():
            job = self._inbox.get()
            if job is not None:
                self._jobs.add(job)
                self._advance(job, None)
        return bool(self._jobs)

    def _drop_stale(self) -> None:
        now = time.monotonic()
        for job in list(self._jobs):
            if job.future.cancelled():
                self._end(job)
            elif now > job.deadline:
                self._fail(job, ExpiredError("The deadline passed before the work was done. Allow it more time."))

    def _launch(self, launch: Launch) -> None:
        jobs = [part.piece.owner for part in launch.parts]
        try:
            outputs = self._run(launch)
        except Exception as error:
            if len(jobs) == 1:
                self._fail(jobs[0], _device_error(error))
                return
            # One row may have spoilt it for all: each job's part again on its own.
            for part in launch.parts:
                alone = Launch(launch.kind, _fitting(part, self._backend.costs(launch.kind)), (part,))
                self._launch(alone)
            return
        offset = 0
        for part in launch.parts:
            count = part.stop - part.start
            self._collect(part.piece.owner, tuple(output[offset : offset + count] for output in outputs), count)
            offset += count

    def _run(self, launch: Launch) -> tuple[Array, ...]:
        columns = zip(*(_rows_of(part) for part in launch.parts), strict=True)
        rows = tuple(_padded(column, launch.size) for column in columns)
        started = time.perf_counter()
        outputs = self._backend.run(launch.kind, rows)
        self._observe(LaunchRecord(launch.kind, launch.size, launch.row_count, time.perf_counter() - started))
        return outputs

    def _collect(self, job: _Job, rows: tuple[Array, ...], count: int) -> None:
        if job not in self._jobs or job.work is None:
            return
        job.collected.append(rows)
        job.collected_rows += count
        job.pass_count += count
        if job.collected_rows < len(job.work.rows[0]):
            return
        work, collected = job.work, job.collected
        job.work, job.collected, job.collected_rows = None, [], 0
        whole = tuple(
            np.concatenate(column) if len(column) > 1 else column[0] for column in zip(*collected, strict=True)
        )
        self._advance(job, work.result(whole))

    def _advance(self, job: _Job, result: Any) -> None:
        """Sends a result to a job's computation and queues what it asks for next."""
        try:
            work = job.steps.send(result)
            piece = Piece(job, job.lane, work.kind, len(work.rows[0]))
        except StopIteration as stop:
            self._succeed(job, stop.value)
        except Exception as error:
            self._fail(job, error)
        else:
            job.work = work
            self._scheduler.add(piece)

    def _succeed(self, job: _Job, value: Any) -> None:
        self._end(job)
        _settle(job.future.set_result, Completed(value, job.pass_count, time.monotonic() - job.submitted))

    def _fail(self, job: _Job, error: BaseException) -> None:
        self._end(job)
        _settle(job.future.set_exception, error)

    def _end(self, job: _Job) -> None:
        self._jobs.discard(job)
        self._scheduler.discard(job)
        job.steps.close()

    def _lose(self, error: BaseException) -> None:
        with self._lock:
            self._closing = True
        waiting = [*self._jobs, *_emptied(self._inbox)]
        for job in waiting:
            _settle(job.future.set_exception, DeviceLostError(f"The device thread ended: {error}"))
        self._on_lost(error)


def _settle(setter: Callable[[Any], None], value: Any) -> None:
    """Sets a future unless its caller has just cancelled it."""
    with contextlib.suppress(InvalidStateError):
        setter(value)


def _emptied(inbox: queue.SimpleQueue[_Job | None]) -> list[_Job]:
    jobs = []
    while not inbox.empty():
        job = inbox.get()
        if job is not None:
            jobs.append(job)
    return jobs


def _rows_of(part: Part) -> tuple[Array, ...]:
    return tuple(rows[part.start : part.stop] for rows in part.piece.owner.work.rows)


def _padded(column: tuple[Array, ...], size: int) -> Array:
    """The arrays one below the other; the last row repeats to fill up."""
    rows = np.concatenate(column) if len(column) > 1 else column[0]
    missing = size - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows


def _fitting(part: Part, costs: Mapping[int, float]) -> int:
    """The smallest batch size that holds a part."""
    return min(size for size in costs if size >= part.stop - part.start)


def _device_error(error: Exception) -> SidecarError:
    if isinstance(error, SidecarError):
        return error
    first_line = str(error).strip().partition("\n")[0]
    return DeviceError(f"The device failed with {type(error).__name__}: {first_line}. The server's log has more.")
