"""Shows what the evaluator has, whatever protocol asks: on few threads of its own, so that nothing else waits."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

from xai_sidecar.config import ServerConfig
from xai_sidecar.errors import OverloadedError, PreconditionError
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.measurement import EvaluatedModel, Measurer
from xai_sidecar.evaluator.reading import Reader, SampleFilter
from xai_sidecar.evaluator.records import SampleKey
from xai_sidecar.evaluator.store import Change, Store, Watcher
from xai_sidecar.metrics.base import MetricParameters
from xai_sidecar.serving.core import Core, ServingState
from xai_sidecar.serving.description import ModelDescription
from xai_sidecar.serving.model import ServedModel

T = TypeVar("T")

Happened: TypeAlias = tuple[dict[SampleKey, frozenset[Change]], int]
"""What happened to samples, and how many were missed before."""

_THREADS = 2
_MOST_WAITING = 32
"""Readings that wait for a thread or have one; most take some milliseconds."""

_MOST_WATCHERS = 64

_GATHERING_SECONDS = 0.5
"""How long what happens is put together before it is sent."""

MOST_EVENTS = 64
"""Samples in one message of a watcher."""


@dataclass(frozen=True)
class Shown:
    """What there is to show.

    Attributes:
        model: The model.
        evaluated: The same as the evaluator sees it.
        measurer: What says how is measured.
        quality: The measurements of recent samples.
        store: Samples, maps and scores.
        clock: Unix time in seconds, as samples are recent by.
    """

    model: ServedModel
    evaluated: EvaluatedModel
    measurer: Measurer
    quality: LiveQuality
    store: Store
    clock: Callable[[], float] = time.time

    @functools.cached_property
    def reader(self) -> Reader:
        """Reads the store."""
        return Reader(self.store.database)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the classes, by class id."""
        return self.evaluated.labels

    @property
    def single_label(self) -> bool:
        """Whether exactly one class is predicted of each picture."""
        return self.evaluated.single_label

    @property
    def names(self) -> list[str]:
        """Explainers that can be used, in the order to list them in, then controls."""
        return [*self.evaluated.explainers, *self.evaluated.controls]

    @functools.cached_property
    def protocols(self) -> Mapping[str, MetricParameters]:
        """The parameters of the metrics by the definition of the scores that are measured with them now."""
        return self.measurer.protocols

    def all_samples(self) -> SampleFilter:
        """A filter that lets through all samples of the model that is served."""
        return SampleFilter(model_version=self.evaluated.version, single_label=self.single_label)


class QualitySource(Protocol):
    """Where there is something to show: a server, or the folder of an offline run.

    Attributes:
        limits: How long a call may take.
    """

    limits: ServerConfig

    def shown(self, model: str = "") -> Shown:
        """What there is to show.

        Args:
            model: Name of the model; empty for the only one.

        Raises:
            ShuttingDownError: The server is starting, or ending.
            NotFoundError: There is another model.
            PreconditionError: Nothing is sampled.
        """

    def describe(self, model: str = "") -> ModelDescription:
        """The model, with its measured quality; raises as `shown`."""


class ServedQuality:
    """A `QualitySource` of the server itself.

    Args:
        core: Has what serves calls.
    """

    def __init__(self, core: Core) -> None:
        self.limits = core.limits
        self._core = core
        self._shown: tuple[ServingState, Shown] | None = None

    def shown(self, model: str = "") -> Shown:
        """See `QualitySource`."""
        state = self._core.ready()
        state.model.check_name(model)
        evaluator = state.evaluation.evaluator
        if evaluator is None:
            raise PreconditionError(
                "This server samples no requests, so that there is nothing to show. Set evaluator.sample_rate in its "
                "config."
            )
        if self._shown is None or self._shown[0] is not state:
            quality = state.evaluation.quality
            self._shown = state, Shown(state.model, evaluator.model, evaluator.measurer, quality, evaluator.store)
        return self._shown[1]

    def describe(self, model: str = "") -> ModelDescription:
        """See `QualitySource`."""
        return self._core.describe(model)


class Quality:
    """Reads for calls. To be used on one event loop.

    Args:
        source: Where there is something to show.
    """

    def __init__(self, source: QualitySource) -> None:
        self.source = source
        self._threads = ThreadPoolExecutor(_THREADS, "reading")
        self._reading = 0
        self._watching: set[asyncio.Event] = set()
        self._ending = False

    def shown(self, model: str = "") -> Shown:
        """What there is to show; see `QualitySource`."""
        return self.source.shown(model)

    async def read(self, function: Callable[[], T], *, bounded: bool = True) -> T:
        """A function's result, from a thread that reads.

        Args:
            function: What to do there.
            bounded: Whether to refuse where too many wait.

        Raises:
            OverloadedError: Too many wait.
        """
        if bounded and self._reading >= _MOST_WAITING:
            raise OverloadedError("Too many calls wait to read samples. Try again shortly.", retry_seconds=1.0)
        self._reading += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function)
        finally:
            self._reading -= 1

    async def watch(self, shown: Shown, seconds: float) -> AsyncGenerator[Happened, None]:
        """What happens to samples, until the server ends.

        Args:
            shown: What to watch.
            seconds: After so many seconds it ends, too.

        Yields:
            What has happened to some samples, at most `MOST_EVENTS`, and how many were missed before these. The first
            has none: from then on nothing is missed that is not told.

        Raises:
            OverloadedError: Too many watch.
        """
        with self._watcher(shown) as (watcher, happened):
            yield {}, 0
            ends = asyncio.get_running_loop().time() + seconds
            while await self._happened(happened, ends):
                happened.clear()
                changed, missed = watcher.read()
                left = list(changed.items())
                while left or missed:
                    yield dict(left[:MOST_EVENTS]), missed
                    left, missed = left[MOST_EVENTS:], 0

    def end_watching(self) -> None:
        """Ends all that watch: the server is ending."""
        self._ending = True
        for happened in self._watching:
            happened.set()

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _happened(self, happened: asyncio.Event, ends: float) -> bool:
        """Waits for something to happen, and a little for more; False where it is time to end."""
        left = ends - asyncio.get_running_loop().time()
        try:
            await asyncio.wait_for(happened.wait(), max(0.0, left))
        except asyncio.TimeoutError:
            return False
        if not self._ending:
            await asyncio.sleep(_GATHERING_SECONDS)
        return not self._ending

    @contextmanager
    def _watcher(self, shown: Shown) -> Iterator[tuple[Watcher, asyncio.Event]]:
        if len(self._watching) >= _MOST_WATCHERS:
            raise OverloadedError(
                f"{_MOST_WATCHERS} callers watch samples, the most that the server takes. Try again later.",
                retry_seconds=10.0,
            )
        loop, happened = asyncio.get_running_loop(), asyncio.Event()
        changes = shown.store.changes
        watcher = changes.watch(lambda: _wake(loop, happened))
        self._watching.add(happened)
        try:
            yield watcher, happened
        finally:
            self._watching.discard(happened)
            changes.unwatch(watcher)


def _wake(loop: asyncio.AbstractEventLoop, happened: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(happened.set)
    except RuntimeError:
        """The loop has ended; so has the watcher."""
