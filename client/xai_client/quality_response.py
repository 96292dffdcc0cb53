"""The server's answers about quality as the SDK's types."""

from __future__ import annotations

from collections.abc import Iterable

from xai_client.evaluator_info import evaluator_info, map_drift, quality_measure, standing
from xai_client.quality import (
    ClassMap,
    ClassQuality,
    ConfusionCell,
    ExplainerQuality,
    HistoryPoint,
    Quality,
    QualityAlert,
    QualityHistory,
    TrafficFigures,
)
from xai_client.response import auto_choice, time_of
from xai_client.sample_response import small_map
from xai_proto import quality_pb2 as qpb


def quality(message: qpb.Quality) -> Quality:
    """Decodes how good explanations are."""
    return Quality(
        evaluator=evaluator_info(message.evaluator),
        explainers={each.explainer: _explainer(each) for each in message.explainers},
        weights=dict(sorted(message.weights.items())),
        vetoes=tuple(message.vetoes),
        min_sample_count=message.min_sample_count,
        auto_explainer=message.auto_explainer,
        auto_choice=auto_choice(message.auto_choice) if message.HasField("auto_choice") else None,
        confusion=tuple(
            ConfusionCell(
                each.true_class_id, each.true_label, each.predicted_class_id, each.predicted_label, each.count
            )
            for each in message.confusion
        ),
        outlier_percentile=message.outlier_percentile,
        outlier_share=message.outlier_share if message.HasField("outlier_share") else None,
        alerts=tuple(QualityAlert(each.name, each.summary, each.advice) for each in message.alerts),
        confusion_truncated=message.confusion_truncated,
    )


def quality_history(message: qpb.QualityHistory) -> QualityHistory:
    """Decodes how things have changed."""
    return QualityHistory(
        start=time_of(message.start_time),
        bin_seconds=message.bin_duration.ToTimedelta().total_seconds(),
        bin_count=message.bin_count,
        scores={(each.explainer, each.metric): _points(each.points) for each in message.scores},
        shapes={(each.explainer, each.statistic): _points(each.points) for each in message.shapes},
        traffic=tuple(map(_traffic, message.traffic)),
        current=_traffic(message.current),
        reference=_traffic(message.reference) if message.HasField("reference") else None,
        reference_scores={
            (each.explainer, each.metric): _points(each.points)[0] for each in message.reference_scores if each.points
        },
        reference_shapes={
            (each.explainer, each.statistic): _points(each.points)[0]
            for each in message.reference_shapes
            if each.points
        },
        sample_count=message.sample_count,
        truncated=message.truncated,
        reference_truncated=message.reference_truncated,
    )


def class_maps(message: qpb.GetClassMapsResponse) -> list[ClassMap]:
    """Decodes mean maps.

    Raises:
        ResponseError: One contradicts the contract.
    """
    return [
        ClassMap(each.class_id, each.label, each.explainer, each.sample_count, small_map(each.map))
        for each in message.maps
    ]


def _explainer(message: qpb.ExplainerQuality) -> ExplainerQuality:
    return ExplainerQuality(
        explainer=message.explainer,
        is_control=message.is_control,
        quality={each.metric: quality_measure(each) for each in message.quality},
        composite_score=message.composite_score if message.HasField("composite_score") else None,
        standing=standing(message.standing) if message.HasField("standing") else None,
        classes=tuple(
            ClassQuality(each.class_id, each.label, quality_measure(each.measure)) for each in message.classes
        ),
        drift=tuple(map(map_drift, message.drift)),
    )


def _points(messages: Iterable[qpb.HistoryPoint]) -> tuple[HistoryPoint, ...]:
    return tuple(HistoryPoint(each.bin, each.sample_count, each.mean, each.confidence_half_width) for each in messages)


def _traffic(message: qpb.TrafficFigures) -> TrafficFigures:
    return TrafficFigures(
        bin=message.bin,
        sample_count=message.sample_count,
        mean_probability=message.mean_probability,
        probability_deciles=tuple(message.probability_deciles),
        ood_count=message.ood_count,
        outlier_share=message.outlier_share,
        mean_ood_percentile=message.mean_ood_percentile,
        classes={each.class_id: each.count for each in message.classes},
        labels={each.class_id: each.label for each in message.classes},
        labelled_count=message.labelled_count,
        right_count=message.right_count,
        right_share=message.right_share,
        shares={each.class_id: each.share for each in message.classes},
    )
