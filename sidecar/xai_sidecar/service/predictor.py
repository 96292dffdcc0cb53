"""From pictures to predictions and explanations, on the engine. Knows nothing of gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from xai_sidecar.config import ServerConfig
from xai_sidecar.engine.engine import Completed, Engine
from xai_sidecar.engine.scheduler import Lane
from xai_sidecar.engine.work import FloatArray, IntArray, OodScores, Steps, forward, ood_score
from xai_sidecar.errors import DeviceError, OverloadedError
from xai_sidecar.explainers.activations import ACTIVATIONS
from xai_sidecar.explainers.base import Context, Explainer, Parameters, Saliency
from xai_sidecar.imaging import Prepared
from xai_sidecar.telemetry import Telemetry

_RETRY_SECONDS = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class Targets:
    """Which classes to explain: those listed, or all from a probability on, or else the `top_count` most probable."""

    class_ids: tuple[int, ...] = ()
    min_probability: float | None = None
    top_count: int = 1

    def most(self, limit: int) -> int:
        """The most classes that it can come to."""
        if self.class_ids:
            return len(self.class_ids)
        return limit if self.min_probability is not None else self.top_count

    def of(self, probabilities: FloatArray, limit: int) -> IntArray:
        """The classes to explain of one prediction, (t,) int32, at most `limit` of them; maybe none."""
        if self.class_ids:
            return np.asarray(self.class_ids, np.int32)
        ranking = ranked(probabilities)
        if self.min_probability is not None:
            return ranking[probabilities[ranking] >= self.min_probability][:limit]
        return ranking[: self.top_count]


@dataclass(frozen=True)
class ExplanationPlan:
    """One explanation to be made of every picture of a request.

    Attributes:
        name: What the caller calls it.
        explainer: Who makes it.
        parameters: The explainer's, resolved.
        targets: Which classes.
        seed: Of everything random in it.
    """

    name: str
    explainer: Explainer[Any]
    parameters: Parameters
    targets: Targets
    seed: int = 0


@dataclass(frozen=True)
class Explained:
    """An explanation of one picture.

    Attributes:
        plan: What was asked for.
        targets: (t,) int32, the classes explained.
        saliency: Their maps.
        pass_count: Rows that went through the model for them.
        seconds: From being submitted to being done.
    """

    plan: ExplanationPlan
    targets: IntArray
    saliency: Saliency
    pass_count: int
    seconds: float


@dataclass(frozen=True)
class Predicted:
    """What the model says of one picture.

    Attributes:
        prepared: The picture as the model saw it.
        logits: (classes,) float32.
        probabilities: (classes,) float32.
        explained: The explanations, in the order of their plans.
        ood: Its OoD score and percentile, if asked for.
    """

    prepared: Prepared
    logits: FloatArray
    probabilities: FloatArray
    explained: tuple[Explained, ...]
    ood: tuple[float, float] | None = None


class Predictor:
    """Predicts and explains on an engine.

    All of it is to be called on one event loop.

    Args:
        engine: A started engine.
        activation: "softmax" or "sigmoid".
        limits: How much is taken on.
        telemetry: Told of what was done.
    """

    def __init__(self, engine: Engine, activation: str, limits: ServerConfig, telemetry: Telemetry) -> None:
        self._engine = engine
        self._activation = ACTIVATIONS[activation]
        self._max_targets = limits.max_targets
        self._telemetry = telemetry
        self._images = _Share("pictures", limits.queue_capacity)
        self._explanations = _Share("explanations", limits.queue_capacity)
        telemetry.open_images.set_function(lambda: self._images.taken)
        telemetry.open_explanations.set_function(lambda: self._explanations.taken)

    @contextmanager
    def admit(self, image_count: int, explanation_count: int) -> Iterator[None]:
        """Takes a request on, whole, before anything is done for it; or refuses it.

        Pictures and explanations are counted apart, so that explanations cannot crowd out predictions. Whatever the
        capacity, a server with nothing to do takes any request.

        Raises:
            OverloadedError: Too much is under way.
        """
        with self._images.of(image_count), self._explanations.of(explanation_count):
            yield

    async def predict(
        self, images: Sequence[Prepared], plans: Sequence[ExplanationPlan], deadline: float, *, ood: bool = False
    ) -> list[Predicted]:
        """Predicts all images, and explains each as planned.

        Cancelling it cancels what it submitted.

        Args:
            images: The model inputs.
            plans: The explanations wanted of each.
            deadline: On the clock of `time.monotonic`.
            ood: Whether OoD scores are wanted.

        Raises:
            SidecarError: As the engine says; `field` names the image or the explanation at fault, if one is.
        """
        return await _together([self._one(i, image, plans, deadline, ood) for i, image in enumerate(images)])

    async def _one(
        self, index: int, image: Prepared, plans: Sequence[ExplanationPlan], deadline: float, ood: bool
    ) -> Predicted:
        inputs = image.array[np.newaxis]
        scored = None
        if ood:
            done: OodScores = (await self._run(ood_score(inputs), Lane.PREDICT, deadline)).value
            logits, scored = done.logits[0], (float(done.scores[0]), float(done.percentiles[0]))
        else:
            logits = (await self._run(forward(inputs), Lane.PREDICT, deadline)).value[0]
        if not np.isfinite(logits).all() or not np.isfinite(scored or 0).all():
            raise DeviceError(
                "The model answers this picture with NaN or infinite values. Check its weights and normalisation.",
                field=f"images[{index}]",
            )
        self._telemetry.images.inc()
        probabilities = np.asarray(self._activation(logits), np.float32)
        explained = await _together([self._explain(image, plan, probabilities, deadline) for plan in plans])
        return Predicted(image, logits, probabilities, tuple(explained), scored)

    async def _explain(
        self, image: Prepared, plan: ExplanationPlan, probabilities: FloatArray, deadline: float
    ) -> Explained:
        targets = plan.targets.of(probabilities, self._max_targets)
        if len(targets) == 0:
            nothing = Saliency(np.empty((0, *image.array.shape[1:]), np.float32), ())
            return Explained(plan, targets, nothing, 0, 0.0)
        context = Context(self._activation, plan.seed)
        steps = plan.explainer.explain(image.array, targets, plan.parameters, context)
        done = await self._run(steps, Lane.EXPLAIN, deadline)
        self._telemetry.explained(plan.explainer.name, done.value.statuses, done.seconds)
        return Explained(plan, targets, done.value, done.pass_count, done.seconds)

    async def _run(self, steps: Steps[Any], lane: Lane, deadline: float) -> Completed[Any]:
        return await asyncio.wrap_future(self._engine.submit(steps, lane, deadline=deadline))


class _Share:
    """A capacity that requests take a part of while they last."""

    def __init__(self, what: str, capacity: int) -> None:
        self._what = what
        self._capacity = capacity
        self.taken = 0

    @contextmanager
    def of(self, count: int) -> Iterator[None]:
        if self.taken and count and self.taken + count > self._capacity:
            raise OverloadedError(
                f"{self.taken} {self._what} are under way, and {count} more would be over the {self._capacity} that "
                "the server takes on. Try again shortly.",
                retry_seconds=_RETRY_SECONDS,
            )
        self.taken += count
        try:
            yield
        finally:
            self.taken -= count


async def _together(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results; at the first failure the rest is cancelled, which plain `gather` leaves running."""
    if len(coroutines) < 2:  # the most frequent case, and tasks cost time
        return [await coroutine for coroutine in coroutines]
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def ranked(probabilities: FloatArray) -> IntArray:
    """Class ids by falling probability, ties by class id, (classes,) int32."""
    return np.argsort(-probabilities, kind="stable").astype(np.int32)


def deadline_of(seconds: float | None) -> float:
    """The time left as a time on the clock of `time.monotonic`."""
    return float("inf") if seconds is None else time.monotonic() + seconds
