"""Describes the model for callers: its explainers with their parameters, costs and measured quality, and its layers."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xai_sidecar.engine.backend import Layer
from xai_sidecar.engine.work import Forward
from xai_sidecar.evaluator.comparison import Verdict
from xai_sidecar.evaluator.intervals import Interval, confidence_half_width, interval
from xai_sidecar.evaluator.live_quality import QualitySummary
from xai_sidecar.evaluator.quality_table import QualityRow
from xai_sidecar.explainers.base import FLOAT32, Explainer
from xai_sidecar.explainers.discovery import value_schema
from xai_sidecar.metrics.base import Metric
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.model import ExplainerSetup, ServedModel, WeightDependence
from xai_sidecar.telemetry import DriftFigure


@dataclass(frozen=True)
class ParameterDescription:
    """A parameter of an explainer.

    Attributes:
        name: To set it by.
        description: What it does, with its unit.
        type: "integer", "number", "string" or "boolean".
        default: Its value where a request does not set it; None where it then follows from others.
        minimum: The smallest value allowed; None where there is none.
        maximum: The largest value allowed with this model; None where there is none.
        choices: The values allowed, of a string from a fixed set.
    """

    name: str
    description: str
    type: str
    default: Any
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]


@dataclass(frozen=True)
class CostDescription:
    """What an explanation of one target takes with the defaults.

    Attributes:
        pass_count: Rows that go through the model.
        seconds: Beside the explanations that run now.
        idle_seconds: On an idle device.
    """

    pass_count: int
    seconds: float
    idle_seconds: float


@dataclass(frozen=True)
class QualityDescription:
    """How good an explainer's maps are by one metric.

    Attributes:
        row: The mean score and what it rests on.
        half_width: Half the width of the mean's 95 % confidence interval by Student's t; NaN where the samples are too
            few to tell.
        interval: That interval as far as it lies in the metric's range, or Wilson's of a share; None where the samples
            are too few to tell.
    """

    row: QualityRow
    half_width: float
    interval: Interval | None


@dataclass(frozen=True)
class ExplainerDescription:
    """An explainer with this model and config.

    Attributes:
        name: To ask for it by.
        description: What it does, in a sentence, with its source.
        unavailable: Why it cannot be used; empty if it can.
        parameters: Its parameters.
        cost: What it takes; None where it cannot be used.
        quality: By each metric that has measured it.
        composite: How good its maps are by the metrics that `auto` goes by, 0 to 1; None until known.
        precision: What most of its passes are computed in with the defaults, where that is good enough.
        verdict: Whether `auto` may choose it; None until it has been compared with the controls.
        weight_dependence: How far its maps depend on the weights; None where that was not tried.
        drift: How far its maps have moved from those that the server made first, by statistic.
    """

    name: str
    description: str
    unavailable: str
    parameters: tuple[ParameterDescription, ...]
    cost: CostDescription | None
    quality: tuple[QualityDescription, ...]
    composite: float | None
    precision: str
    verdict: Verdict | None = None
    weight_dependence: WeightDependence | None = None
    drift: tuple[DriftFigure, ...] = ()


@dataclass(frozen=True)
class ControlDescription:
    """A control: a map that knows nothing of the model.

    Attributes:
        name: What it is called.
        description: What it is, in a sentence.
        quality: As of `ExplainerDescription`.
        composite: Likewise.
    """

    name: str
    description: str
    quality: tuple[QualityDescription, ...]
    composite: float | None


@dataclass(frozen=True)
class LayerDescription:
    """A layer that explainers of a layer can explain.

    Attributes:
        layer: Its name and shape.
        available: Whether a request may name it.
        compiled: Whether it was compiled at start.
        is_default: Whether one of them explains it where a request names none.
    """

    layer: Layer
    available: bool
    compiled: bool
    is_default: bool


@dataclass(frozen=True)
class ModelDescription:
    """What is served, and how.

    Attributes:
        model: The model, with its config, input and labels.
        ready_seconds: When the server became ready, as Unix time.
        explainers: All explainers, in the order to list them in.
        layers: The layers that explainers of a layer can explain, in the order in which they run.
        batches: Seconds of a batch of each compiled size, ascending.
        quality: How good explanations and predictions have been.
        metrics: What explanations are measured by, in the order to list it in.
        controls: What is measured beside the explainers.
    """

    model: ServedModel
    ready_seconds: float
    explainers: tuple[ExplainerDescription, ...]
    layers: tuple[LayerDescription, ...]
    batches: Mapping[int, float]
    quality: QualitySummary
    metrics: tuple[Metric[Any], ...]
    controls: tuple[ControlDescription, ...] = ()


def describe(
    model: ServedModel,
    ready_seconds: float,
    quality: QualitySummary,
    costs: ExplanationCosts | None = None,
    drift: Sequence[DriftFigure] = (),
) -> ModelDescription:
    """Describes a model.

    Args:
        model: The model.
        ready_seconds: When the server became ready, as Unix time.
        quality: How good its explanations are.
        costs: Estimates what explanations take now; without, the times are those of passes as measured at start.
        drift: How far maps have moved, of all explainers.
    """
    return ModelDescription(
        model=model,
        ready_seconds=ready_seconds,
        explainers=tuple(_explainer(setup, model, quality, costs, drift) for setup in model.explainers.values()),
        layers=_layers(model),
        batches=dict(sorted(model.backend.costs(Forward.kind).items())),
        quality=quality,
        metrics=tuple(installed_metrics()[name] for name in model.config.evaluator.metrics),
        controls=tuple(
            ControlDescription(name, text, _measured(name, quality), quality.composites.get(name))
            for name, text in quality.controls.items()
        ),
    )


def _measured(name: str, quality: QualitySummary) -> tuple[QualityDescription, ...]:
    """The scores of an explainer or a control, with their uncertainty."""
    return tuple(described(row) for row in quality.table.rows if row.explainer == name)


def described(row: QualityRow) -> QualityDescription:
    """A row of scores with its uncertainty."""
    statistics = row.statistics
    half_width = confidence_half_width(statistics.standard_error, statistics.effective_count)
    return QualityDescription(row, half_width, interval(installed_metrics()[row.metric], statistics))


def _layers(model: ServedModel) -> tuple[LayerDescription, ...]:
    setups = [one for one in model.explainers.values() if one.explainer.takes_layer and not one.unavailable]
    compiled = {kind.layer for setup in setups for kind in setup.kinds}
    on_demand = any(setup.on_demand for setup in setups)
    defaults = {setup.explainer.kind(setup.defaults).layer for setup in setups}
    return tuple(
        LayerDescription(layer, layer.name in compiled or on_demand, layer.name in compiled, layer.name in defaults)
        for layer in model.facts.layers.values()
    )


def _explainer(
    setup: ExplainerSetup,
    model: ServedModel,
    quality: QualitySummary,
    costs: ExplanationCosts | None,
    drift: Sequence[DriftFigure],
) -> ExplainerDescription:
    explainer = setup.explainer
    schemas = _schemas(explainer)
    return ExplainerDescription(
        name=explainer.name,
        description=explainer.description,
        unavailable=setup.unavailable,
        parameters=tuple(
            _parameter(name, schemas[name], default, model, setup)
            for name, default in setup.defaults.model_dump().items()
        ),
        cost=None if setup.unavailable else _cost(setup, model, costs),
        quality=_measured(explainer.name, quality),
        composite=quality.composites.get(explainer.name),
        verdict=quality.verdicts.get(explainer.name),
        precision="" if setup.unavailable else model.default_kind(setup).precision or FLOAT32,
        weight_dependence=model.weight_dependence.get(explainer.name),
        drift=tuple(each for each in drift if each.explainer == explainer.name),
    )


def _cost(setup: ExplainerSetup, model: ServedModel, costs: ExplanationCosts | None) -> CostDescription:
    explainer = setup.explainer
    passes = explainer.pass_counts(1, setup.defaults, model.facts).most
    idle = model.expected_seconds(setup)
    if costs is None:
        return CostDescription(passes, idle, idle)
    now = costs.seconds(explainer.name, model.default_kind(setup), passes)
    return CostDescription(passes, now, idle * costs.ratio(explainer.name))


@functools.cache
def _schemas(explainer: Explainer[Any]) -> Mapping[str, Any]:
    """The JSON schemas of parameters by name. They take milliseconds to make, and are always the same."""
    schemas: Mapping[str, Any] = explainer.parameters_type.model_json_schema()["properties"]
    return schemas


def _parameter(
    name: str, schema: Mapping[str, Any], default: Any, model: ServedModel, setup: ExplainerSetup
) -> ParameterDescription:
    value = value_schema(schema)
    largest = setup.explainer.largest(model.facts).get(name)
    limits = [limit for limit in (value.get("maximum"), largest) if limit is not None]
    return ParameterDescription(
        name=name,
        description=schema["description"],
        type=value["type"],
        default=default,
        minimum=value.get("minimum"),
        maximum=min(limits, default=None),
        choices=_choices(name, value, model, setup),
    )


def _choices(name: str, schema: Mapping[str, Any], model: ServedModel, setup: ExplainerSetup) -> tuple[str, ...]:
    if name != "layer" or not setup.explainer.takes_layer:
        return tuple(schema.get("enum", ()))
    return tuple(model.facts.layers) if setup.on_demand else tuple(kind.layer for kind in setup.kinds)
