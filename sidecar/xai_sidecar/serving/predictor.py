"""From pictures to predictions and explanations, on the engine. Knows nothing of gRPC."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

import numpy as np

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.job import Completed, Job
from xai_sidecar.engine.work import IntArray, OodScores, Steps, forward, ood_score
from xai_sidecar.errors import BudgetSpentError, DeviceError, ShuttingDownError, SidecarError, TensorError
from xai_sidecar.evaluator.choice import Candidate, Choice
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.explainers.activations import ACTIVATIONS
from xai_sidecar.explainers.base import Context, Saliency
from xai_sidecar.imaging import Prepared
from xai_sidecar.picture_units import PICTURES, PictureUnits
from xai_sidecar.serving.admission import AdmittedRequest
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.plan import (
    ExplanationPlan,
    ExplanationResult,
    ModelOutput,
    Stage,
    in_units,
    positives,
    without_positive,
)
from xai_sidecar.telemetry import Telemetry

_ANSWERING_SECONDS = 0.1
"""What a call's deadline must leave for sending the maps that are there."""

_LATE_SECONDS = 0.01

_LARGEST_INPUT = 1e6
"""No picture comes to that when it is normalised, not even one of 16 bits that is not scaled."""

_SPENT = "Its budget ended it after {} of at most {} passes."
_LATE = " As others want the device, too, the first map took {}."
_NOTHING = "The call's deadline came before there was a map."
_SHUT_DOWN = "The server's end ended it after {} of at most {} passes."
_NOTHING_YET = "The server's end ended it before there was a map."

T = TypeVar("T")


class RunningExplanation:
    """An explanation of one picture under way.

    Attributes:
        plan: What was asked for.
        planned_passes: The most that it will take.
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
        """Ends it, if it has not ended yet."""
        if self._job is not None:
            self._job.cancel()

    @property
    def wound_up(self) -> bool:
        """Whether the server's end cut it short."""
        return self._job is not None and self._job.wound_up

    def done(self) -> None:
        """Gives back what it has of the server's capacities; to be called once, when there is a result."""
        if self._admitted is not None:
            self._admitted.explained()

    async def peek(self, engine: Engine) -> ExplanationResult | None:
        """The maps as they stand; None if there are none yet, or the last ones are coming."""
        if self._job is None:
            return None
        saliency = await asyncio.wrap_future(engine.peek(self._job))
        if saliency is None:
            return None
        seconds = time.monotonic() - self._job.submitted
        return self._explained(self._targets, saliency, self.pass_count, seconds, Stage.PARTIAL)

    async def result(self) -> ExplanationResult:
        """The maps as they are in the end. Cancelling it cancels the job."""
        if self._job is None:
            stage = Stage.SKIPPED if self._message else Stage.COMPLETE
            return self._without_maps(0, 0.0, stage, self._message)
        try:
            done: Completed[Saliency] = await asyncio.wrap_future(self._job)
        except BudgetSpentError:
            seconds = time.monotonic() - self._job.submitted
            told = _NOTHING_YET if self.wound_up else _NOTHING
            return self._without_maps(self.pass_count, seconds, Stage.TRUNCATED, told)
        stage, message = Stage.COMPLETE, ""
        if done.cut_short:
            told = _SHUT_DOWN if self.wound_up else _SPENT
            stage, message = Stage.TRUNCATED, told.format(done.pass_count, self.planned_passes)
            if done.seconds > (self.plan.budget_seconds or math.inf) + _LATE_SECONDS:
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


class Predictor:
    """Predicts and explains on an engine.

    All of it is to be called on one event loop.

    Args:
        engine: A started engine.
        activation: "softmax" or "sigmoid".
        max_targets: Most targets of an explanation.
        telemetry: Told of what was done.
        quality: Knows which explainer is the best, for callers who leave the choice to the server.
        least_positive: As of `ServedModel`.
        units: As of `ModelFacts`.
    """

    def __init__(
        self,
        engine: Engine,
        activation: str,
        max_targets: int,
        telemetry: Telemetry,
        quality: LiveQuality,
        least_positive: float | None = None,
        units: PictureUnits = PICTURES,
    ) -> None:
        self.engine = engine
        self.costs = ExplanationCosts(engine)
        self._units = units
        self._least_positive = least_positive
        self._quality = quality
        self._activation = ACTIVATIONS[activation]
        self._max_targets = max_targets
        self._telemetry = telemetry

    async def predict(self, images: Sequence[Prepared], deadline: float, *, ood: bool = False) -> list[ModelOutput]:
        """Predicts all images. Cancelling it cancels what it submitted.

        Args:
            images: The model inputs.
            deadline: On the clock of `time.monotonic`.
            ood: Whether OoD scores are wanted.

        Raises:
            SidecarError: As the engine says; `field` names the image at fault, if one is.
        """
        return await together([self._predict(i, image, deadline, ood) for i, image in enumerate(images)])

    async def _predict(self, index: int, image: Prepared, deadline: float, ood: bool) -> ModelOutput:
        inputs = image.array[np.newaxis]
        scored = None
        if ood:
            done: OodScores = await self._run(ood_score(inputs), deadline)
            logits, scored = done.logits[0], (float(done.scores[0]), float(done.percentiles[0]))
        else:
            logits = (await self._run(forward(inputs), deadline))[0]
        if not np.isfinite(logits).all() or not np.isfinite(scored or 0).all():
            raise _not_finite(index, image)
        probabilities = np.asarray(self._activation(logits), np.float32)
        self._telemetry.predicted(len(positives(logits, probabilities, self._least_positive)))
        return ModelOutput(image, logits, probabilities, scored)

    async def _run(self, steps: Steps[Any], deadline: float) -> Any:
        return (await asyncio.wrap_future(self.engine.submit(steps, Lane.PREDICT, deadline=deadline))).value

    def begin(
        self, predicted: ModelOutput, plan: ExplanationPlan, deadline: float, admitted: AdmittedRequest | None = None
    ) -> RunningExplanation:
        """Begins to explain a prediction. Whoever calls it must see to it that it is cancelled if nobody waits.

        Args:
            predicted: The prediction.
            plan: What is wanted.
            deadline: On the clock of `time.monotonic`.
            admitted: The request that it belongs to.
        """
        image, probabilities = predicted.prepared.array, predicted.probabilities
        percentile = None if predicted.ood is None else predicted.ood[1]
        skipped = plan.condition.failure(float(probabilities.max()), percentile) or self._unasked(predicted, plan)
        targets = plan.targets.of(predicted.logits, probabilities, self._max_targets)
        wanted, choice = plan, None
        if plan.candidates and len(targets) and not skipped:
            choice = self._choice(plan, int(targets[0]), deadline)
            plan = plan.candidates[choice.explainer]
        job = None
        if len(targets) and not skipped:
            context = Context(self._activation, plan.seed, self._units)
            steps = plan.explainer.explain(image, targets, plan.parameters, context)
            alone = not self.engine.explaining
            job = self._submit(steps, plan, deadline)
            if alone:
                job.add_done_callback(partial(self._measure, plan))
        if admitted is not None:
            admitted.begun(wanted, job)
        return RunningExplanation(plan, targets, image.shape[1:], job, skipped, choice, admitted)

    def _measure(self, plan: ExplanationPlan, job: Future[Completed[Saliency]]) -> None:
        """Takes down what an explanation took that came when there was no other, and ends when there is none."""
        if not self.engine.explaining and not job.cancelled() and job.exception() is None:
            done = job.result()
            if not done.cut_short:
                self.costs.ran(plan.explainer.name, done.device_seconds, done.seconds)

    def _unasked(self, predicted: ModelOutput, plan: ExplanationPlan) -> str:
        """Why a class is not explained that is not there, unless somebody asks for it; empty if one is."""
        least = self._least_positive
        if least is None or not plan.targets.by_default:
            return ""
        if len(positives(predicted.logits, predicted.probabilities, least)):
            return ""
        return without_positive(predicted.probabilities, least)

    def _submit(self, steps: Steps[Saliency], plan: ExplanationPlan, deadline: float) -> Job[Saliency]:
        """One with a budget gets a head start, and goes on for its first map should that come too late."""
        if plan.budget_seconds is None:
            return self.engine.submit(steps, Lane.EXPLAIN, deadline=deadline)
        return self.engine.submit(
            steps,
            Lane.EXPLAIN,
            deadline=deadline,
            budget_end=_budget_end(plan.budget_seconds, deadline),
            give_up=deadline - _ANSWERING_SECONDS,
            head_start=self.engine.seconds(plan.kind, plan.counts.first),
        )

    def _choice(self, plan: ExplanationPlan, target: int, deadline: float) -> Choice:
        """Which of the candidates is the best that the time allows."""
        candidates = [
            Candidate(name, self.costs.seconds(each.explainer.name, each.kind, each.counts.most))
            for name, each in plan.candidates.items()
        ]
        budget, left = plan.budget_seconds, deadline - time.monotonic() - _ANSWERING_SECONDS
        if any(left < candidate.expected_seconds for candidate in candidates):
            budget = left if budget is None else min(budget, left)
        return self._quality.choose(candidates, budget, target)

    async def explained(self, explaining: RunningExplanation) -> ExplanationResult:
        """Waits for an explanation, and counts it. Cancelling it cancels the explanation."""
        explained = await explaining.result()
        explaining.done()
        self._telemetry.explained(
            explained.plan.explainer.name, explained.stage.value, explained.saliency.statuses, explained.seconds
        )
        return explained

    async def explain(
        self,
        predicted: Sequence[ModelOutput],
        plans: Sequence[ExplanationPlan],
        deadline: float,
        admitted: AdmittedRequest | None = None,
    ) -> list[list[ExplanationResult]]:
        """Explains predictions as planned, all at a time; for each, the explanations in the order of the plans.

        Cancelling it cancels what it submitted.

        Raises:
            ShuttingDownError: The server ends before there is a map of any.
        """
        begun: list[RunningExplanation] = []
        try:
            for one in predicted:
                for plan in plans:
                    begun.append(self.begin(one, plan, deadline, admitted))
            done = await together([self.explained(each) for each in begun])
        finally:
            for each in begun:
                each.cancel()
        if any(each.wound_up for each in begun) and not any(len(each.targets) for each in done):
            raise ShuttingDownError("The server shuts down before there is a map. Send the request to another one.")
        explained = iter(done)
        return [[next(explained) for _ in plans] for _ in predicted]


def _not_finite(index: int, image: Prepared) -> SidecarError:
    """Whose fault it is that the model does not answer in numbers."""
    largest = float(np.abs(image.array).max())
    if image.picture_size is None and largest > _LARGEST_INPUT:
        return TensorError(
            f"The model answers these values, of up to {largest:.3g}, with NaN or infinite ones. Send normalised ones.",
            field=f"images[{index}].model_input",
        )
    return DeviceError(
        "The model answers this picture with NaN or infinite values. Check its weights and normalisation.",
        field=f"images[{index}]",
    )


def _budget_end(seconds: float, deadline: float) -> float:
    """When a budget ends, less what timers are late; the call's deadline must not come first and lose the map."""
    return min(time.monotonic() + seconds - min(_LATE_SECONDS, seconds / 10), deadline - _ANSWERING_SECONDS)


async def together(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results; at the first failure the rest is cancelled, which plain `gather` leaves running."""
    if len(coroutines) < 2:  # the most frequent case, and tasks cost time
        return [await coroutine for coroutine in coroutines]
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
