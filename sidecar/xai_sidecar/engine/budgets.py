"""Ending jobs at their deadlines and budgets: with their best partial result, with their first, or with an error."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from xai_sidecar.engine.job import Job
from xai_sidecar.engine.steppers import Steppers
from xai_sidecar.engine.timer import Timer

_KEPT_SECONDS = 2.0
_KEPT_SHARE = 0.2
"""Partial results of what has no budget are kept for so long before its deadline, or for that share of its time."""


class Budgets:
    """Enforces the deadlines and budgets of jobs.

    Args:
        timer: Calls functions at given times.
        steppers: The threads that step the jobs.
    """

    def __init__(self, timer: Timer, steppers: Steppers) -> None:
        self._timer = timer
        self._steppers = steppers

    def begin(self, job: Job[Any], deadline: float) -> None:
        """Sets the alarms that end a job at its deadline and at its budget's end, on the clock of `time.monotonic`."""
        for when, act in (
            (deadline, job.expire),
            *((end, job.cut) for end in {job.budget_end, max(job.budget_end, job.give_up)}),
        ):
            if when < float("inf"):
                job.alarms.append(self._timer.at(when, act))

    def stepped(self, job: Job[Any]) -> None:
        """Called after each step of a job with a budget.

        Caches a partial result for when the budget ends, and finishes the job early enough to compute its last one.
        """
        if time.monotonic() < _worth_keeping(job):
            return
        taken = job.keep_best()
        if time.monotonic() >= job.budget_end:
            job.cut()
        elif taken is not None:
            job.finishing_seconds = 2 * taken + 0.005
            self._finish_in_time(job)

    def _finish_in_time(self, job: Job[Any]) -> None:
        if job.done():
            return
        when = job.budget_end - job.finishing_seconds
        if when <= time.monotonic():
            self._steppers.call(job, job.finish)
        else:  # by then it may have turned out to be quicker, or slower
            job.alarms.append(self._timer.at(when, partial(self._finish_in_time, job)))
            if job.done():  # settled in the meantime, so that nobody else cancels this alarm
                job.release()


def _worth_keeping(job: Job[Any]) -> float:
    """When partial results become worth their time: at once with a budget, else not before the deadline is near."""
    if job.budget_end == float("inf"):
        return job.budget_end
    if job.give_up < float("inf"):
        return job.submitted
    return job.budget_end - max(_KEPT_SECONDS, _KEPT_SHARE * (job.budget_end - job.submitted))
