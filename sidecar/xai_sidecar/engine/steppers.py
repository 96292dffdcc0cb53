"""The threads that step explanations and evaluations, and how steps that hang are given up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import structlog

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.job import Job
from xai_sidecar.engine.threads import Call, Worker, nothing
from xai_sidecar.engine.watchdog import Watched
from xai_sidecar.errors import HungError

_log = structlog.get_logger(__name__)


class Steppers:
    """A thread for each lane but that of predictions, which are stepped on the device thread.

    A computation that hangs fails alone, and a new thread replaces its own. Where too many hang at once, all jobs of
    the lane fail, and it accepts no more until one of them comes back.

    Args:
        waiting: Returns the jobs of a lane that are not settled.
    """

    def __init__(self, waiting: Callable[[Lane], Iterable[Job[Any]]]) -> None:
        self._waiting = waiting
        self._workers = {lane: Worker(lane.name.lower()) for lane in (Lane.EXPLAIN, Lane.EVALUATE)}

    def start(self) -> None:
        """Starts the threads."""
        for worker in self._workers.values():
            worker.start()

    def stop(self) -> None:
        """Ends the threads after the calls that are queued."""
        for worker in self._workers.values():
            worker.stop()

    def accepts(self, lane: Lane) -> bool:
        """Whether a lane accepts jobs: False while too many of its computations hang."""
        return lane not in self._workers or not self._workers[lane].hopeless

    def call(self, job: Job[Any], function: Call, given_up: Call = nothing) -> None:
        """Queues a call on the thread that steps a job.

        Args:
            job: A job of another lane than predictions.
            function: What to call; if it hangs, the job fails.
            given_up: Called then, too.
        """

        def hung() -> None:
            given_up()
            _give_up(job)

        self._workers[job.lane].call(function, hung)

    def watched(self, hang_seconds: float) -> list[Watched]:
        """The threads, to be watched by a watchdog."""
        return [
            Watched(partial(getattr, worker, "busy_since"), lambda: hang_seconds, partial(self._hangs, lane))
            for lane, worker in self._workers.items()
        ]

    def _hangs(self, lane: Lane, seconds: float) -> None:
        replaced = self._workers[lane].give_up()
        _log.error("computation_hangs", lane=lane.name.lower(), seconds=round(seconds, 1), replaced=replaced)
        if not replaced:
            for job in self._waiting(lane):
                _give_up(job)


def _give_up(job: Job[Any]) -> None:
    job.fail(HungError("The computation did not come back, and was given up. The server's log has more."))
