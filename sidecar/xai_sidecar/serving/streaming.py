"""Explanations as a stream: progress, partial results that get better, and the final result of each."""

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
from xai_sidecar.serving.predictor import Predictor
from xai_sidecar.serving.running import RunningExplanation

_GROWTH = 1.5
"""Factor between the pass counts of two versions of a map: with less, the eye sees no difference."""


@dataclass(frozen=True)
class ExplanationKey:
    """Which explanation of a request: indices of the picture and of the plan."""

    image_index: int
    plan_index: int


@dataclass(frozen=True)
class ExplanationProgress:
    """How far an explanation has come.

    Attributes:
        key: Which explanation.
        name: The caller's name for it.
        pass_count: Passes done.
        planned_passes: The most passes that it takes.
        standard_error: Largest relative standard error of the maps of the last version; None if unknown.
        seconds_left: Estimated from the pace so far.
    """

    key: ExplanationKey
    name: str
    pass_count: int
    planned_passes: int
    standard_error: float | None
    seconds_left: float


@dataclass(frozen=True)
class ExplanationVersion:
    """A partial result of an explanation, or the final one.

    Attributes:
        key: Which explanation.
        result: The result.
    """

    key: ExplanationKey
    result: ExplanationResult


def is_partial(event: ExplanationProgress | ExplanationVersion) -> bool:
    """Whether an event is a partial result, which a better one follows."""
    return isinstance(event, ExplanationVersion) and event.result.stage is Stage.PARTIAL


@dataclass(eq=False)
class _Watched:
    """An explanation that has not ended, and what was last sent of it.

    Attributes:
        key: Which explanation.
        explanation: The explanation.
        next_version: Pass count from which another version is worth sending; 0 while one is being computed.
        started: When it was added, on the clock of `time.monotonic`.
        last_reported: Pass count of the last progress event.
        standard_error: Of the last version; see `ExplanationProgress`.
    """

    key: ExplanationKey
    explanation: RunningExplanation
    next_version: int
    started: float = field(default_factory=time.monotonic)
    last_reported: int = 0
    standard_error: float | None = None

    def progress(self) -> ExplanationProgress | None:
        """A progress event; None where nothing has changed since the last one."""
        done, planned = self.explanation.pass_count, self.explanation.planned_passes
        if not self.last_reported < done < planned:
            return None
        self.last_reported = done
        left = (time.monotonic() - self.started) * (planned - done) / done
        return ExplanationProgress(self.key, self.explanation.plan.name, done, planned, self.standard_error, left)

    def wants_version(self) -> bool:
        """Whether to compute another version now."""
        return 0 < self.next_version <= self.explanation.pass_count < self.explanation.planned_passes

    def seen(self, explained: ExplanationResult) -> ExplanationVersion:
        """Makes an event of a partial result, and keeps its standard error."""
        errors = explained.saliency.standard_errors
        worst = float(errors.max()) if errors is not None and len(errors) else np.inf
        self.standard_error = worst if np.isfinite(worst) else None
        return ExplanationVersion(self.key, explained)


class _Stream:
    """The explanations of a request that have not ended.

    Attributes:
        finals: For each, the future of its final result.
        versions: Futures of partial results that are being computed.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.finals: dict[asyncio.Future[ExplanationResult], _Watched] = {}
        self.versions: dict[asyncio.Future[ExplanationResult | None], _Watched] = {}

    def add(self, key: ExplanationKey, explanation: RunningExplanation) -> None:
        """Watches another explanation."""
        final = asyncio.ensure_future(self._predictor.explained(explanation))
        self.finals[final] = _Watched(key, explanation, explanation.plan.counts.first)

    async def wait(self, until: float) -> list[ExplanationVersion]:
        """Waits for results; returns those that have come, none where the time `until` came first."""
        futures: set[asyncio.Future[Any]] = {*self.finals, *self.versions}
        timeout = max(0.0, until - time.monotonic())
        done, _ = await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        updates = []
        for version in [each for each in self.versions if each in done]:
            watched = self.versions.pop(version)
            watched.next_version = math.ceil(_GROWTH * watched.explanation.pass_count)
            explained = version.result()
            if explained is not None and watched in self.finals.values():
                updates.append(watched.seen(explained))
        for final in [each for each in self.finals if each in done]:
            updates.append(ExplanationVersion(self.finals.pop(final).key, final.result()))
        return updates

    def look(self) -> list[ExplanationProgress]:
        """Progress events of all explanations; starts computing versions where it is time for one."""
        for watched in self.finals.values():
            if watched.wants_version():
                watched.next_version = 0
                version = asyncio.ensure_future(watched.explanation.peek(self._predictor.engine))
                self.versions[version] = watched
        progress = (watched.progress() for watched in self.finals.values())
        return [event for event in progress if event is not None]

    def cancel(self) -> None:
        """Cancels all explanations."""
        for watched in self.finals.values():
            watched.explanation.cancel()  # its task may not have begun
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
    """Explains predictions, and yields progress, partial results and the final results.

    Progress and partial results are computed on demand: a caller that reads slowly gets fewer of them. Closing the
    generator cancels what has not ended.

    Args:
        predictor: Runs it.
        predicted: The predictions.
        plans: The explanations of each prediction.
        deadline: On the clock of `time.monotonic`.
        interval: Seconds between two progress events of one explanation.
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
