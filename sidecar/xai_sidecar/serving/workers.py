"""Threads for work off the event loop, which ends when its caller does not wait any more.

Cheap work, which is most, has threads of its own and never waits for costly work. Costly tasks are ordered by when they
came, plus some time for what each takes: a small one overtakes a large one, but not for ever.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from xai_sidecar.cpus import usable_cpus
from xai_sidecar.engine.trace import branched, traced
from xai_sidecar.errors import ExpiredError, PictureTooLargeError

T = TypeVar("T")

_CHEAP_THREADS = 2
"""Enough to keep the device of a small machine busy."""

_MOST_COSTLY_THREADS = 4
"""Each may hold a picture of `server.max_pixels` in memory."""

_CHEAP_WORK = 4e6
"""Pixels of a baseline JPEG that are decoded in about 20 ms."""

_SECONDS_PER_WORK = 10 / 200e6
"""Seconds by which each pixel of its work delays a task's turn: ten times what decoding one takes."""

Checkpoint = Callable[[], None]
"""Called between steps of a task; raises where the task is to be given up."""


class AbandonedError(Exception):
    """The task's caller has gone."""


class WorkerTask(Generic[T]):
    """A function to be run on a worker thread.

    Args:
        function: The function; it calls the checkpoint that it is given between its steps.
        deadline: When its caller stops waiting, on the clock of `time.monotonic`.
        seconds: The most CPU time that it may take.

    Attributes:
        future: Its result.
        trace: A branch of the trace of the call that made it; None if it is not traced.
    """

    def __init__(
        self, function: Callable[[Checkpoint], T], deadline: float = float("inf"), seconds: float = float("inf")
    ) -> None:
        self._function = function
        self._deadline = deadline
        self._seconds = seconds
        self._ends = float("inf")
        self._abandoned = False
        self.future: Future[T] = Future()
        self.trace = branched()

    def abandon(self) -> None:
        """Cancels it: it does not start, and what it holds is freed; or it ends at its next checkpoint."""
        self._abandoned = True
        if self.future.cancel():
            self._function = _abandoned

    def run(self) -> None:
        """Runs it on the calling thread."""
        if not self.future.set_running_or_notify_cancel():
            return
        self._ends = time.thread_time() + self._seconds
        try:
            self._checkpoint()
            if self.trace is None:
                result = self._function(self._checkpoint)
            else:
                with traced(self.trace):
                    result = self._function(self._checkpoint)
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)

    def _checkpoint(self) -> None:
        if self._abandoned:
            raise AbandonedError
        if time.monotonic() > self._deadline:
            raise ExpiredError("The caller's deadline passed while the picture was decoded.")
        if time.thread_time() > self._ends:
            raise PictureTooLargeError(
                f"The picture was not decoded within {self._seconds:g} s of CPU time. Scale it down, or save it as a "
                "baseline JPEG or as PNG."
            )


def _abandoned(_: Checkpoint) -> Any:
    raise AbandonedError


class WorkerPool:
    """Threads that run tasks in the order of their priority.

    Args:
        threads: Number of threads.
        name: Prefix of their names.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._tasks: queue.PriorityQueue[tuple[float, int, WorkerTask[Any] | None]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}_{index}", daemon=True) for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, task: WorkerTask[Any], priority: float) -> None:
        """Queues a task.

        Args:
            task: The task.
            priority: The task with the smallest runs first; of equals, the one that was submitted first.
        """
        self._tasks.put((priority, next(self._numbers), task))

    def close(self) -> None:
        """Ends the threads once they have finished their tasks; waiting tasks are not run."""
        for _ in self._threads:
            self._tasks.put((-float("inf"), -1, None))

    def _work(self) -> None:
        while True:
            task = self._tasks.get()[2]
            if task is None:
                return
            task.run()
            del task  # or its picture would stay until the next one


class Workers:
    """The worker threads of a server, for cheap and for costly work. To be used on one event loop."""

    def __init__(self) -> None:
        self._cheap = WorkerPool(_CHEAP_THREADS, "worker")
        self._costly = WorkerPool(max(1, min(_MOST_COSTLY_THREADS, usable_cpus() // 2)), "decoder")

    async def run(self, function: Callable[[], T]) -> T:
        """Runs something cheap, such as encoding an answer, on a thread, and returns its result."""
        task = WorkerTask(lambda checkpoint: function())
        self.submit(task)
        try:
            return await asyncio.wrap_future(task.future)
        finally:
            task.abandon()

    def submit(self, task: WorkerTask[Any], work: float = 0.0) -> None:
        """Has a task run on a thread.

        Args:
            task: The task.
            work: What it takes, in pixels of a baseline JPEG that would take as long to decode.
        """
        pool = self._cheap if work <= _CHEAP_WORK else self._costly
        pool.submit(task, time.monotonic() + _SECONDS_PER_WORK * work)

    def close(self) -> None:
        """Ends the threads once they have finished their tasks; waiting tasks are not run."""
        self._cheap.close()
        self._costly.close()
