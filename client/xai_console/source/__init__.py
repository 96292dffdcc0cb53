"""Where pages get what they show: a live server now, the folder of an offline run by the same interface."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from xai_client import (
    ClassMap,
    Event,
    Explain,
    GroundTruthObject,
    ImageLike,
    ModelInfo,
    Quality,
    QualityHistory,
    Sample,
    SampleEvents,
    SampleFilter,
    SamplePage,
)


class Source(Protocol):
    """What pages read and ask; `xai_client.AsyncClient` describes arguments and results.

    Each method raises `XaiError` where it fails: `UnavailableError` if the server is away, `PreconditionError` or
    `UnsupportedError` if it keeps no samples.

    Attributes:
        name: What is shown, for people: the server's address, or the folder of a run.
    """

    name: str

    async def model_info(self) -> ModelInfo:
        """The model, its explainers, and how good they are."""

    def stream(
        self, image: ImageLike, explain: Sequence[Explain], *, top_k: int, ood: bool
    ) -> AsyncGenerator[Event, None]:
        """Predicts and explains a picture that is no traffic; yields what comes as it comes."""

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
        """Lists samples with thumbnails and their number."""

    async def sample(self, request_id: str, image_index: int, explainers: Sequence[str] = ()) -> Sample:
        """Everything that is kept of a sample; of some explainers, where they are named."""

    def watch_samples(self, where: SampleFilter, *, map_of: str) -> AsyncGenerator[SampleEvents, None]:
        """Yields what happens to samples, with thumbnails."""

    async def report_ground_truth(
        self,
        request_id: str,
        image_index: int,
        class_ids: Sequence[int],
        objects: Sequence[GroundTruthObject],
        *,
        keep: bool,
    ) -> list[str]:
        """Tells what a sample really showed; returns what may not be as it was meant, each in a sentence.

        With `keep`, classes or objects of which there are none here stay as they were reported before.
        """

    async def quality(self) -> Quality:
        """How good explanations are now."""

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
        """How things have changed in the last seconds, or ever (None), compared with the seconds before.

        Args:
            seconds: How many.
            bins: Bins that they are divided into.
            reference_seconds: How many before to compare with; None for no comparison.
            ago: When the seconds ended, in seconds before now.
            explainers: Whose scores and maps it is of; all where none is named.
            metrics: Of which scores; of those that count where none is named.
        """

    async def class_maps(self, explainer: str, class_ids: Sequence[int], outcomes: Sequence[str]) -> list[ClassMap]:
        """Mean maps of classes."""

    async def close(self) -> None:
        """Ends all calls."""
