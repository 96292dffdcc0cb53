"""The description of the model, as the contract has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xai_proto import explanation_pb2 as pb
from xai_sidecar import __version__
from xai_sidecar.evaluator.comparison import Verdict
from xai_sidecar.evaluator.confusion import Accuracy
from xai_sidecar.metrics.base import Metric
from xai_sidecar.rpc.encode import advantage_message, value_message
from xai_sidecar.serving.description import (
    ControlDescription,
    ExplainerDescription,
    LayerDescription,
    ModelDescription,
    ParameterDescription,
    QualityDescription,
)
from xai_sidecar.telemetry import DriftFigure

_TYPES = {
    "integer": pb.PARAMETER_TYPE_INTEGER,
    "number": pb.PARAMETER_TYPE_NUMBER,
    "string": pb.PARAMETER_TYPE_STRING,
    "boolean": pb.PARAMETER_TYPE_BOOLEAN,
}


def model_info(description: ModelDescription) -> pb.ModelInfo:
    """The contract's description of the model."""
    model = description.model
    config, backend, spec = model.config, model.backend, model.input
    info = pb.ModelInfo(
        name=config.model.name,
        version=model.version,
        class_count=len(model.labels),
        labels=model.labels,
        activation=f"ACTIVATION_{config.model.activation.upper()}",
        input=pb.InputInfo(
            channels=spec.channels,
            height=spec.height,
            width=spec.width,
            resize_height=spec.resize_height,
            resize_width=spec.resize_width,
            stretch=spec.stretch,
            letterbox=spec.letterbox,
            interpolation=spec.interpolation,
            mean=spec.mean,
            std=spec.std,
            mean_colour=spec.mean_colour,
        ),
        device=backend.device,
        engine=backend.engine,
        engine_note=backend.engine_note,
        explainers=[_explainer_info(one) for one in description.explainers],
        limits=pb.Limits(
            max_image_count=config.server.max_images,
            max_pixel_count=config.server.max_pixels,
            max_message_bytes=config.server.max_message_bytes,
            max_explanation_count=config.server.max_explanations,
            max_target_count=config.server.max_targets,
            max_pass_count=config.server.max_passes,
        ),
        server_version=__version__,
        layers=[_layer(one) for one in description.layers],
        weights=model.weights,
    )
    if backend.ood is not None:
        info.ood.training_sample_count = backend.ood.sample_count
        info.ood.training_time.FromNanoseconds(round(backend.ood.time * 1e9))
        info.ood.auroc.update(backend.ood.auroc)
    info.limits.max_call_duration.FromNanoseconds(round(config.server.max_call_seconds * 1e9))
    info.ready_time.FromNanoseconds(round(description.ready_seconds * 1e9))
    for size, seconds in description.batches.items():
        info.batches.add(batch_size=size).duration.FromNanoseconds(round(seconds * 1e9))
    if config.evaluator.enabled:
        info.evaluator.CopyFrom(evaluator_message(description))
    return info


def _layer(one: LayerDescription) -> pb.LayerInfo:
    return pb.LayerInfo(
        name=one.layer.name,
        channels=one.layer.channels,
        height=one.layer.height,
        width=one.layer.width,
        available=one.available,
        compiled=one.compiled,
        is_default=one.is_default,
    )


def evaluator_message(description: ModelDescription) -> pb.EvaluatorInfo:
    """What measures, and what it has measured but for the explainers."""
    settings, summary = description.model.config.evaluator, description.quality
    info = pb.EvaluatorInfo(
        sample_rate=settings.sample_rate,
        state=f"EVALUATOR_STATE_{summary.state.name}",
        window_sample_count=summary.sample_count,
        note=summary.note,
        metrics=[_metric_info(one) for one in description.metrics],
        controls=[_control_info(one) for one in description.controls],
    )
    info.window.FromNanoseconds(round(settings.window_seconds * 1e9))
    if summary.last_sample is not None:
        info.last_sample_time.FromNanoseconds(round(summary.last_sample * 1e9))
    if summary.accuracy is not None:
        info.accuracy.CopyFrom(_accuracy(summary.accuracy, description.model.labels))
    return info


def _metric_info(metric: Metric[Any]) -> pb.MetricInfo:
    low, high = metric.value_range
    return pb.MetricInfo(
        name=metric.name,
        description=metric.description,
        higher_is_better=metric.higher_is_better,
        minimum=low,
        maximum=high,
    )


def _control_info(one: ControlDescription) -> pb.ControlInfo:
    quality = [measure_message(each) for each in one.quality]
    return pb.ControlInfo(name=one.name, description=one.description, quality=quality, composite_score=one.composite)


def _accuracy(accuracy: Accuracy, labels: Sequence[str]) -> pb.Accuracy:
    return pb.Accuracy(
        picture_count=accuracy.picture_count,
        share=accuracy.share,
        classes=[
            pb.ClassConfusion(
                class_id=class_id,
                label=labels[class_id],
                true_positives=int(counts.tp),
                false_positives=int(counts.fp),
                false_negatives=int(counts.fn),
                true_negatives=int(counts.tn),
                precision=weighted.precision,
                recall=weighted.recall,
            )
            for (class_id, counts), weighted in zip(accuracy.classes, accuracy.weighted, strict=True)
        ],
    )


def measure_message(one: QualityDescription) -> pb.QualityMeasure:
    """How good maps are by a metric."""
    row, statistics = one.row, one.row.statistics
    measure = pb.QualityMeasure(
        metric=row.metric,
        mean=statistics.mean,
        confidence_half_width=one.half_width,
        sample_count=statistics.count,
        higher_is_better=row.higher_is_better,
        goodness=row.goodness,
    )
    measure.update_time.FromNanoseconds(round(statistics.updated * 1e9))
    if one.interval is not None:
        measure.interval_low, measure.interval_high = one.interval.low, one.interval.high
    if row.skill is not None:
        measure.skill.control, measure.skill.value = row.skill.control, row.skill.value
        measure.skill.confidence_half_width = row.skill.half_width
    return measure


def _explainer_info(one: ExplainerDescription) -> pb.ExplainerInfo:
    info = pb.ExplainerInfo(
        name=one.name,
        description=one.description,
        available=not one.unavailable,
        unavailable_reason=one.unavailable,
        parameters=[_parameter_info(each) for each in one.parameters],
        quality=[measure_message(each) for each in one.quality],
        composite_score=one.composite,
        precision=one.precision,
    )
    if one.verdict is not None:
        info.standing.CopyFrom(standing_message(one.verdict))
    if one.weight_dependence is not None:
        info.weight_dependence.CopyFrom(pb.WeightDependence(**vars(one.weight_dependence)))
    info.drift.extend(map(drift_message, one.drift))
    if one.cost is not None:
        info.cost.pass_count = one.cost.pass_count
        info.cost.duration.FromNanoseconds(round(one.cost.seconds * 1e9))
        info.cost.idle_duration.FromNanoseconds(round(one.cost.idle_seconds * 1e9))
    return info


def standing_message(verdict: Verdict) -> pb.Standing:
    """Whether `auto` may choose an explainer."""
    return pb.Standing(
        eligible=verdict.eligible, objection=verdict.objection, advantage=advantage_message(verdict.least)
    )


def drift_message(one: DriftFigure) -> pb.MapDrift:
    """How far a statistic of maps has moved."""
    return pb.MapDrift(
        statistic=one.statistic,
        source=one.source,
        class_label=one.class_name,
        reference_mean=one.reference,
        current_mean=one.current,
        ratio=one.ratio,
    )


def _parameter_info(one: ParameterDescription) -> pb.ParameterInfo:
    return pb.ParameterInfo(
        name=one.name,
        description=one.description,
        type=_TYPES[one.type],
        default_value=None if one.default is None else value_message(one.default),
        minimum=one.minimum,
        maximum=one.maximum,
        choices=one.choices,
    )
