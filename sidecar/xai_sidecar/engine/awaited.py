"""Jobs in progress, as whoever submits many of them waits for them."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Awaited(Generic[T]):
    """Jobs that have not been taken back yet, each with what it is for; for one thread.

    Jobs say themselves that they have ended: `concurrent.futures.wait` would lock and watch each of them at each call.
    """

    def __init__(self) -> None:
        self._jobs: dict[Future[Any], T] = {}
        self._ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Future[Any], purpose: T) -> None:
        """Takes in a job."""
        self._jobs[job] = purpose
        job.add_done_callback(self._ended.put)

    def ended(self, timeout: float) -> Iterator[tuple[Future[Any], T]]:
        """Waits for a job to end, and gives back those that have by then; none after so many seconds.

        What is not taken from the iterator is given back by the next call.
        """
        try:
            job = self._ended.get(timeout=timeout)
        except queue.Empty:
            return
        more = self._ended.qsize()
        yield job, self._jobs.pop(job)
        for _ in range(more):
            job = self._ended.get_nowait()
            yield job, self._jobs.pop(job)

    def cancel(self) -> None:
        """Cancels those that have not ended."""
        for job in self._jobs:
            job.cancel()
