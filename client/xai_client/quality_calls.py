"""The calls that read what the evaluator has sampled and measured: methods of `Client`, and of `AsyncClient`."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import aclosing, closing
from typing import Any

from xai_client.calls import Call, Connection
from xai_client.quality import ClassMap, Quality, QualityHistory
from xai_client.quality_response import class_maps, quality, quality_history
from xai_client.sample_requests import (
    class_maps_request,
    history_request,
    list_request,
    sample_request,
    watch_request,
)
from xai_client.sample_response import sample, sample_events, sample_page
from xai_client.samples import Moment, Sample, SampleEvents, SampleFilter, SamplePage, SampleSummary
from xai_proto import quality_pb2 as qpb

_REWATCH_SECONDS = 1.0


class QualityCalls:
    """Calls of the QualityService. They raise what `Client` says, a `PreconditionError` where nothing is sampled."""

    _connection: Connection

    def list_samples(
        self,
        where: SampleFilter | None = None,
        *,
        order: str = "newest_first",
        score_of: tuple[str, str] | None = None,
        page_size: int = 50,
        page_token: str = "",
        with_thumbnails: bool = False,
        with_map_of: str = "",
        with_total_count: bool = False,
        timeout: float | None = None,
    ) -> SamplePage:
        """Lists samples, a page at a time; `iter_samples` goes through all pages.

        Args:
            where: Which samples. Default: all of the model that is served.
            order: "newest_first", "oldest_first", "least_probable_first", "most_probable_first", "outliers_first",
                "inliers_first", "worst_score_first" or "best_score_first".
            score_of: (explainer, metric) whose scores the last two go by; samples without it are left out.
            page_size: Most samples in the page, 1 to 200.
            page_token: `SamplePage.next_page_token` of the page before, with the same filter and order.
            with_thumbnails: Whether to fetch thumbnails.
            with_map_of: Explainer, or control, whose small map to fetch as `SampleSummary.map`.
            with_total_count: Whether to count all samples that the filter lets through.
            timeout: Deadline in seconds. Default: the client's.

        Raises:
            PreconditionError: The server samples nothing; the message names the config key.
            ServiceError: The call failed.
            ArgumentError: An argument is wrong.
        """
        request = list_request(
            where,
            order=order,
            score_of=score_of,
            page_size=page_size,
            page_token=page_token,
            with_thumbnails=with_thumbnails,
            with_map_of=with_map_of,
            with_total_count=with_total_count,
        )
        return sample_page(self._read("ListSamples", request, timeout))

    def iter_samples(
        self,
        where: SampleFilter | None = None,
        *,
        order: str = "newest_first",
        score_of: tuple[str, str] | None = None,
        with_thumbnails: bool = False,
        with_map_of: str = "",
        timeout: float | None = None,
    ) -> Generator[SampleSummary, None, None]:
        """Goes through all samples of `list_samples`, whose arguments it takes; fetches pages as they are needed."""
        request = list_request(
            where, order=order, score_of=score_of, with_thumbnails=with_thumbnails, with_map_of=with_map_of
        )
        more = True
        while more:
            page = sample_page(self._read("ListSamples", request, timeout))
            yield from page.samples
            request.page_token = page.next_page_token
            more = bool(page.next_page_token)

    def sample(
        self,
        request_id: str,
        image_index: int = 0,
        *,
        explainers: str | Iterable[str] = (),
        encoding: str = "float32",
        timeout: float | None = None,
    ) -> Sample:
        """Everything that is kept of a sample.

        Args:
            request_id: `SampleSummary.request_id`, or `Prediction.request_id` of a request that was sampled.
            image_index: Index of the picture in it.
            explainers: The explainers and controls to fetch. Default: all.
            encoding: How maps travel: "float32", "float16" or "png".
            timeout: Deadline in seconds. Default: the client's.

        Raises:
            NotFoundError: There is no such sample, or it is no longer kept.
            PreconditionError: The server samples nothing; or a map cannot be had in that encoding.
            ServiceError: The call failed.
            ArgumentError: An argument is wrong.
        """
        request = sample_request(request_id, image_index, explainers, encoding)
        return sample(self._read("GetSample", request, timeout).sample)

    def watch_samples(
        self,
        where: SampleFilter | None = None,
        *,
        with_thumbnails: bool = False,
        with_map_of: str = "",
        timeout: float | None = None,
    ) -> Generator[SampleEvents, None, None]:
        """Yields what happens to samples: they come, are measured, and get ground truth.

        The first one yielded has no events and comes at once: what happens from then on is not missed. Where the server
        ends the stream, it is watched anew: `SampleEvents.reconnected` then tells that it is time to list again. The
        stream is cancelled when the generator is closed.

        Args:
            where: Which samples. Default: all of the model that is served.
            with_thumbnails: As of `list_samples`.
            with_map_of: As of `list_samples`.
            timeout: How long to watch in seconds; a `DeadlineError` then. Default: for ever, whatever the client's.

        Raises:
            UnavailableError: The server cannot be reached, or not any more.
            ServiceError: The call failed.
            ArgumentError: An argument is wrong; raised at once.
        """
        request = watch_request(where, with_thumbnails=with_thumbnails, with_map_of=with_map_of)
        return self._watch(request, self._connection.lasting(timeout))

    def _watch(self, request: qpb.WatchSamplesRequest, call: Call) -> Generator[SampleEvents, None, None]:
        reconnected = False
        while True:
            with closing(self._stream("WatchSamples", request, call)) as messages:
                for message in messages:
                    yield sample_events(message, reconnected=reconnected)
                    reconnected = False
            reconnected = True
            call.begin_again()
            time.sleep(_REWATCH_SECONDS)

    def quality(self, *, timeout: float | None = None) -> Quality:
        """How good explanations are now, what that rests on, and what "auto" makes of it.

        Raises:
            PreconditionError: The server samples nothing; the message names the config key.
            ServiceError: The call failed.
        """
        return quality(self._read("GetQuality", qpb.GetQualityRequest(), timeout).quality)

    def quality_history(
        self,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        bins: int = 48,
        explainers: str | Iterable[str] = (),
        metrics: str | Iterable[str] = (),
        reference: tuple[Moment, Moment] | None = None,
        timeout: float | None = None,
    ) -> QualityHistory:
        """How scores, predictions and maps have changed over time.

        Args:
            start: Beginning. Default: the evaluator's window before the end.
            end: End. Default: now.
            bins: Number of bins of equal length, 1 to 500.
            explainers: Explainers and controls. Default: all.
            metrics: Metrics. Default: those that count for the composite score.
            reference: Beginning and end of a window to compare with.
            timeout: Deadline in seconds. Default: the client's.

        Raises:
            PreconditionError: The server samples nothing; the message names the config key.
            ServiceError: The call failed.
            ArgumentError: An argument is wrong.
        """
        request = history_request(
            start=start, end=end, bins=bins, explainers=explainers, metrics=metrics, reference=reference
        )
        return quality_history(self._read("GetQualityHistory", request, timeout).history)

    def class_maps(
        self,
        explainers: str | Iterable[str] = (),
        class_ids: int | Iterable[int] = (),
        *,
        max_samples: int = 200,
        outcomes: str | Iterable[str] = (),
        timeout: float | None = None,
    ) -> list[ClassMap]:
        """Where the model looks for a class in general: mean maps of the samples that it was explained for.

        Args:
            explainers: The explainers. Default: the one that "auto" takes.
            class_ids: The classes, at most 100. Default: the most frequent ones, at most 24.
            max_samples: Most samples for each map, the newest: 1 to 1,000.
            outcomes: Only samples with one of these outcomes of that class. Default: all.
            timeout: Deadline in seconds. Default: the client's.

        Returns:
            The maps, of each class by each explainer; the most frequent class first.

        Raises:
            PreconditionError: The server samples nothing; the message names the config key.
            ServiceError: The call failed.
            ArgumentError: An argument is wrong.
        """
        request = class_maps_request(explainers, class_ids, max_samples, outcomes)
        return class_maps(self._read("GetClassMaps", request, timeout))

    def _read(self, name: str, request: Any, timeout: float | None) -> Any:
        return self._unary(name, request, self._connection.call(timeout, idempotent=True))

    @abstractmethod
    def _unary(self, name: str, request: Any, call: Call) -> Any: ...

    @abstractmethod
    def _stream(self, name: str, request: Any, call: Call) -> Generator[Any, None, None]: ...


class AsyncQualityCalls:
    """As `QualityCalls`, with coroutines: the same methods with the same arguments, results and errors."""

    _connection: Connection

    async def list_samples(
        self,
        where: SampleFilter | None = None,
        *,
        order: str = "newest_first",
        score_of: tuple[str, str] | None = None,
        page_size: int = 50,
        page_token: str = "",
        with_thumbnails: bool = False,
        with_map_of: str = "",
        with_total_count: bool = False,
        timeout: float | None = None,
    ) -> SamplePage:
        """Lists samples, a page at a time; see `Client.list_samples`."""
        request = list_request(
            where,
            order=order,
            score_of=score_of,
            page_size=page_size,
            page_token=page_token,
            with_thumbnails=with_thumbnails,
            with_map_of=with_map_of,
            with_total_count=with_total_count,
        )
        return sample_page(await self._read("ListSamples", request, timeout))

    async def iter_samples(
        self,
        where: SampleFilter | None = None,
        *,
        order: str = "newest_first",
        score_of: tuple[str, str] | None = None,
        with_thumbnails: bool = False,
        with_map_of: str = "",
        timeout: float | None = None,
    ) -> AsyncGenerator[SampleSummary, None]:
        """Goes through all samples, for ``async for``; see `Client.iter_samples`."""
        request = list_request(
            where, order=order, score_of=score_of, with_thumbnails=with_thumbnails, with_map_of=with_map_of
        )
        more = True
        while more:
            page = sample_page(await self._read("ListSamples", request, timeout))
            for each in page.samples:
                yield each
            request.page_token = page.next_page_token
            more = bool(page.next_page_token)

    async def sample(
        self,
        request_id: str,
        image_index: int = 0,
        *,
        explainers: str | Iterable[str] = (),
        encoding: str = "float32",
        timeout: float | None = None,
    ) -> Sample:
        """Everything that is kept of a sample; see `Client.sample`."""
        request = sample_request(request_id, image_index, explainers, encoding)
        return await asyncio.to_thread(sample, (await self._read("GetSample", request, timeout)).sample)

    async def watch_samples(
        self,
        where: SampleFilter | None = None,
        *,
        with_thumbnails: bool = False,
        with_map_of: str = "",
        timeout: float | None = None,
    ) -> AsyncGenerator[SampleEvents, None]:
        """Yields what happens to samples, for ``async for``; see `Client.watch_samples`.

        A wrong argument is found when the first event is asked for. Where a loop may end early, `contextlib.aclosing`
        has the call cancelled at once, and not when the event loop gets to it.
        """
        request = watch_request(where, with_thumbnails=with_thumbnails, with_map_of=with_map_of)
        call = self._connection.lasting(timeout)
        reconnected = False
        while True:
            async with aclosing(self._stream("WatchSamples", request, call)) as messages:
                async for message in messages:
                    yield sample_events(message, reconnected=reconnected)
                    reconnected = False
            reconnected = True
            call.begin_again()
            await asyncio.sleep(_REWATCH_SECONDS)

    async def quality(self, *, timeout: float | None = None) -> Quality:
        """How good explanations are now; see `Client.quality`."""
        return quality((await self._read("GetQuality", qpb.GetQualityRequest(), timeout)).quality)

    async def quality_history(
        self,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        bins: int = 48,
        explainers: str | Iterable[str] = (),
        metrics: str | Iterable[str] = (),
        reference: tuple[Moment, Moment] | None = None,
        timeout: float | None = None,
    ) -> QualityHistory:
        """How scores, predictions and maps have changed over time; see `Client.quality_history`."""
        request = history_request(
            start=start, end=end, bins=bins, explainers=explainers, metrics=metrics, reference=reference
        )
        return quality_history((await self._read("GetQualityHistory", request, timeout)).history)

    async def class_maps(
        self,
        explainers: str | Iterable[str] = (),
        class_ids: int | Iterable[int] = (),
        *,
        max_samples: int = 200,
        outcomes: str | Iterable[str] = (),
        timeout: float | None = None,
    ) -> list[ClassMap]:
        """Where the model looks for a class in general; see `Client.class_maps`."""
        request = class_maps_request(explainers, class_ids, max_samples, outcomes)
        return class_maps(await self._read("GetClassMaps", request, timeout))

    async def _read(self, name: str, request: Any, timeout: float | None) -> Any:
        return await self._unary(name, request, self._connection.call(timeout, idempotent=True))

    @abstractmethod
    async def _unary(self, name: str, request: Any, call: Call) -> Any: ...

    @abstractmethod
    def _stream(self, name: str, request: Any, call: Call) -> AsyncGenerator[Any, None]: ...
