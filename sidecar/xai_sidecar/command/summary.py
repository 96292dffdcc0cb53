"""The summary of a model that `xai-sidecar check` prints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from xai_client.command.tables import pairs
from xai_sidecar.engine.backend import OodTraining
from xai_sidecar.engine.throttle import LONG_SHARE, is_long
from xai_sidecar.engine.work import Forward
from xai_sidecar.evaluator.costs import Costs
from xai_sidecar.evaluator.measurement import Measurer
from xai_sidecar.serving.evaluation import evaluated_model
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.model import ExplainerSetup, ServedModel, WeightDependence
from xai_sidecar.serving.plan import in_units


def summary(model: ServedModel, costs: ExplanationCosts, width: int | None = None) -> str:
    """A loaded model in a few lines: its properties, and what calls will cost.

    Args:
        model: The model.
        costs: Estimates what explanations take beyond their passes.
        width: Columns of the terminal; None for none.
    """
    return "\n".join(pairs(_rows(model, costs), width))


def _rows(model: ServedModel, costs: ExplanationCosts) -> Iterator[tuple[str, str]]:
    backend, spec = model.backend, model.input
    yield "model", f"{model.config.model.name}, version {model.version}"
    yield "runs on", f"{backend.device}, forward passes by {backend.engine}"
    if backend.engine_note:
        yield "", backend.engine_note
    if model.weights:
        yield "weights", model.weights
    yield "input", f"{spec.channels} x {spec.height} x {spec.width}, {spec.interpolation} interpolation"
    yield "classes", f"{len(model.labels)} ({model.labels[0]}, …, {model.labels[-1]}), {model.config.model.activation}"
    batches = sorted(backend.costs(Forward.kind).items())
    yield "prediction", ", ".join(f"{1e3 * seconds:.1f} ms for {size}" for size, seconds in batches)
    yield "slice", _slice(model)
    for name, setup in model.explainers.items():
        yield name, _explainer(setup, model, costs)
        if name in model.weight_dependence:
            yield "", _weights(model.weight_dependence[name])
    yield "OoD net", _ood(backend.ood)
    yield "evaluator", _evaluator(model)
    yield from _warnings(model.warnings)
    layers = list(model.facts.layers)
    keys = [f"explainers.{name}.layer" for name, setup in model.explainers.items() if setup.explainer.takes_layer]
    yield "layers", f"{len(layers)} that {', '.join(keys)} and layers may name: {_shown(layers)}"


def _warnings(warnings: Sequence[str]) -> Iterator[tuple[str, str]]:
    for index, warning in enumerate(warnings):
        yield "" if index else "warnings", warning


def _slice(model: ServedModel) -> str:
    """How long predictions wait for explanations."""
    milliseconds = model.config.server.slice_milliseconds
    longer = []
    for name, setup in model.explainers.items():
        row = max((1e3 * model.seconds(kind, 1) for kind in setup.kinds), default=0.0)
        if row > milliseconds:
            longer.append(f"{name} {row:.0f} ms")
    return f"{milliseconds:g} ms" + (f"; a single row takes longer of {', '.join(longer)}" if longer else "")


def _explainer(setup: ExplainerSetup, model: ServedModel, costs: ExplanationCosts) -> str:
    if setup.unavailable:
        return f"not available: {setup.unavailable}"
    layer = setup.explainer.kind(setup.defaults).layer
    where = f" at layer {layer}" if layer else ""
    seconds = model.expected_seconds(setup) * costs.ratio(setup.explainer.name)
    precision = model.default_kind(setup).precision
    how = f", in {precision} where that does for the picture" if precision else ""
    return f"{1e3 * seconds:.1f} ms for one target{where}{how}"


def _weights(found: WeightDependence) -> str:
    """What becomes of the map when the weights are in disorder."""
    rise, alike = f"{found.entropy_rise:+.0%}".replace("-", "−"), f"{found.correlation:.2f}".replace("-", "−")
    return f"with the weights in disorder, entropy of the map {rise}, correlation with it {alike}"


def _ood(ood: OodTraining | None) -> str:
    if ood is None:
        return "none; train one with xai-sidecar train-ood"
    auroc = ", ".join(f"{value:.3f} against {kind}" for kind, value in ood.auroc.items())
    return f"trained on {ood.sample_count:,} pictures; AUROC {auroc}"


def _evaluator(model: ServedModel) -> str:
    """The share of requests that is sampled, and the device time of measuring one."""
    settings = model.config.evaluator
    if not settings.enabled:
        return "off; set evaluator.sample_rate to measure how good explanations are"
    evaluated = evaluated_model(model)
    measurer = Measurer(evaluated, settings)
    rows = Costs(measurer, evaluated, settings).rows()
    costs = [(model.seconds(kind, math.ceil(count)), model.seconds(kind, 1)) for kind, count in rows]
    total = sum(seconds for seconds, _ in costs)
    prediction = model.seconds(Forward.kind, 1)
    rare = sum(seconds for seconds, row in costs if is_long(row, settings.slice_milliseconds / 1e3, prediction))
    quiet = settings.device_share / total if total else 0.0
    busy = min(quiet, LONG_SHARE / rare) if rare else quiet
    text = (
        f"samples {100 * settings.sample_rate:g} % of the requests; one takes {in_units(total)} of the device, so that "
        f"{3600 * quiet:,.0f} an hour can be measured in quiet, {3600 * busy:,.0f} while calls come"
    )
    costly = measurer.too_costly()
    return text + (f". Not measured, for evaluator.max_passes: {', '.join(costly)}" if costly else "")


def _shown(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 8 else [*names[:3], "…", *names[-4:]])
