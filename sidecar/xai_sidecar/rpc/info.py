"""The description of the model, as the contract has it."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from xai_proto import explanation_pb2 as pb
from xai_sidecar import __version__
from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.engine.work import Forward
from xai_sidecar.evaluator.choice import QualityRow
from xai_sidecar.evaluator.confusion import Accuracy
from xai_sidecar.evaluator.quality import QualitySummary
from xai_sidecar.explainers.base import Explainer
from xai_sidecar.explainers.discovery import value_schema
from xai_sidecar.metrics.base import Metric
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.rpc.encode import value_message
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.model import ExplainerSetup, ServedModel

_STUDENT_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Standard errors to either side of a mean that hold 95 % of Student's distribution, of 1 degree of freedom on."""

_FEW = 20


def model_info(
    model: ServedModel, ready_seconds: float, standing: QualitySummary, costs: ExplanationCosts | None = None
) -> pb.ModelInfo:
    """The description of the model.

    Args:
        model: The model.
        ready_seconds: When the server became ready, as Unix time.
        standing: How good its explanations are.
        costs: Knows what explanations take now; without, the times measured at start are told.
    """
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
        explainers=[_explainer_info(offered, model, standing, costs) for offered in model.explainers.values()],
        limits=pb.Limits(
            max_image_count=config.server.max_images,
            max_pixel_count=config.server.max_pixels,
            max_message_bytes=config.server.max_message_bytes,
            max_explanation_count=config.server.max_explanations,
            max_target_count=config.server.max_targets,
            max_pass_count=config.server.max_passes,
        ),
        server_version=__version__,
        layers=_layers(model),
        weights=model.weights,
    )
    if backend.ood is not None:
        info.ood.training_sample_count = backend.ood.sample_count
        info.ood.training_time.FromNanoseconds(round(backend.ood.time * 1e9))
        info.ood.auroc.update(backend.ood.auroc)
    info.limits.max_call_duration.FromNanoseconds(round(config.server.max_call_seconds * 1e9))
    info.ready_time.FromNanoseconds(round(ready_seconds * 1e9))
    for size, seconds in sorted(backend.costs(Forward.kind).items()):
        info.batches.add(batch_size=size).duration.FromNanoseconds(round(seconds * 1e9))
    if config.evaluator.enabled:
        info.evaluator.CopyFrom(_evaluator_info(config.evaluator, standing))
        if standing.accuracy is not None:
            info.evaluator.accuracy.CopyFrom(_accuracy(standing.accuracy, model.labels))
    return info


def _layers(model: ServedModel) -> list[pb.LayerInfo]:
    offered = next(each for each in model.explainers.values() if each.explainer.takes_layer)
    compiled = {kind.layer for kind in offered.kinds}
    on_demand = offered.on_demand and not offered.unavailable
    default = "" if offered.unavailable else offered.explainer.kind(offered.defaults).layer
    return [
        pb.LayerInfo(
            name=layer.name,
            channels=layer.channels,
            height=layer.height,
            width=layer.width,
            available=layer.name in compiled or on_demand,
            compiled=layer.name in compiled,
            is_default=layer.name == default,
        )
        for layer in model.facts.layers.values()
    ]


def _evaluator_info(settings: EvaluatorConfig, standing: QualitySummary) -> pb.EvaluatorInfo:
    info = pb.EvaluatorInfo(
        sample_rate=settings.sample_rate,
        state=f"EVALUATOR_STATE_{standing.state.name}",
        window_sample_count=standing.sample_count,
        note=standing.note,
        metrics=[_metric_info(installed_metrics()[name]) for name in settings.metrics],
    )
    info.window.FromNanoseconds(round(settings.window_seconds * 1e9))
    if standing.last_sample is not None:
        info.last_sample_time.FromNanoseconds(round(standing.last_sample * 1e9))
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


def _accuracy(accuracy: Accuracy, labels: Sequence[str]) -> pb.Accuracy:
    return pb.Accuracy(
        picture_count=accuracy.picture_count,
        share=accuracy.share,
        classes=[
            pb.ClassConfusion(
                class_id=class_id,
                label=labels[class_id],
                true_positives=counts.tp,
                false_positives=counts.fp,
                false_negatives=counts.fn,
                true_negatives=counts.tn,
            )
            for class_id, counts in accuracy.classes
        ],
    )


def confidence_half_width(standard_error: float | None, count: int) -> float:
    """Half the width of the 95 % confidence interval of a mean; NaN where so few samples tell nothing of it.

    Student's t; beyond the table by its expansion, Abramowitz and Stegun 26.7.5, to 0.1 %.
    """
    if standard_error is None or (standard_error == 0 and count < _FEW):
        return math.nan
    degrees = count - 1
    if degrees <= len(_STUDENT_95):
        return _STUDENT_95[degrees - 1] * standard_error
    z = 1.959964
    return (z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)) * standard_error


def _quality(row: QualityRow) -> pb.QualityMeasure:
    estimate = row.estimate
    measure = pb.QualityMeasure(
        metric=row.metric,
        mean=estimate.mean,
        confidence_half_width=confidence_half_width(estimate.standard_error, estimate.count),
        sample_count=estimate.count,
        higher_is_better=row.higher_is_better,
        goodness=row.goodness,
    )
    measure.update_time.FromNanoseconds(round(estimate.updated * 1e9))
    return measure


@functools.cache
def _schemas(explainer: Explainer[Any]) -> Mapping[str, Any]:
    """The JSON schemas of parameters by name. They take milliseconds to make, and are always the same."""
    schemas: Mapping[str, Any] = explainer.parameters_type.model_json_schema()["properties"]
    return schemas


def _explainer_info(
    offered: ExplainerSetup, model: ServedModel, standing: QualitySummary, costs: ExplanationCosts | None
) -> pb.ExplainerInfo:
    explainer = offered.explainer
    info = pb.ExplainerInfo(
        name=explainer.name,
        description=explainer.description,
        available=not offered.unavailable,
        unavailable_reason=offered.unavailable,
    )
    schemas = _schemas(explainer)
    for name, default in offered.defaults.model_dump().items():
        info.parameters.append(_parameter_info(name, schemas[name], default, model, offered))
    if not offered.unavailable:
        passes = explainer.pass_counts(1, offered.defaults, model.facts).most
        now = idle = model.expected_seconds(offered)
        if costs is not None:
            idle *= costs.ratio(explainer.name)
            now = costs.seconds(explainer.name, explainer.kind(offered.defaults), passes)
        info.cost.pass_count = passes
        info.cost.duration.FromNanoseconds(round(now * 1e9))
        info.cost.idle_duration.FromNanoseconds(round(idle * 1e9))
    info.quality.extend(_quality(row) for row in standing.table.rows if row.explainer == explainer.name)
    composite = standing.composites.get(explainer.name)
    if composite is not None:
        info.composite_score = composite
    return info


_TYPES = {
    "integer": pb.PARAMETER_TYPE_INTEGER,
    "number": pb.PARAMETER_TYPE_NUMBER,
    "string": pb.PARAMETER_TYPE_STRING,
    "boolean": pb.PARAMETER_TYPE_BOOLEAN,
}


def _parameter_info(
    name: str, schema: Mapping[str, Any], default: Any, model: ServedModel, offered: ExplainerSetup
) -> pb.ParameterInfo:
    description = schema["description"]
    schema = value_schema(schema)
    largest = offered.explainer.largest(model.facts).get(name)
    info = pb.ParameterInfo(
        name=name,
        description=description,
        type=_TYPES[schema["type"]],
        default_value=None if default is None else value_message(default),
        minimum=schema.get("minimum"),
        maximum=min((limit for limit in (schema.get("maximum"), largest) if limit is not None), default=None),
        choices=schema.get("enum", []),
    )
    if name == "layer" and offered.explainer.takes_layer:
        ready = [kind.layer for kind in offered.kinds]
        info.choices.extend(model.facts.layers if offered.on_demand else ready)
    return info
