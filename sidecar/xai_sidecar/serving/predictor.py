"""From model inputs to predictions and explanations, on the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from xai_sidecar.engine.batch import Flow, Lane, Promise
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.job import Job
from xai_sidecar.engine.trace import joined
from xai_sidecar.engine.work import OodScores, Steps, forward, ood_score
from xai_sidecar.errors import DeviceError, ShuttingDownError, SidecarError, TensorError
from xai_sidecar.evaluator.choice import Candidate, Choice
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.explainers.activations import ACTIVATIONS
from xai_sidecar.explainers.base import Context, Saliency
from xai_sidecar.imaging import Prepared
from xai_sidecar.picture_units import PICTURES, PictureUnits
from xai_sidecar.serving.admission import AdmittedRequest
from xai_sidecar.serving.answering import AnsweringTime
from xai_sidecar.serving.callers import current_caller
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.plan import (
    ExplanationPlan,
    ExplanationResult,
    ModelOutput,
    positives,
    without_positive,
)
from xai_sidecar.serving.running import LATE_SECONDS, RunningExplanation
from xai_sidecar.telemetry import Telemetry

_LARGEST_INPUT = 1e6
"""Magnitude that no normalised picture reaches, not even one of 16 bits that was not scaled."""


T = TypeVar("T")


class Predictor:
    """Predicts and explains on an engine. To be used on one event loop.

    Args:
        engine: A started engine.
        activation: "softmax" or "sigmoid".
        max_targets: Most targets of an explanation.
        telemetry: Counts predictions and explanations.
        quality: Chooses the explainer, where the caller leaves that to the server.
        least_positive: As of `ServedModel`.
        units: As of `ModelFacts`.

    Attributes:
        engine: As given.
        costs: Estimates how long explanations take.
        answering: Says how long before its deadline a call's explanations have to end.
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
        self.answering = AnsweringTime()
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
        if not np.isfinite(logits).all() or (scored is not None and not np.isfinite(scored).all()):
            raise _not_finite(index, image)
        probabilities = np.asarray(self._activation(logits), np.float32)
        self._telemetry.predicted(len(positives(logits, probabilities, self._least_positive)))
        return ModelOutput(image, logits, probabilities, scored)

    async def _run(self, steps: Steps[Any], deadline: float) -> Any:
        job = self.engine.submit(steps, Lane.PREDICT, deadline=deadline, flow=Flow(caller=current_caller().name))
        done = await asyncio.wrap_future(job)
        joined(job.trace, "way_back")
        return done.value

    def begin(
        self, predicted: ModelOutput, plan: ExplanationPlan, deadline: float, admitted: AdmittedRequest | None = None
    ) -> RunningExplanation:
        """Starts to explain a prediction. The caller must cancel what it does not wait for.

        Args:
            predicted: The prediction.
            plan: What to explain and how.
            deadline: On the clock of `time.monotonic`.
            admitted: The request that it belongs to.
        """
        image, probabilities = predicted.prepared.array, predicted.probabilities
        percentile = None if predicted.ood is None else predicted.ood[1]
        skipped = plan.condition.failure(float(probabilities.max()), percentile) or self._missing_positive(
            predicted, plan
        )
        targets = plan.targets.of(predicted.logits, probabilities, self._max_targets)
        wanted, choice = plan, None
        if plan.candidates and len(targets) and not skipped:
            choice = self._choice(plan, int(targets[0]), deadline, admitted)
            plan = plan.candidates[choice.explainer]
        job = None
        if len(targets) and not skipped:
            context = Context(self._activation, plan.seed, self._units, plan.reduced)
            steps = plan.explainer.explain(image, targets, plan.parameters, context)
            due = deadline if admitted is None else admitted.due(wanted)
            job = self._submit(steps, plan, deadline, due)
        if admitted is not None:
            admitted.started(wanted, job, plan)
        return RunningExplanation(plan, targets, image.shape[1:], job, skipped, choice, admitted)

    def _missing_positive(self, predicted: ModelOutput, plan: ExplanationPlan) -> str:
        """Why nothing is explained where no class counts as predicted and no target was given; empty otherwise."""
        least = self._least_positive
        if least is None or not plan.targets.by_default:
            return ""
        if len(positives(predicted.logits, predicted.probabilities, least)):
            return ""
        return without_positive(predicted.probabilities, least)

    def _submit(self, steps: Steps[Saliency], plan: ExplanationPlan, deadline: float, due: float) -> Job[Saliency]:
        """Submits the computation, which ends in time for the call's deadline with what it has.

        With a budget it has a head start, and goes on beyond it until the first map.

        Args:
            steps: The computation.
            plan: What to explain and how.
            deadline: The call's.
            due: When it is promised to be done without a budget; infinite where nothing is promised.
        """
        flow = Flow(label=plan.explainer.name, caller=current_caller().name)
        submit = partial(self.engine.submit, steps, Lane.EXPLAIN, deadline=deadline, flow=flow)
        latest = self.answering.before(deadline)
        if plan.budget_seconds is None:
            if due < float("inf"):
                flow.promise = Promise(min(due, latest), plan.counts.least, plan.counts.first)
            return submit(budget_end=latest, give_up=float("inf"))
        flow.head_start = self.engine.seconds(plan.first_kind, plan.counts.first)
        end = _budget_end(plan.budget_seconds, latest)
        flow.promise = Promise(end, plan.counts.first, plan.counts.first)
        return submit(budget_end=end, give_up=latest)

    def _choice(self, plan: ExplanationPlan, target: int, deadline: float, admitted: AdmittedRequest | None) -> Choice:
        """Chooses the best measured of the candidates that fit in the budget, before the deadline and beside others."""
        candidates = [
            Candidate(name, self._expected_seconds(plan, each, admitted)) for name, each in plan.candidates.items()
        ]
        budget, left = plan.budget_seconds, self.answering.before(deadline) - time.monotonic()
        if any(left < candidate.expected_seconds for candidate in candidates):
            budget = left if budget is None else min(budget, left)
        return self._quality.choose(candidates, budget, target)

    def _expected_seconds(
        self, plan: ExplanationPlan, candidate: ExplanationPlan, admitted: AdmittedRequest | None
    ) -> float:
        """Expected seconds of a candidate, infinite where it would make others late."""
        if admitted is not None and not admitted.can_have(plan, candidate):
            return float("inf")
        return self.costs.seconds(candidate.explainer.name, candidate.kind, candidate.counts.most)

    async def explained(self, explaining: RunningExplanation) -> ExplanationResult:
        """Waits for the final result of an explanation, and counts it. Cancelling it cancels the explanation."""
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
        """Explains predictions, all concurrently; returns for each the results in the order of the plans.

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
    """The error for outputs that are NaN or infinite: the input's fault where it is far too large, else the model's."""
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


def _budget_end(seconds: float, latest: float) -> float:
    """When a budget ends: early by how late timers are, and before the call's deadline would lose the map."""
    return min(time.monotonic() + seconds - min(LATE_SECONDS, seconds / 10), latest)


async def together(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results; at the first failure the other coroutines are cancelled, which `gather` leaves running."""
    if len(coroutines) < 2:  # the most frequent case, and tasks cost time
        return [await coroutine for coroutine in coroutines]
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
