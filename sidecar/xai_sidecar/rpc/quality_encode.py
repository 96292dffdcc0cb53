"""From samples of the store to the contract's messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from xai_proto import explanation_pb2 as pb
from xai_proto import quality_pb2 as qpb
from xai_sidecar import __version__
from xai_sidecar.errors import within
from xai_sidecar.evaluator.comparison import goodness
from xai_sidecar.evaluator.controls import is_control
from xai_sidecar.evaluator.reading import ExplanationView, Page, SampleDetail, SampleView
from xai_sidecar.evaluator.records import BoxAnnotation, GroundTruth, PolygonAnnotation, ScoreRecord, TruthObject
from xai_sidecar.evaluator.store import Change, SmallMap
from xai_sidecar.metrics.base import MaskingCurve, ScoreStatus
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.metrics.faithfulness import area
from xai_sidecar.rpc.encode import STATUSES, map_message, parameter_values, region_message
from xai_sidecar.rpc.quality_decode import OUTCOMES
from xai_sidecar.serving.answers import SaliencyMap
from xai_sidecar.serving.quality import Shown
from xai_sidecar.serving.requests import MapEncoding
from xai_sidecar.telemetry import EXPLAIN

_OUTCOMES = {outcome: number for number, outcome in OUTCOMES.items()}
_KINDS = {
    Change.NEW: qpb.SAMPLE_EVENT_KIND_NEW,
    Change.MEASURED: qpb.SAMPLE_EVENT_KIND_MEASURED,
    Change.LABELLED: qpb.SAMPLE_EVENT_KIND_LABELLED,
    Change.TRUTH_APPLIED: qpb.SAMPLE_EVENT_KIND_TRUTH_APPLIED,
}


def label_of(class_id: int, labels: Sequence[str]) -> str:
    """The label of a class, also of one that the model does not have any more."""
    return labels[class_id] if 0 <= class_id < len(labels) else f"class {class_id}"


def stamp(seconds: float) -> Timestamp:
    """A Unix time as a message."""
    found = Timestamp()
    found.FromNanoseconds(round(seconds * 1e9))
    return found


def page_message(page: Page, labels: Sequence[str]) -> qpb.ListSamplesResponse:
    """A page of samples."""
    return qpb.ListSamplesResponse(
        samples=[summary_message(each, labels) for each in page.samples],
        next_page_token=page.next_token,
        total_count=page.total,
    )


def event_message(view: SampleView, changes: frozenset[Change], labels: Sequence[str]) -> qpb.SampleEvent:
    """What happened to a sample."""
    kinds = [_KINDS[change] for change in Change if change in changes]
    return qpb.SampleEvent(kinds=kinds, sample=summary_message(view, labels))


def summary_message(view: SampleView, labels: Sequence[str]) -> qpb.SampleSummary:
    """What a list shows of a sample."""
    record, frame = view.record, view.record.frame
    message = qpb.SampleSummary(
        request_id=record.key.request_id,
        image_index=record.key.image_index,
        time=stamp(record.time),
        state=f"SAMPLE_STATE_{record.state.name}",
        model_version=record.model_version,
        classes=[
            pb.ClassScore(class_id=class_id, label=label_of(class_id, labels), probability=probability, logit=logit)
            for class_id, probability, logit in view.classes
        ],
        predicted_class_ids=record.positives,
        outcomes=[
            qpb.ClassOutcome(class_id=class_id, label=label_of(class_id, labels), outcome=_OUTCOMES[outcome])
            for class_id, outcome in view.outcomes.items()
        ],
        frame=pb.PictureSize(width=frame.width, height=frame.height),
        has_thumbnail=view.has_thumbnail,
        thumbnail_jpeg=view.thumbnail,
        explainers=[
            qpb.SampleMap(explainer=name, status=STATUSES[each.status], kept=each.kept)
            for name, each in view.explained.items()
        ],
        score=view.score,
    )
    if view.truth is not None:
        truth = view.truth
        message.truth.CopyFrom(
            qpb.SampleTruth(
                time=stamp(truth.time),
                class_ids=truth.class_ids,
                labels=[label_of(each, labels) for each in truth.class_ids],
                object_count=truth.object_count,
                applied=truth.applied,
            )
        )
    if record.ood is not None:
        message.ood.score, message.ood.percentile = record.ood
    if frame.picture_size is not None:
        message.picture.width, message.picture.height = frame.picture_size
    if frame.region is not None:
        message.region.CopyFrom(region_message(frame.region))
    if view.small_map is not None:
        message.map.CopyFrom(small_message(view.small_map))
    return message


def small_message(small: SmallMap) -> qpb.SmallMap:
    """A small map."""
    return qpb.SmallMap(
        height=small.height, width=small.width, minimum=small.minimum, maximum=small.maximum, values=small.values
    )


def sample_message(detail: SampleDetail, shown: Shown, encoding: MapEncoding) -> qpb.Sample:
    """Everything that is kept of a sample.

    Raises:
        PreconditionError: A map cannot be had in that encoding.
    """
    message = qpb.Sample(
        summary=summary_message(detail.view, shown.labels), input_png=detail.input_png, server_version=__version__
    )
    if detail.truth is not None:
        message.summary.truth.objects.extend(_objects(detail.truth))
    order = {name: place for place, name in enumerate([*shown.model.explainers, *shown.evaluated.controls])}
    for name in sorted(detail.explanations, key=lambda name: (order.get(name, len(order)), name)):
        with within(name):
            message.explanations.append(_explanation(detail.explanations[name], shown, encoding))
    return message


def _explanation(view: ExplanationView, shown: Shown, encoding: MapEncoding) -> qpb.SampleExplanation:
    kept = view.map
    values = None if kept is None else kept.saliency
    made = SaliencyMap(view.target, label_of(view.target, shown.labels), view.status, values)
    message = qpb.SampleExplanation(
        explainer=view.explainer,
        is_control=is_control(view.explainer),
        maps=[map_message(made, encoding)],
        values_kept=kept is not None,
        pass_count=view.pass_count,
        scores=[_score(each, shown) for each in view.scores if each.metric != EXPLAIN],
        curves=[_curve(each) for each in view.curves],
    )
    if kept is not None:
        message.seed = kept.seed
        for name, value in parameter_values(kept.parameters).items():
            message.parameters[name].CopyFrom(value)
    if view.shape is not None:
        message.shape.CopyFrom(qpb.MapShape(**vars(view.shape)))
    return message


def _score(record: ScoreRecord, shown: Shown) -> qpb.SampleScore:
    metric: Any = installed_metrics().get(record.metric)
    parameters = shown.protocols.get(record.definition)
    status = record.status
    message = qpb.SampleScore(
        metric=record.metric,
        value=record.value,
        status="error" if status is None else status.name.lower(),
        higher_is_better=metric is None or metric.higher_is_better,
        time=stamp(record.time),
        pass_count=record.pass_count,
        is_current=parameters is not None,
    )
    if record.value is not None and metric is not None and status is ScoreStatus.OK:
        message.goodness = goodness(metric, record.value)
    if parameters is not None:
        for name, value in parameter_values(parameters.model_dump(mode="json")).items():
            message.parameters[name].CopyFrom(value)
    return message


def _curve(curve: MaskingCurve) -> qpb.MaskingCurve:
    return qpb.MaskingCurve(
        kind=f"MASKING_KIND_{curve.kind.upper()}",
        fill=curve.fill,
        pixel_counts=curve.pixel_counts.tolist(),
        probabilities=curve.probabilities.tolist(),
        tie_seed=curve.tie_seed,
        area=area(curve.probabilities),
    )


def _objects(truth: GroundTruth) -> list[pb.GroundTruthObject]:
    return [_object(each) for each in truth.objects]


def _object(thing: TruthObject) -> pb.GroundTruthObject:
    message, annotation = pb.GroundTruthObject(class_id=thing.class_id), thing.annotation
    if isinstance(annotation, BoxAnnotation):
        message.box.CopyFrom(
            pb.Region(left=annotation.left, top=annotation.top, right=annotation.right, bottom=annotation.bottom)
        )
    elif isinstance(annotation, PolygonAnnotation):
        message.polygon.points.extend(pb.Point(x=x, y=y) for x, y in annotation.points)
    else:
        message.mask_png = annotation.png
    return message
