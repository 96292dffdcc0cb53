"""Jobs: submitting them, stepping their computations, and the one thread that runs the device."""

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
from xai_sidecar.engine.budgets import Budgets
from xai_sidecar.engine.dispatcher import Dispatcher, NoObserver, Observer
from xai_sidecar.engine.job import Job, Outcome, settle
from xai_sidecar.engine.launch import Lane
from xai_sidecar.engine.runner import Runner
from xai_sidecar.engine.scheduler import Policy
from xai_sidecar.engine.steppers import Steppers
from xai_sidecar.engine.threads import Call, logged, nothing
from xai_sidecar.engine.timer import Timer
from xai_sidecar.engine.watchdog import Watchdog
from xai_sidecar.engine.work import Array, Kind, Steps
from xai_sidecar.errors import DeviceLostError, HungError, ShuttingDownError

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Engine:
    """Runs computations on one device.

    Every submitted computation becomes a job; the rows of its pieces of work are cut and mixed with those of other
    jobs into launches of the compiled batch sizes. Everything that touches the backend happens on the device thread,
    and so do the few steps of predictions. Explanations are stepped on a thread of their own, so that their arithmetic
    keeps neither predictions nor the device waiting, and evaluation on another, so that it does not keep explanations
    waiting. Deadlines and budgets are one more thread's.

    How much may be under way is for the callers to limit, who know what belongs together.

    Args:
        make_backend: Called once, on the device thread.
        policy: How the device is shared.
        observer: Told of what it does.
        on_lost: Called when the device thread dies of an error nobody foresaw, or hangs; on any thread.
        hang_seconds: A launch, or a step of a computation, that takes longer than this hangs. For a launch see
            `Backend.hang_is_fatal`; for a step of an explanation or evaluation, `Steppers`.
    """

    def __init__(
        self,
        make_backend: Callable[[], Backend],
        *,
        policy: Policy | None = None,
        observer: Observer | None = None,
        on_lost: Callable[[BaseException], None] = lambda error: None,
        hang_seconds: float = 60.0,
    ) -> None:
        self._make_backend = make_backend
        self._policy = policy or Policy()
        self._observer = observer or NoObserver()
        self._on_lost = on_lost
        self._lock = threading.Lock()  # guards the next four
        self._open: set[Job[Any]] = set()
        self._closing = self._winding_up = False
        self._lost = False
        self._ready: Future[Mapping[Kind, str]] = Future()
        self._inbox: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name="device", daemon=True)
        self._steppers = Steppers(self._waiting_in)
        self._timer = Timer("timer")
        self._budgets = Budgets(self._timer, self._steppers)
        self._busy_since: float | None = None  # the device thread; None when it waits for something to do
        self._runner = Runner(hang_seconds, self._lose)
        device = self._runner.watched(lambda: self._busy_since)
        others = [*self._steppers.watched(hang_seconds), self._timer.watched(hang_seconds)]
        self._watchdog = Watchdog("watchdog", hang_seconds / 8, [*device, *others])

    # ---------------------------------------------------------------------------------------- any thread

    def start(
        self,
        kinds: Callable[[Backend], list[Kind]],
        report: Report = lambda line: None,
        check: Callable[[Backend], None] = lambda backend: None,
    ) -> Future[Mapping[Kind, str]]:
        """Begins to make the backend and to compile.

        Args:
            kinds: Says, once the backend is there, what has to be compiled.
            report: Told of the progress, on the device thread.
            check: Looks at the backend when it is compiled; a ConfigError of its own ends the start.

        Returns:
            Once the backend is ready to serve, the kinds that it cannot do after all, with the reasons; or a
            ConfigError, as the backend says.
        """
        self._kinds = kinds
        self._report = report
        self._check = check
        self._steppers.start()
        self._timer.start()
        self._thread.start()
        return self._ready

    @property
    def alive(self) -> bool:
        """Whether it can run anything."""
        return self._thread.is_alive() and not self._lost

    def submit(
        self,
        steps: Steps[T],
        lane: Lane,
        *,
        deadline: float = float("inf"),
        budget_end: float = float("inf"),
        give_up: float = 0.0,
        head_start: float = 0.0,
    ) -> Job[T]:
        """Starts a computation.

        Cancelling the job ends it at the next launch boundary.

        Args:
            steps: The computation. That of a prediction has to be quick between its pieces of work.
            lane: How urgent it is.
            deadline: On the clock of `time.monotonic`; when it passes the job fails with ExpiredError.
            budget_end: By then the job completes with what it has.
            give_up: Until when one that has nothing by then goes on for its first. A job with nothing in the end fails
                with BudgetSpentError.
            head_start: Device seconds to lend it, so that it has something to return soon.

        Raises:
            ShuttingDownError: `close` was called.
            DeviceLostError, HungError: The device is gone, or too many computations of the lane hang.
        """
        job: Job[T] = Job(steps, lane, budget_end, give_up, head_start)
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

    def accepts(self, lane: Lane) -> bool:
        """Whether computations of a lane are stepped, or too many hang."""
        return self._steppers.accepts(lane)

    def peek(self, job: Job[T]) -> Future[T | None]:
        """What a job that is no prediction could return as it stands; None if there is nothing yet, or any more."""
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
        """How many explanations are under way."""
        return len(self._waiting_in(Lane.EXPLAIN))

    @property
    def explain_share(self) -> float:
        """The part of the device's time that predictions have left of late, or that explanations get in any case."""
        return self._device.left_by_predictions(time.monotonic())

    def seconds(self, kind: Kind, row_count: int) -> float:
        """What rows take on this device, as it is now, if it does nothing else. The engine has to be ready."""
        return self._device.seconds(kind, row_count)

    def wind_up(self) -> None:
        """Has explanations in progress complete with what they have, or fail with BudgetSpentError; takes no more."""
        with self._lock:
            self._winding_up = True
        for job in self._waiting_in(Lane.EXPLAIN):
            self._steppers.call(job, job.wind_up)

    def close(self, timeout: float | None = None) -> bool:
        """Takes no more jobs, finishes those under way, and lets go of the backend.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.

        Returns:
            Whether all of it was done in time.
        """
        with self._lock:
            self._closing = True
        self._inbox.put(nothing)
        if self._thread.is_alive():
            self._thread.join(0 if timeout is None and self._lost else timeout)  # what hangs may never end
        return not self._thread.is_alive()

    # ---------------------------------------------------------------------------------------- stepping

    def _step(self, job: Job[Any], rows: tuple[Array, ...] | None) -> None:
        """Has a computation sent a result, on the thread that is its lane's, and queues what it asks for next."""
        if job.lane is Lane.PREDICT:
            self._inbox.put(partial(self._advance, job, rows))
        else:
            self._steppers.call(job, partial(self._advance, job, rows))

    def _completed(self, job: Job[Any], rows: tuple[Array, ...]) -> None:
        """As `_step`, on the device thread."""
        if job.lane is Lane.PREDICT:
            self._advance(job, rows)
        else:
            self._step(job, rows)

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
        """Cleans up after a job, whoever settled it."""
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
        finally:
            self._busy_since = None
            for threads in (self._steppers, self._timer, self._runner):
                threads.stop()
            self._watchdog.stop()

    def _live(self) -> None:
        try:
            backend = self._make_backend()
            failed = backend.warm_up(self._kinds(backend), self._report)
            self._check(backend)
            self._runner.use(backend)
        except BaseException as error:
            self._lose(error)
            self._ready.set_exception(error)
            return
        self._device = Dispatcher(backend, self._runner.run, self._policy, self._observer, self._completed)
        self._ready.set_result(failed)
        self._watchdog.start()
        try:
            self._serve()
            if not self._lost:
                backend.close()
        except BaseException as error:
            _log.exception("device_thread_died")
            self._lose(error)

    def _serve(self) -> None:
        running = False
        while not self._lost:
            self._take_in(wait=not running)
            if self._closing and not self._open and self._inbox.empty():
                return
            self._busy_since = time.monotonic()
            running = self._device.run_next()

    def _take_in(self, *, wait: bool) -> None:
        """Does what other threads have asked for, waiting for it when there is nothing to launch."""
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
        elif job.outcome is not Outcome.HUNG:  # which cannot be closed while it runs
            self._steppers.call(job, job.close)

    # ---------------------------------------------------------------------------------------- loss of the device

    def _waiting_in(self, lane: Lane) -> list[Job[Any]]:
        with self._lock:
            return [job for job in self._open if job.lane is lane]

    def _lose(self, error: BaseException) -> None:
        """Takes no more jobs, fails all there are, and says so; once."""
        with self._lock:
            if self._lost:
                return
            self._lost = True
            waiting = list(self._open)
        for job in waiting:
            job.fail(DeviceLostError(f"The device is lost: {type(error).__name__}: {error}"))
        if self._ready.done():
            self._on_lost(error)
