"""From quality, its history and mean maps to the contract's messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from xai_proto import quality_pb2 as qpb
from xai_sidecar.evaluator.reading import ClassMap, History, Point, Traffic
from xai_sidecar.rpc.encode import choice_message
from xai_sidecar.rpc.info import drift_message, evaluator_message, measure_message, standing_message
from xai_sidecar.rpc.quality_encode import label_of, small_message, stamp
from xai_sidecar.serving.description import ControlDescription, ExplainerDescription
from xai_sidecar.serving.quality_report import QualityReport


def quality_message(report: QualityReport, labels: Sequence[str]) -> qpb.Quality:
    """How good explanations are now."""
    description = report.description
    settings = description.model.config.evaluator
    usable: list[ExplainerDescription | ControlDescription] = [
        each for each in description.explainers if not each.unavailable
    ]
    message = qpb.Quality(
        evaluator=evaluator_message(description),
        explainers=[_explainer(each, report, labels) for each in (*usable, *description.controls)],
        weights=settings.auto.weights,
        vetoes=settings.auto.vetoes,
        min_sample_count=settings.auto.min_samples,
        confusion=[
            qpb.ConfusionCell(
                true_class_id=each.true,
                true_label=label_of(each.true, labels),
                predicted_class_id=each.predicted,
                predicted_label=label_of(each.predicted, labels),
                count=each.count,
            )
            for each in report.confusion
        ],
        confusion_truncated=report.confusion_truncated,
        outlier_percentile=settings.ood_percentile,
        outlier_share=report.outlier_share,
        alerts=[qpb.QualityAlert(**vars(each)) for each in report.alerts],
    )
    if report.choice is not None:
        message.auto_explainer = report.choice.explainer
        message.auto_choice.CopyFrom(choice_message(report.choice))
    return message


def _explainer(
    one: ExplainerDescription | ControlDescription, report: QualityReport, labels: Sequence[str]
) -> qpb.ExplainerQuality:
    message = qpb.ExplainerQuality(
        explainer=one.name,
        is_control=isinstance(one, ControlDescription),
        quality=[measure_message(each) for each in one.quality],
        composite_score=one.composite,
        classes=[
            qpb.ClassQuality(class_id=class_id, label=label_of(class_id, labels), measure=measure_message(each))
            for class_id, each in report.classes.get(one.name, ())
        ],
    )
    if isinstance(one, ExplainerDescription):
        message.drift.extend(map(drift_message, one.drift))
        if one.verdict is not None:
            message.standing.CopyFrom(standing_message(one.verdict))
    return message


def history_message(
    history: History, bins: int, reference: History | None, labels: Sequence[str]
) -> qpb.GetQualityHistoryResponse:
    """How things have changed.

    Args:
        history: The history.
        bins: Its number of bins.
        reference: The same of the reference window, in one bin; None for none.
        labels: Of the classes.
    """
    message = qpb.QualityHistory(
        start_time=stamp(history.start),
        bin_count=bins,
        scores=_scores(history.scores),
        shapes=_shapes(history.shapes),
        traffic=[_traffic(each, labels) for each in history.traffic],
        current=_traffic(history.whole, labels),
        sample_count=history.count,
        truncated=history.truncated,
    )
    message.bin_duration.FromNanoseconds(round(history.width * 1e9))
    if reference is not None:
        message.reference.CopyFrom(_traffic(reference.whole, labels))
        message.reference_scores.extend(_scores(reference.scores))
        message.reference_shapes.extend(_shapes(reference.shapes))
        message.reference_truncated = reference.truncated
    return qpb.GetQualityHistoryResponse(history=message)


def class_maps_message(found: Iterable[ClassMap], labels: Sequence[str]) -> qpb.GetClassMapsResponse:
    """Mean maps."""
    return qpb.GetClassMapsResponse(
        maps=[
            qpb.ClassMap(
                class_id=each.class_id,
                label=label_of(each.class_id, labels),
                explainer=each.explainer,
                sample_count=each.count,
                map=small_message(each.mean),
            )
            for each in found
        ]
    )


def _scores(found: Mapping[tuple[str, str], Sequence[Point]]) -> list[qpb.ScoreSeries]:
    return [
        qpb.ScoreSeries(explainer=explainer, metric=metric, points=map(_point, points))
        for (explainer, metric), points in found.items()
    ]


def _shapes(found: Mapping[tuple[str, str], Sequence[Point]]) -> list[qpb.ShapeSeries]:
    return [
        qpb.ShapeSeries(explainer=explainer, statistic=statistic, points=map(_point, points))
        for (explainer, statistic), points in found.items()
    ]


def _point(point: Point) -> qpb.HistoryPoint:
    return qpb.HistoryPoint(
        bin=point.bin, sample_count=point.count, mean=point.mean, confidence_half_width=point.half_width
    )


def _traffic(traffic: Traffic, labels: Sequence[str]) -> qpb.TrafficFigures:
    return qpb.TrafficFigures(
        bin=traffic.bin,
        sample_count=traffic.count,
        mean_probability=traffic.mean_probability,
        probability_deciles=traffic.deciles,
        ood_count=traffic.ood_count,
        outlier_share=traffic.outlier_share,
        mean_ood_percentile=traffic.mean_ood_percentile,
        classes=[
            qpb.ClassCount(class_id=class_id, label=label_of(class_id, labels), count=count, share=share)
            for class_id, count, share in traffic.classes
        ],
        labelled_count=traffic.labelled,
        right_count=traffic.right,
        right_share=traffic.right_share,
    )
