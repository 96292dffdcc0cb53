"""Explanations as they come: progress, ever better maps, and each one's last. Knows nothing of gRPC."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xai_sidecar.serving.admission import AdmittedRequest
from xai_sidecar.serving.plan import ExplanationPlan, ExplanationResult, ModelOutput, Stage
from xai_sidecar.serving.predictor import Predictor, RunningExplanation

_GROWTH = 1.5
"""Factor between the passes of two versions of a map: with fewer, the eye sees no difference."""


@dataclass(frozen=True)
class ExplanationKey:
    """Which explanation of a request: of the picture and the plan of these indices."""

    image_index: int
    plan_index: int


@dataclass(frozen=True)
class ExplanationProgress:
    """How far an explanation has come.

    Attributes:
        place: Which one.
        name: What the caller calls it.
        pass_count: Passes done.
        planned_passes: The most that it will take.
        standard_error: The largest of the maps' relative standard errors as of the last version; None if unknown.
        seconds_left: An estimate, from how long it has taken so far.
    """

    place: ExplanationKey
    name: str
    pass_count: int
    planned_passes: int
    standard_error: float | None
    seconds_left: float


@dataclass(frozen=True)
class ExplanationVersion:
    """A version of an explanation."""

    place: ExplanationKey
    explained: ExplanationResult


def is_partial(event: ExplanationProgress | ExplanationVersion) -> bool:
    """Whether it is a version to be followed by a better one."""
    return isinstance(event, ExplanationVersion) and event.explained.stage is Stage.PARTIAL


@dataclass(eq=False)
class _Running:
    """An explanation that is not done.

    Attributes:
        place: Which one.
        explaining: The same, under way.
        began: When, on the clock of `time.monotonic`.
        told_passes: Passes that were last told of.
        next_version: Passes from which on another version is worth a look; 0 where one is being worked out.
        standard_error: As of the last version.
    """

    place: ExplanationKey
    explaining: RunningExplanation
    next_version: int
    began: float = field(default_factory=time.monotonic)
    told_passes: int = 0
    standard_error: float | None = None

    def progress(self) -> ExplanationProgress | None:
        """What is to be told now; None if nothing has changed."""
        done, planned = self.explaining.pass_count, self.explaining.planned_passes
        if not self.told_passes < done < planned:
            return None
        self.told_passes = done
        left = (time.monotonic() - self.began) * (planned - done) / done
        return ExplanationProgress(self.place, self.explaining.plan.name, done, planned, self.standard_error, left)

    def wants_version(self) -> bool:
        """Whether it is time for another version."""
        return 0 < self.next_version <= self.explaining.pass_count < self.explaining.planned_passes

    def seen(self, explained: ExplanationResult) -> ExplanationVersion:
        """Takes down a version."""
        errors = explained.saliency.standard_errors
        worst = float(errors.max()) if errors is not None and len(errors) else np.inf
        self.standard_error = worst if np.isfinite(worst) else None
        return ExplanationVersion(self.place, explained)


class _Stream:
    """The explanations of a request that are not done.

    Attributes:
        finals: Of each what will be its last version.
        versions: Versions that are being worked out.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.finals: dict[asyncio.Future[ExplanationResult], _Running] = {}
        self.versions: dict[asyncio.Future[ExplanationResult | None], _Running] = {}

    def add(self, place: ExplanationKey, explaining: RunningExplanation) -> None:
        """Waits for an explanation."""
        final = asyncio.ensure_future(self._predictor.explained(explaining))
        self.finals[final] = _Running(place, explaining, explaining.plan.counts.first)

    async def wait(self, until: float) -> list[ExplanationVersion]:
        """What has come, as soon as something has, or nothing once a time has come."""
        futures: set[asyncio.Future[Any]] = {*self.finals, *self.versions}
        timeout = max(0.0, until - time.monotonic())
        done, _ = await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        updates = []
        for version in [each for each in self.versions if each in done]:
            running = self.versions.pop(version)
            running.next_version = math.ceil(_GROWTH * running.explaining.pass_count)
            explained = version.result()
            if explained is not None and running in self.finals.values():
                updates.append(running.seen(explained))
        for final in [each for each in self.finals if each in done]:
            updates.append(ExplanationVersion(self.finals.pop(final).place, final.result()))
        return updates

    def look(self) -> list[ExplanationProgress]:
        """How far each has come; has another version worked out where it is time for one."""
        for running in self.finals.values():
            if running.wants_version():
                running.next_version = 0
                version = asyncio.ensure_future(running.explaining.peek(self._predictor.engine))
                self.versions[version] = running
        told = (running.progress() for running in self.finals.values())
        return [progress for progress in told if progress is not None]

    def cancel(self) -> None:
        """Ends all."""
        for running in self.finals.values():
            running.explaining.cancel()  # its task may not have begun
        futures: set[asyncio.Future[Any]] = {*self.finals, *self.versions}
        for future in futures:
            future.cancel()


async def explanations(
    predictor: Predictor,
    predicted: Sequence[ModelOutput],
    plans: Sequence[ExplanationPlan],
    deadline: float,
    interval: float,
    admitted: AdmittedRequest | None = None,
) -> AsyncGenerator[ExplanationProgress | ExplanationVersion, None]:
    """Explains predictions as planned, and tells of it as it goes.

    Versions and progress are worked out when they are asked for: a caller that reads slowly gets fewer of them.
    Closing it cancels what is not done.

    Args:
        predictor: Runs it.
        predicted: The predictions.
        plans: The explanations wanted of each.
        deadline: On the clock of `time.monotonic`.
        interval: Seconds between two looks at what there is.
        admitted: The request that they belong to.
    """
    stream = _Stream(predictor)
    try:
        for image_index, one in enumerate(predicted):
            for plan_index, plan in enumerate(plans):
                stream.add(ExplanationKey(image_index, plan_index), predictor.begin(one, plan, deadline, admitted))
        next_look = time.monotonic() + interval
        while stream.finals:
            for update in await stream.wait(next_look):
                yield update
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + interval
                for progress in stream.look():
                    yield progress
    finally:
        stream.cancel()
