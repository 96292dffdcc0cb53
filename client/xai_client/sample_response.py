"""The server's answers about samples as the SDK's types."""

from __future__ import annotations

import numpy as np

from xai_client.colours import FloatArray
from xai_client.errors import ResponseError
from xai_client.response import (
    class_scores,
    enum_name,
    map_values,
    region_of,
    saliency_map,
    size_of,
    time_of,
    values_of,
)
from xai_client.samples import (
    ClassOutcome,
    MapShape,
    MaskingCurve,
    Sample,
    SampleEvent,
    SampleEvents,
    SampleExplanation,
    SampleMap,
    SamplePage,
    SampleScore,
    SampleSummary,
    SampleTruth,
    TruthObject,
)
from xai_proto import explanation_pb2 as pb
from xai_proto import quality_pb2 as qpb


def sample_page(message: qpb.ListSamplesResponse) -> SamplePage:
    """Decodes a page of samples."""
    return SamplePage(
        samples=tuple(map(sample_summary, message.samples)),
        next_page_token=message.next_page_token,
        total_count=message.total_count if message.HasField("total_count") else None,
    )


def sample_events(message: qpb.WatchSamplesResponse, *, reconnected: bool = False) -> SampleEvents:
    """Decodes what has happened.

    Args:
        message: The message.
        reconnected: Whether it is the first one after another stream.
    """
    events = (
        SampleEvent(
            frozenset(enum_name(qpb.SampleEventKind.DESCRIPTOR, kind) for kind in each.kinds),
            sample_summary(each.sample),
        )
        for each in message.events
    )
    return SampleEvents(tuple(events), message.missed_count, reconnected)


def sample_summary(message: qpb.SampleSummary) -> SampleSummary:
    """Decodes what a list shows of a sample.

    Raises:
        ResponseError: Its small map contradicts the contract.
    """
    return SampleSummary(
        request_id=message.request_id,
        image_index=message.image_index,
        time=time_of(message.time),
        state=enum_name(qpb.SampleState.DESCRIPTOR, message.state),
        model_version=message.model_version,
        classes=class_scores(message.classes),
        predicted=tuple(message.predicted_class_ids),
        truth=_truth(message.truth) if message.HasField("truth") else None,
        outcomes=tuple(
            ClassOutcome(each.class_id, each.label, enum_name(qpb.Outcome.DESCRIPTOR, each.outcome))
            for each in message.outcomes
        ),
        ood_score=message.ood.score if message.HasField("ood") else None,
        ood_percentile=message.ood.percentile if message.HasField("ood") else None,
        picture_size=size_of(message.picture) if message.HasField("picture") else None,
        region=region_of(message.region) if message.HasField("region") else None,
        frame=size_of(message.frame),
        has_thumbnail=message.has_thumbnail,
        thumbnail_jpeg=message.thumbnail_jpeg,
        map=small_map(message.map) if message.HasField("map") else None,
        explainers={
            each.explainer: SampleMap(each.explainer, enum_name(pb.MapStatus.DESCRIPTOR, each.status), each.kept)
            for each in message.explainers
        },
        score=message.score if message.HasField("score") else None,
    )


def sample(message: qpb.Sample) -> Sample:
    """Decodes everything that is kept of a sample.

    Raises:
        ResponseError: A map contradicts the contract.
    """
    return Sample(
        summary=sample_summary(message.summary),
        input_png=message.input_png,
        explanations={each.explainer: _explanation(each) for each in message.explanations},
        server_version=message.server_version,
    )


def small_map(message: qpb.SmallMap) -> FloatArray:
    """Decodes a small map (H, W).

    Raises:
        ResponseError: It has another size than it says.
    """
    shape = message.height, message.width
    if min(shape) < 1 or len(message.values) != message.height * message.width:
        raise ResponseError(f"a small map of shape {shape} came with {len(message.values)} bytes")
    parts = np.frombuffer(message.values, np.uint8).reshape(shape).astype(np.float32) / np.float32(255)
    return (message.minimum + parts * (message.maximum - message.minimum)).astype(np.float32)


def _explanation(message: qpb.SampleExplanation) -> SampleExplanation:
    curves = (_curve(each) for each in message.curves)
    shape = message.shape
    return SampleExplanation(
        explainer=message.explainer,
        is_control=message.is_control,
        # Values are not kept for ever.
        maps=tuple(saliency_map(each, map_values(each) if each.WhichOneof("map") else None) for each in message.maps),
        values_kept=message.values_kept,
        parameters=values_of(message.parameters),
        seed=message.seed if message.HasField("seed") else None,
        passes=message.pass_count,
        scores={each.metric: _score(each) for each in message.scores},
        curves={each.kind: each for each in curves},
        shape=MapShape(shape.concentration, shape.centre_x, shape.centre_y, shape.border)
        if message.HasField("shape")
        else None,
    )


def _score(message: qpb.SampleScore) -> SampleScore:
    return SampleScore(
        metric=message.metric,
        value=message.value if message.HasField("value") else None,
        status=message.status,
        higher_is_better=message.higher_is_better,
        goodness=message.goodness if message.HasField("goodness") else None,
        time=time_of(message.time),
        passes=message.pass_count,
        parameters=values_of(message.parameters),
        is_current=message.is_current,
    )


def _curve(message: qpb.MaskingCurve) -> MaskingCurve:
    if len(message.pixel_counts) != len(message.probabilities):
        raise ResponseError(
            f"a curve of {len(message.pixel_counts)} steps came with {len(message.probabilities)} probabilities"
        )
    return MaskingCurve(
        kind=enum_name(qpb.MaskingKind.DESCRIPTOR, message.kind),
        fill=message.fill,
        pixel_counts=tuple(message.pixel_counts),
        probabilities=tuple(message.probabilities),
        tie_seed=message.tie_seed,
        area=message.area,
    )


def _truth(message: qpb.SampleTruth) -> SampleTruth:
    return SampleTruth(
        time=time_of(message.time),
        class_ids=tuple(message.class_ids),
        labels=tuple(message.labels),
        object_count=message.object_count,
        objects=tuple(_object(each) for each in message.objects),
        applied=message.applied,
    )


def _object(message: pb.GroundTruthObject) -> TruthObject:
    return TruthObject(
        class_id=message.class_id if message.HasField("class_id") else None,
        box=region_of(message.box) if message.HasField("box") else None,
        polygon=tuple((point.x, point.y) for point in message.polygon.points),
        mask_png=message.mask_png,
    )
