"""The engine: takes jobs, steps their computations, and owns the thread that runs the device."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

import structlog

from xai_sidecar.engine.backend import Backend, Report
from xai_sidecar.engine.background import Background
from xai_sidecar.engine.batch import Flow, Lane
from xai_sidecar.engine.budgets import Budgets
from xai_sidecar.engine.dispatcher import Dispatcher, NoObserver, Observer
from xai_sidecar.engine.job import Job, JobOutcome, settle
from xai_sidecar.engine.runner import Runner
from xai_sidecar.engine.scheduler import Policy
from xai_sidecar.engine.steppers import Steppers
from xai_sidecar.engine.threads import Call, ReplaceableThread, ReplacedError, logged, nothing
from xai_sidecar.engine.timer import Timer
from xai_sidecar.engine.watchdog import Watchdog
from xai_sidecar.engine.work import Array, Kind, Steps
from xai_sidecar.errors import DeviceLostError, HungError, ShuttingDownError

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Engine:
    """Runs computations on one device.

    Every submitted computation becomes a job. The rows that it asks for are a task, which is sliced and mixed with
    those of other jobs into batches of the compiled sizes. The backend is called on the device thread, where
    predictions are stepped, too, or on several (`Backend.concurrency`). Explanations are stepped on a thread of their
    own, whose arithmetic delays neither predictions nor the device, evaluation on another. A timer ends late jobs.

    The engine does not limit how many jobs are in progress: callers do.

    Args:
        make_backend: Called once, on the device thread.
        policy: How the device is shared.
        observer: Receives the engine's events.
        on_lost: Called once when the device thread hangs or dies of an unexpected error; on any thread.
        hang_seconds: A batch, or a step of a computation, that takes longer than this hangs. For a batch see
            `Backend.hang_is_fatal`; for a step of an explanation or evaluation, `Steppers`.
        make_background: Called with the compiled backend; gives what runs evaluation beside it, or None.
    """

    def __init__(
        self,
        make_backend: Callable[[], Backend],
        *,
        policy: Policy | None = None,
        observer: Observer | None = None,
        on_lost: Callable[[BaseException], None] = lambda error: None,
        hang_seconds: float = 60.0,
        make_background: Callable[[Backend], Background | None] = lambda backend: None,
    ) -> None:
        self._make_backend, self._on_lost = make_backend, on_lost
        self._policy = policy or Policy()
        self._observer = observer or NoObserver()
        self._lock = threading.Lock()  # guards the next two lines
        self._open: set[Job[Any]] = set()
        self._closing = self._winding_up = self._lost = False
        self._ready: Future[Mapping[Kind, str]] = Future()
        self._inbox: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._thread = ReplaceableThread("device", self._main)
        self._backend: Backend | None = None
        self._steppers = Steppers(self._waiting_in)
        self._timer = Timer("timer")
        self._budgets = Budgets(self._timer, self._steppers)
        self._busy_since: float | None = None  # of the device thread; None while idle
        self._runner = Runner(hang_seconds, self._thread, self._lose, make_background)
        watched = [*self._runner.watched(lambda: self._busy_since), *self._steppers.watched(hang_seconds)]
        self._watchdog = Watchdog("watchdog", hang_seconds / 8, [*watched, self._timer.watched(hang_seconds)])

    # ---------------------------------------------------------------------------------------- any thread

    def start(
        self,
        kinds: Callable[[Backend], list[Kind]],
        report: Report = lambda line: None,
        check: Callable[[Backend], None] = lambda backend: None,
    ) -> Future[Mapping[Kind, str]]:
        """Starts the threads, makes the backend and has it compile.

        Args:
            kinds: Returns the kinds of work to compile, given the backend.
            report: Called with lines of progress, on the device thread.
            check: Called with the compiled backend; a ConfigError that it raises ends the start.

        Returns:
            A future of the kinds that this net does not support, with the reasons, once the backend is ready; or of a
            ConfigError.
        """
        self._kinds, self._report, self._check = kinds, report, check
        self._steppers.start()
        self._timer.start()
        self._thread.start()
        return self._ready

    @property
    def alive(self) -> bool:
        """Whether it can still run jobs: started, not closed, and the device not lost."""
        return self._thread.is_alive() and not self._lost

    def submit(
        self,
        steps: Steps[T],
        lane: Lane,
        *,
        deadline: float = float("inf"),
        budget_end: float = float("inf"),
        give_up: float = 0.0,
        flow: Flow | None = None,
    ) -> Job[T]:
        """Submits a computation.

        Cancelling the job ends it at the next batch boundary.

        Args:
            steps: The computation. That of a prediction has to be quick between its requests to the model.
            lane: Its priority.
            deadline: On the clock of `time.monotonic`; when it passes the job fails with ExpiredError.
            budget_end: When the job completes with its best partial result.
            give_up: Without a partial result by then, the job goes on for its first one until this time, and fails
                with BudgetSpentError if there is none; infinite where only its deadline ends it.
            flow: Its account: whose it is, and of an explanation what it is promised; default: nobody's.

        Raises:
            ShuttingDownError: `close` was called.
            DeviceLostError, HungError: The device is gone, or too many computations of the lane hang.
        """
        job: Job[T] = Job(steps, lane, budget_end, give_up, flow)
        if not self.accepts(lane):
            raise HungError(f"Too many computations of the lane {lane.name} hang. The server has to be restarted.")
        with self._lock:
            if self._lost:
                raise DeviceLostError("The device is lost. The server has to be restarted.")
            if self._closing or (self._winding_up and lane is Lane.EXPLAIN):
                raise ShuttingDownError("The server is shutting down. Send the request to another one.")
            self._open.add(job)
        self._budgets.begin(job, deadline)
        job.add_done_callback(self._settled)
        self._step(job, None)
        return job

    def announce(self) -> None:
        """Says that a prediction will be submitted soon: no evaluation begins meanwhile, for a moment at the most."""
        self._device.announce()

    def accepts(self, lane: Lane) -> bool:
        """Whether a lane accepts jobs: False while too many of its computations hang."""
        return self._steppers.accepts(lane)

    def peek(self, job: Job[T]) -> Future[T | None]:
        """Computes the partial result of a job that is no prediction; None if there is none yet, or it is settled."""
        answer: Future[T | None] = Future()

        def look() -> None:
            try:
                settle(answer.set_result, None if answer.cancelled() else job.peek())
            except Exception as error:
                settle(answer.set_exception, error)

        if job.done():
            answer.set_result(None)  # the thread may have ended, too
        else:
            self._steppers.call(job, look, given_up=partial(settle, answer.set_result, None))
        return answer

    def waiting(self, lane: Lane) -> int:
        """Rows that wait for the device in a lane. The engine has to be ready."""
        return self._device.waiting(lane)

    @property
    def explaining(self) -> int:
        """Number of explanations in progress."""
        return len(self._waiting_in(Lane.EXPLAIN))

    @property
    def explain_share(self) -> float:
        """Share of device time for explanations: what predictions leave recently, or the minimum share."""
        return self._device.left_by_predictions(time.monotonic())

    def seconds(self, kind: Kind, row_count: int) -> float:
        """Predicted seconds of rows on this device if nothing else runs. The engine has to be ready."""
        return self._device.seconds(kind, row_count)

    def explaining_seconds(self, label: str, kind: Kind, row_count: int) -> float:
        """Predicted seconds of rows of the explainer `label`, with all that comes on top, if no predictions come."""
        return self._device.explaining_seconds(label, kind, row_count, time.monotonic())

    def usual_slowdown(self, label: str) -> float:
        """Seconds that an explainer's explanations usually take over those measured for their rows at start."""
        return self._device.slowdown.usual(label)

    def caught_up(self) -> Future[None]:
        """Completes once the device thread has learned from all jobs that have ended so far."""
        self._inbox.put(partial(settle, (done := Future[None]()).set_result, None))
        return done

    def expect_slowdown(self, label: str, ratio: float) -> None:
        """Has an explainer's explanations expected to take what `usual_slowdown` said of them in another process."""
        self._device.slowdown.expect(label, ratio, time.monotonic())

    def wind_up(self) -> None:
        """Completes all explanations early, or fails them with BudgetSpentError; accepts no more of them."""
        with self._lock:
            self._winding_up = True
        for job in self._waiting_in(Lane.EXPLAIN):
            self._steppers.call(job, job.wind_up)

    def close(self, timeout: float | None = None) -> bool:
        """Accepts no more jobs, waits for those in progress, and closes the backend; returns whether all that is done.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.
        """
        with self._lock:
            self._closing = True
        self._inbox.put(nothing)
        if self._thread.is_alive():
            self._thread.join(0 if timeout is None and self._lost else timeout)  # what hangs may never end
        return not self._thread.is_alive()

    # ---------------------------------------------------------------------------------------- stepping

    def _step(self, job: Job[Any], rows: tuple[Array, ...] | None) -> None:
        """Steps a computation on its lane's thread, and queues what it asks for next."""
        if job.lane is Lane.PREDICT:
            self._inbox.put(partial(self._advance, job, rows))
        else:
            self._steppers.call(job, partial(self._advance, job, rows))

    def _completed(self, job: Job[Any], rows: tuple[Array, ...]) -> None:
        """Receives the result of a task from the dispatcher, on the device thread."""
        (self._advance if job.lane is Lane.PREDICT else self._step)(job, rows)

    def _advance(self, job: Job[Any], rows: tuple[Array, ...] | None) -> None:
        work = None if job.done() else job.step(rows)
        if work is None:
            return
        if job.lane is Lane.PREDICT:
            self._device.queue(job, work)
            return
        self._inbox.put(lambda: self._device.queue(job, work))
        self._budgets.stepped(job)

    def _settled(self, job: Future[Any]) -> None:
        """Cleans up after a job, however it was settled."""
        if not isinstance(job, Job):
            raise TypeError("that is no job")
        with self._lock:
            self._open.discard(job)
        job.release()
        with logged("observer_failed"):
            self._observer.ended(job.lane, job.outcome)
        self._inbox.put(partial(self._drop, job))

    # ---------------------------------------------------------------------------------------- the device thread

    def _main(self) -> None:
        try:
            self._live()
        except ReplacedError:  # by a thread that goes on in its place
            return
        except BaseException as error:
            self._lose(error)
            if self._ready.done():
                _log.exception("device_thread_died")
            else:
                self._ready.set_exception(error)
        self._busy_since = None
        for threads in (self._steppers, self._timer, self._watchdog, self._runner):
            threads.stop()

    def _live(self) -> None:
        if self._backend is None:
            self._backend = self._load()
        else:
            self._device.give_up()
        self._serve()
        if not self._lost:
            self._backend.close()

    def _load(self) -> Backend:
        self._report("loading the model")
        backend = self._make_backend()
        failed = backend.warm_up(self._kinds(backend), self._report)
        self._check(backend)
        beside = self._runner.use(backend, self._inbox.put)
        self._device = Dispatcher(backend, self._runner.run, self._policy, self._observer, self._completed, *beside)
        self._ready.set_result(failed)
        self._watchdog.start()
        return backend

    def _serve(self) -> None:
        running = False
        while not self._lost:
            self._take_in(wait=not running)
            if self._closing and not self._open and self._inbox.empty():
                return
            self._busy_since = time.monotonic()
            running = self._device.run_next()

    def _take_in(self, *, wait: bool) -> None:
        """Executes the calls of other threads from the inbox; waits for the first one if there is no batch to run."""
        try:
            if wait:
                due = self._device.due()
                self._busy_since = None
                call = self._inbox.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
                self._busy_since = time.monotonic()
                call()
            for _ in range(self._inbox.qsize()):  # and not for as long as more comes
                self._inbox.get_nowait()()
        except queue.Empty:
            return

    def _drop(self, job: Job[Any]) -> None:
        self._device.drop(job)
        if job.lane is Lane.PREDICT:
            job.close()
        elif job.outcome is not JobOutcome.HUNG:  # which cannot be closed while it runs
            self._steppers.call(job, job.close)

    # ---------------------------------------------------------------------------------------- loss of the device

    def _waiting_in(self, lane: Lane) -> list[Job[Any]]:
        with self._lock:
            return [job for job in self._open if job.lane is lane]

    def _lose(self, error: BaseException) -> None:
        """The device is lost: accepts no more jobs, fails all there are, and calls `on_lost`; once."""
        with self._lock:
            if self._lost:
                return
            self._lost = True
            jobs = list(self._open)
        for job in jobs:
            job.fail(DeviceLostError(f"The device is lost: {type(error).__name__}: {error}"))
        if self._ready.done():
            self._on_lost(error)
