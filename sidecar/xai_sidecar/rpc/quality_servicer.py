"""The calls about samples and quality: messages become questions to the store, its answers become messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

from xai_proto import quality_pb2 as qpb
from xai_proto import quality_pb2_grpc as qpb_grpc
from xai_sidecar.errors import NotFoundError, within
from xai_sidecar.evaluator.reading.history import History
from xai_sidecar.evaluator.reading.history import Shown as Series
from xai_sidecar.rpc.decode import read_encoding
from xai_sidecar.rpc.quality_decode import (
    ClassMapsQuestion,
    HistoryQuestion,
    read_class_maps,
    read_extras,
    read_filter,
    read_history,
    read_key,
    read_list,
)
from xai_sidecar.rpc.quality_encode import event_message, page_message, sample_message
from xai_sidecar.rpc.quality_report import class_maps_message, history_message, quality_message
from xai_sidecar.serving.quality import Happened, Quality, Shown
from xai_sidecar.serving.quality_report import auto_choice, quality_report

_SOONER = 0.98
"""The part of the longest time of a call after which a watch ends of itself, without an error."""


class QualityServicer(qpb_grpc.QualityServiceServicer):
    """Implements the contract.

    Args:
        quality: Reads for the calls.
    """

    def __init__(self, quality: Quality) -> None:
        self.quality = quality

    async def ListSamples(self, request: qpb.ListSamplesRequest, context: Any) -> qpb.ListSamplesResponse:
        """Lists samples."""
        shown = self.quality.shown(request.model)
        where, order, size, token, extras = read_list(request, shown)
        return await self.quality.read(
            lambda: page_message(
                shown.reader.page(where, order, size, token, extras, with_total=request.with_total_count), shown.labels
            )
        )

    async def GetSample(self, request: qpb.GetSampleRequest, context: Any) -> qpb.GetSampleResponse:
        """Shows a sample."""
        shown = self.quality.shown(request.model)
        key, explainers = read_key(request, shown)
        encoding = read_encoding(request.encoding)

        def read() -> qpb.GetSampleResponse:
            detail = shown.reader.sample(key, explainers)
            if detail is None:
                raise NotFoundError(
                    f"Picture {key.image_index} of request {key.request_id} is not among the samples that are kept. "
                    "ListSamples lists these.",
                    field="request_id",
                )
            return qpb.GetSampleResponse(sample=sample_message(detail, shown, encoding))

        return await self.quality.read(read)

    async def WatchSamples(
        self, request: qpb.WatchSamplesRequest, context: Any
    ) -> AsyncIterator[qpb.WatchSamplesResponse]:
        """Sends what happens to samples."""
        shown = self.quality.shown(request.model)
        with within("filter"):
            where = read_filter(request.filter, shown)
        extras = read_extras(request, shown)

        def read(happened: Happened) -> qpb.WatchSamplesResponse:
            changed, missed = happened
            views = shown.reader.views(list(changed), where, extras)
            events = [event_message(views[key], kinds, shown.labels) for key, kinds in changed.items() if key in views]
            return qpb.WatchSamplesResponse(events=events, missed_count=missed)

        seconds = _SOONER * self.quality.source.limits.max_call_seconds
        async with aclosing(self.quality.watch(shown, seconds)) as watching:
            async for happened in watching:
                message = await self.quality.read(partial(read, happened), bounded=False)
                if message.events or message.missed_count or not happened[0]:
                    yield message

    async def GetQuality(self, request: qpb.GetQualityRequest, context: Any) -> qpb.GetQualityResponse:
        """Tells how good explanations are."""
        shown = self.quality.shown(request.model)

        def read() -> qpb.GetQualityResponse:
            report = quality_report(shown, self.quality.source.describe(request.model))
            return qpb.GetQualityResponse(quality=quality_message(report, shown.labels))

        return await self.quality.read(read)

    async def GetQualityHistory(
        self, request: qpb.GetQualityHistoryRequest, context: Any
    ) -> qpb.GetQualityHistoryResponse:
        """Tells how things have changed."""
        shown = self.quality.shown(request.model)
        question = read_history(request, shown)
        return await self.quality.read(partial(_history, shown, question))

    async def GetClassMaps(self, request: qpb.GetClassMapsRequest, context: Any) -> qpb.GetClassMapsResponse:
        """Shows mean maps of classes."""
        shown = self.quality.shown(request.model)
        question = read_class_maps(request, shown)

        def read() -> qpb.GetClassMapsResponse:
            return _class_maps(shown, question, question.explainers or [self._auto(request.model, shown)])

        return await self.quality.read(read)

    def _auto(self, model: str, shown: Shown) -> str:
        """The explainer that `auto` takes."""
        choice = auto_choice(shown, self.quality.source.describe(model))
        return shown.names[0] if choice is None else choice.explainer


def _history(shown: Shown, question: HistoryQuestion) -> qpb.GetQualityHistoryResponse:
    series = Series(
        model_version=shown.evaluated.version,
        explainers=question.explainers,
        metrics=question.metrics,
        definitions=frozenset(shown.measurer.definitions),
        outlier_percentile=shown.model.config.evaluator.ood_percentile,
        single_label=shown.single_label,
    )
    found = shown.reader.history(series, question.start, question.end, question.bins)
    reference: History | None = None
    if question.reference is not None:
        reference = shown.reader.history(series, *question.reference, 1)
    return history_message(found, question.bins, reference, shown.labels)


def _class_maps(shown: Shown, question: ClassMapsQuestion, explainers: list[str]) -> qpb.GetClassMapsResponse:
    classes = question.class_ids or shown.reader.frequent_classes(question.where, question.most_classes)
    found = shown.reader.class_maps(question.where, classes, explainers, question.most_samples)
    return class_maps_message(found, shown.labels)
