"""An explanation in progress: its partial results, and how it ends."""

from __future__ import annotations

import asyncio
import math
import time

import numpy as np

from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.job import Completed, Job
from xai_sidecar.engine.work import IntArray
from xai_sidecar.errors import BudgetSpentError
from xai_sidecar.evaluator.choice import Choice
from xai_sidecar.explainers.base import Saliency
from xai_sidecar.serving.admission import AdmittedRequest
from xai_sidecar.serving.plan import ExplanationPlan, ExplanationResult, Stage, in_units

LATE_SECONDS = 0.01
"""How late timers are, at the most, on a machine that keeps up."""

_SPENT = "Its budget ended it after {} of at most {} passes."
_DUE = "The call's deadline ended it after {} of at most {} passes."
_LATE = " As others want the device, too, the first map took {}."
_NOTHING = "The call's deadline came before there was a map."
_SHUT_DOWN = "The server's end ended it after {} of at most {} passes."
_NOTHING_YET = "The server's end ended it before there was a map."


class RunningExplanation:
    """An explanation of one picture in progress.

    Args:
        plan: What to explain and how; of a choice left to the server, the plan chosen.
        targets: (t,) int32, the classes explained.
        shape: (H, W) of the maps.
        job: The computation; None where nothing is to be computed.
        message: Why nothing is; empty where there is a job, or no target.
        choice: Why this explainer, where the server chose it.
        admitted: The request that it belongs to.

    Attributes:
        plan: As given.
        planned_passes: The most passes that it takes.
    """

    def __init__(
        self,
        plan: ExplanationPlan,
        targets: IntArray,
        shape: tuple[int, ...],
        job: Job[Saliency] | None,
        message: str = "",
        choice: Choice | None = None,
        admitted: AdmittedRequest | None = None,
    ) -> None:
        self.plan = plan
        self.planned_passes = max(plan.counts.most, len(targets))
        self._targets = targets
        self._shape = shape
        self._job = job
        self._message = message
        self._choice = choice
        self._admitted = admitted

    @property
    def pass_count(self) -> int:
        """Passes done so far."""
        return 0 if self._job is None else self._job.pass_count

    def cancel(self) -> None:
        """Cancels the computation, if it has not ended."""
        if self._job is not None:
            self._job.cancel()

    @property
    def wound_up(self) -> bool:
        """Whether it was cut short because the server shuts down."""
        return self._job is not None and self._job.wound_up

    def done(self) -> None:
        """Releases what it has reserved; to be called once, when there is a result."""
        if self._admitted is not None:
            self._admitted.explained()

    async def peek(self, engine: Engine) -> ExplanationResult | None:
        """A partial result; None where there is none yet, or the final one is about to come."""
        if self._job is None:
            return None
        saliency = await asyncio.wrap_future(engine.peek(self._job))
        if saliency is None:
            return None
        seconds = time.monotonic() - self._job.submitted
        return self._explained(self._targets, saliency, self.pass_count, seconds, Stage.PARTIAL)

    async def result(self) -> ExplanationResult:
        """Waits for the final result. Cancelling it cancels the computation."""
        if self._job is None:
            stage = Stage.SKIPPED if self._message else Stage.COMPLETE
            return self._without_maps(0, 0.0, stage, self._message)
        try:
            done: Completed[Saliency] = await asyncio.wrap_future(self._job)
        except BudgetSpentError:
            seconds = time.monotonic() - self._job.submitted
            reason = _NOTHING_YET if self.wound_up else _NOTHING
            return self._without_maps(self.pass_count, seconds, Stage.TRUNCATED, reason)
        stage, message = Stage.COMPLETE, ""
        if done.cut_short:
            ended = _DUE if self.plan.budget_seconds is None else _SPENT
            reason = _SHUT_DOWN if self.wound_up else ended
            stage, message = Stage.TRUNCATED, reason.format(done.pass_count, self.planned_passes)
            if done.seconds > (self.plan.budget_seconds or math.inf) + LATE_SECONDS:
                message += _LATE.format(in_units(done.seconds))
        return self._explained(self._targets, done.value, done.pass_count, done.seconds, stage, message)

    def _without_maps(self, pass_count: int, seconds: float, stage: Stage, message: str) -> ExplanationResult:
        nothing = Saliency(np.empty((0, *self._shape), np.float32), ())
        return self._explained(np.empty(0, np.int32), nothing, pass_count, seconds, stage, message)

    def _explained(
        self,
        targets: IntArray,
        saliency: Saliency,
        pass_count: int,
        seconds: float,
        stage: Stage,
        message: str = "",
    ) -> ExplanationResult:
        return ExplanationResult(self.plan, targets, saliency, pass_count, seconds, stage, message, self._choice)
