"""What pages show, from a running server through the SDK."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Final

from xai_client import (
    AsyncClient,
    ClassMap,
    Event,
    Explain,
    GroundTruthObject,
    GroundTruthWarning,
    ImageLike,
    ModelInfo,
    Quality,
    QualityHistory,
    Sample,
    SampleEvents,
    SampleFilter,
    SamplePage,
)
from xai_console.settings import Settings
from xai_console.source.sharing import Sharing

_INFO_SECONDS: Final = 5.0
_ENDS: Final = ("oldest_first", "newest_first")
_A_MOMENT: Final = timedelta(milliseconds=1)
_PROGRESS_SECONDS: Final = 0.25
_RECONNECTING: Final = (
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 2000),
)
"""A server that comes back is found at once, and not after two minutes."""
_WATCHED_SECONDS: Final = 900.0
"""What one watches may take long: there is a button to stop it."""


class LiveSource:
    """A `Source` of a server.

    Args:
        settings: Its address, and how to call it.
        token: The bearer token to call it with; empty for what the settings say.
    """

    def __init__(self, settings: Settings, token: str = "") -> None:
        self.name = settings.name
        self._settings = settings
        self._token = token
        self._sharing = Sharing()

    @cached_property
    def _client(self) -> AsyncClient:
        """The client, made in the event loop that it belongs to."""
        settings = self._settings
        return AsyncClient(
            settings.server,
            timeout=settings.timeout,
            # A run is read through a socket of this user's own, whatever the environment says of servers.
            tls=False if settings.run else settings.tls,
            token=self._token or ("" if settings.run else settings.token_file),
            options=_RECONNECTING,
        )

    async def model_info(self) -> ModelInfo:
        """See `Source`."""
        return await self._client.model_info(timeout=min(_INFO_SECONDS, self._settings.timeout))

    def stream(
        self, image: ImageLike, explain: Sequence[Explain], *, top_k: int, ood: bool
    ) -> AsyncGenerator[Event, None]:
        """See `Source`."""
        return self._client.stream(
            image,
            explain,
            top_k=top_k,
            ood=ood,
            progress_interval=_PROGRESS_SECONDS,
            skip_sampling=True,  # to look is no traffic
            timeout=max(_WATCHED_SECONDS, self._settings.timeout),
        )

    async def list_samples(
        self,
        where: SampleFilter,
        *,
        order: str,
        score_of: tuple[str, str] | None,
        page_size: int,
        page_token: str,
        map_of: str,
    ) -> SamplePage:
        """See `Source`."""
        return await self._client.list_samples(
            where,
            order=order,
            score_of=score_of,
            page_size=page_size,
            page_token=page_token,
            with_thumbnails=True,
            with_map_of=map_of,
            with_total_count=True,
        )

    async def sample(self, request_id: str, image_index: int, explainers: Sequence[str] = ()) -> Sample:
        """See `Source`."""
        return await self._client.sample(request_id, image_index, explainers=explainers)

    def watch_samples(self, where: SampleFilter, *, map_of: str) -> AsyncGenerator[SampleEvents, None]:
        """See `Source`; those who watch the same share a stream."""

        def stream() -> AsyncGenerator[SampleEvents, None]:
            return self._client.watch_samples(where, with_thumbnails=True, with_map_of=map_of)

        return self._sharing.watch(repr((where, map_of)), stream)

    async def report_ground_truth(
        self,
        request_id: str,
        image_index: int,
        class_ids: Sequence[int],
        objects: Sequence[GroundTruthObject],
        *,
        keep: bool,
    ) -> list[str]:
        """See `Source`."""
        with warnings.catch_warnings(record=True) as issued:
            warnings.simplefilter("always", GroundTruthWarning)
            await self._client.report_ground_truth(
                request_id,
                image_index=image_index,
                class_ids=class_ids,
                objects=objects,
                keep_unmentioned=keep,
            )
        return [str(each.message) for each in issued if each.category is GroundTruthWarning]

    async def quality(self) -> Quality:
        """See `Source`."""
        return await self._client.quality()

    async def quality_history(
        self,
        *,
        seconds: float | None,
        bins: int,
        reference_seconds: float | None = None,
        ago: float = 0.0,
        explainers: Sequence[str] = (),
        metrics: Sequence[str] = (),
    ) -> QualityHistory:
        """See `Source`."""
        if seconds is None:
            first, last = await asyncio.gather(*(self._client.list_samples(order=each, page_size=1) for each in _ENDS))
            times = [each.time for page in (first, last) for each in page.samples]
            end = max(times) + _A_MOMENT if times else None
            return await self._client.quality_history(
                start=min(times, default=None), end=end, bins=bins, explainers=explainers, metrics=metrics
            )
        until = time.time() - ago
        since = until - seconds
        reference = None if reference_seconds is None else (since - reference_seconds, since)
        return await self._client.quality_history(
            start=since, end=until, bins=bins, explainers=explainers, metrics=metrics, reference=reference
        )

    async def class_maps(self, explainer: str, class_ids: Sequence[int], outcomes: Sequence[str]) -> list[ClassMap]:
        """See `Source`."""
        return await self._client.class_maps([explainer] if explainer else [], class_ids, outcomes=outcomes)

    async def close(self) -> None:
        """See `Source`."""
        if "_client" in self.__dict__:
            await self._client.close()
