"""Predictions and model descriptions as text for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from xai_client.command.quality_table import accuracy_lines, drift_lines, evaluator_rows, quality_lines
from xai_client.command.tables import pairs, table
from xai_client.errors import MapWithheldError
from xai_client.evaluator_info import QualityMeasure
from xai_client.model_info import (
    ExplainerInfo,
    ExplanationCost,
    InputInfo,
    LayerInfo,
    ModelInfo,
    OodInfo,
    ParameterInfo,
)
from xai_client.types import AutoChoice, Event, Explained, Explanation, Predicted, Prediction, Progress, SaliencyMap

Written: TypeAlias = dict[tuple[str, int], Path]
"""Where the overlays went, by explanation name and class id."""

_SHOWN_CHOICES = 6
_WIDTH = 118


def prediction_text(
    prediction: Prediction,
    image: Path,
    written: Written,
    arrays: Written | None = None,
    options: str = "",
    width: int | None = None,
) -> str:
    """The classes as a table, then the explanations with where each overlay went, and the array of its map.

    Args:
        prediction: What to describe.
        image: The picture.
        written: Where the overlays went.
        arrays: Where the maps went as arrays.
        options: What further commands need to reach the same server, with a space before it.
        width: Columns of the terminal; None for none.
    """
    size = prediction.picture_size
    lines = [
        f"{image}  {size.width} x {size.height}" if size else str(image),
        f"model {prediction.model_version}  request {prediction.request_id}",
    ]
    if prediction.sampled:
        command = f"xai-client feedback {prediction.request_id} --label LABEL{options}"
        lines.append(f"sampled  tell what it really shows with: {command}")
    if prediction.ood_score is not None:
        lines.append(f"ood score {prediction.ood_score:.4g}, percentile {prediction.ood_percentile:.1f}")
    classes = [
        (str(each.class_id), f"{each.probability:.2%}", f"{each.logit:.3f}", each.label) for each in prediction.classes
    ]
    lines += table(("class", "probability", "logit", "label"), classes, right=range(3), width=width)
    if prediction.explanations:
        rows = [row for each in prediction.explanations.values() for row in _explanation_rows(each, written)]
        header = ("explanation", "status", "target", "passes", "std. error", "overlay")
        lines += ["", *table(header, rows, width=width)]
        for each in prediction.explanations.values():
            lines += _explanation_notes(each, arrays or {})
        lines += [_choice(each, each.choice) for each in prediction.explanations.values() if each.choice]
    return "\n".join([*lines, ""])


def _choice(explanation: Explanation, choice: AutoChoice) -> str:
    composite = "" if choice.composite_score is None else f" (composite {choice.composite_score:.3f})"
    return f"{explanation.name}: chose {explanation.explainer}{composite}: {choice.reason}"


def _explanation_notes(explanation: Explanation, arrays: Written) -> Iterable[str]:
    """What does not fit into the table: why it ended as it did, what its maps' statuses mean, where the arrays went."""
    if explanation.maps and explanation.status_message:
        yield f"{explanation.name}: {explanation.status_message}"
    for each in explanation.maps:
        if note := _map_note(each):
            yield f"{explanation.name}: {note}"
    for each in explanation.maps:
        if path := arrays.get((explanation.name, each.class_id)):
            yield f"{explanation.name}: the map of class {each.class_id} ({each.label}) as an array: {path}"


def _map_note(one: SaliencyMap) -> str:
    """What a map's status means, where it is not plain."""
    if one.warning:
        return f"warning: {one.warning}"
    try:
        one.saliency  # noqa: B018
    except MapWithheldError as error:
        return error.message
    if one.status == "all_zero":
        return f"the map of class {one.class_id} ({one.label}) is 0 everywhere: nothing in the picture matters to it"
    return ""


def prediction_json(
    prediction: Prediction,
    image: Path,
    written: Written,
    arrays: Written | None = None,
    values: bool = False,
    panel: Path | None = None,
) -> str:
    """The same as one line of JSON; the maps themselves are in it where `values` are asked for."""
    explanations = [_explanation_json(each, written, arrays, values) for each in prediction.explanations.values()]
    document = {"image": str(image), **_prediction_json(prediction), "explanations": explanations}
    return json.dumps(document if panel is None else {**document, "panel": str(panel)})


def measure_text(measure: QualityMeasure) -> str:
    """What a metric has measured, in a line that fits below a picture."""
    half = measure.confidence_half_width
    spread = f" ± {half:.2f}" if math.isfinite(half) else ""
    skill = f", skill {measure.skill.value:+.0%}" if measure.skill else ""
    name = measure.metric.rpartition("/")[2].replace("_", " ")
    return f"{name} {measure.mean:.2f}{spread}{skill}"


def event_json(event: Event, image: Path, written: Written, arrays: Written | None = None, values: bool = False) -> str:
    """One event of a stream as one line of JSON; its `event` is "predicted", "progress", "explained" or "finished"."""
    document: dict[str, Any] = {
        "event": type(event).__name__.lower(),
        "image": str(image),
        "request_id": event.request_id,
    }
    if isinstance(event, Predicted):
        document |= _prediction_json(event.prediction)
    elif isinstance(event, Progress):
        document |= {
            "name": event.name,
            "passes": event.passes,
            "planned_passes": event.planned_passes,
            "standard_error": event.standard_error,
            "remaining_seconds": event.remaining,
        }
    elif isinstance(event, Explained):
        document |= {"final": event.final, **_explanation_json(event.explanation, written, arrays, values)}
    return json.dumps(document)


def _fit_text(entry: InputInfo) -> str:
    """How pictures become inputs."""
    if entry.letterbox:
        return f"scaled to fit ({entry.interpolation}), the rest filled with the mean colour"
    fit = "stretched to" if entry.stretch else "scaled to cover"
    size = f"{entry.resize_height} x {entry.resize_width}"
    return f"{fit} {size} ({entry.interpolation}), then cropped at the centre"


def _colour(channels: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in channels)


def info_text(info: ModelInfo, width: int | None = None) -> str:
    """The model, its input and limits, how good explanations are, then every explainer with its parameters.

    Args:
        info: What to describe.
        width: Columns of the terminal; None for none.
    """
    lines = pairs([*_model_rows(info), *evaluator_rows(info)], width)
    for part in (accuracy_lines(info, width), quality_lines(info, width), drift_lines(info, width)):
        lines += ["", *part] if part else []
    for explainer in info.explainers.values():
        lines += ["", *_explainer_lines(explainer, width)]
    lines += ["", *_layer_lines(info.layers, width)] if info.layers else []
    return "\n".join(lines)


def _model_rows(info: ModelInfo) -> Iterable[tuple[str, str]]:
    entry, limits = info.input, info.limits
    yield "model", f"{info.name}  version {info.version}"
    yield "runs on", f"{info.device} with {info.engine}, xai-sidecar {info.server_version}"
    if info.engine_note:
        yield "", info.engine_note
    if info.weights:
        yield "weights", info.weights
    if info.roles is not None:
        yield "you may", ", ".join(info.roles)
    yield "classes", f"{info.class_count}, {info.activation}"
    yield "input", f"{entry.channels} x {entry.height} x {entry.width}, pictures {_fit_text(entry)}"
    if entry.mean_colour:
        yield "", f"covered with the mean colour {_colour(entry.mean_colour)}"
    yield "ood", _ood(info.ood)
    yield (
        "limits",
        f"{limits.max_image_count} pictures, {limits.max_explanation_count} explanations, {limits.max_target_count}"
        f" targets of each; {limits.max_pixel_count} pixels a picture, {limits.max_message_bytes} bytes a message",
    )
    if limits.max_pass_count:
        yield "", f"{limits.max_pass_count} passes a request"
    if limits.max_call_seconds:
        yield "", f"{limits.max_call_seconds:g} s a call"
    for each in info.batches:
        yield "batch", f"{each.batch_size} in {each.seconds * 1000:.1f} ms"


def _ood(ood: OodInfo | None) -> str:
    if ood is None:
        return "none"
    auroc = ", ".join(f"{value:.3f} against {kind}" for kind, value in sorted(ood.auroc.items()))
    return f"trained on {ood.training_sample_count} pictures" + (f"; AUROC {auroc}" if auroc else "")


def info_json(info: ModelInfo) -> str:
    """The same as JSON; times in ISO 8601, null for numbers that are not known."""
    return json.dumps(_plain(dataclasses.asdict(info)), indent=2, default=lambda time: time.isoformat())


def _plain(value: Any) -> Any:
    """With None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _prediction_json(prediction: Prediction) -> dict[str, Any]:
    return {
        "request_id": prediction.request_id,
        "model_version": prediction.model_version,
        "sampled": prediction.sampled,
        "classes": [dataclasses.asdict(each) for each in prediction.classes],
        "ood_score": prediction.ood_score,
        "ood_percentile": prediction.ood_percentile,
        "region": prediction.region and prediction.region._asdict(),
        "picture_size": prediction.picture_size and prediction.picture_size._asdict(),
    }


def _explanation_rows(explanation: Explanation, written: Written) -> Iterable[Sequence[str]]:
    name, explainer, passes = explanation.name, explanation.explainer, str(explanation.passes)
    if name != explainer and not name.startswith(f"{explainer}-"):
        name = f"{name} ({explainer})"
    if not explanation.maps:
        none = "no class qualified as a target" if explanation.status == "complete" else "no map"
        yield name, explanation.status, "-", passes, "-", explanation.status_message or none
    for each in explanation.maps:
        status = explanation.status if each.status == "ok" else f"{explanation.status}, {each.status}"
        error = "-" if each.standard_error is None else f"{each.standard_error:.3g}"
        path = written.get((explanation.name, each.class_id))
        yield name, status, f"{each.class_id} {each.label}", passes, error, str(path) if path else "withheld"


def _explanation_json(
    explanation: Explanation, written: Written, arrays: Written | None, values: bool
) -> dict[str, Any]:
    return {
        "name": explanation.name,
        "explainer": explanation.explainer,
        "choice": explanation.choice and dataclasses.asdict(explanation.choice),
        "status": explanation.status,
        "status_message": explanation.status_message,
        "parameters": dict(explanation.parameters),
        "seed": explanation.seed,
        "passes": explanation.passes,
        "truncated": explanation.truncated,
        "elapsed_seconds": explanation.elapsed,
        "precision": explanation.precision,
        "maps": [_map_json(explanation.name, each, written, arrays, values) for each in explanation.maps],
    }


def _map_json(name: str, one: SaliencyMap, written: Written, arrays: Written | None, values: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "class_id": one.class_id,
        "label": one.label,
        "status": one.status,
        "standard_error": one.standard_error,
        "standard_error_bound": one.standard_error_bound,
        "precision_error": one.precision_error,
        "reliable": one.reliable,
        "warning": one.warning,
        "overlay": _path_json(written, (name, one.class_id)),
    }
    if arrays is not None:
        document["npy"] = _path_json(arrays, (name, one.class_id))
    if values:
        document["values"] = None if one.values is None else one.values.tolist()
    return document


def _path_json(files: Written, key: tuple[str, int]) -> str | None:
    return str(files[key]) if key in files else None


def _seconds(cost: ExplanationCost) -> str:
    if cost.idle_seconds is None:
        return f"{cost.seconds:.3g} s"
    return f"{cost.seconds:.3g} s now, {cost.idle_seconds:.3g} s on an idle device"


def _precision(explainer: ExplainerInfo) -> str:
    """What is said of passes that are not computed in float32."""
    if explainer.precision in ("", "float32"):
        return ""
    return f", in {explainer.precision} where that does for the picture"


def _explainer_lines(explainer: ExplainerInfo, width: int | None) -> list[str]:
    cost = explainer.cost
    price = f"  {cost.passes} pass{'es' * (cost.passes != 1)}, {_seconds(cost)}{_precision(explainer)}" if cost else ""
    lines = [f"{explainer.name}{price}", f"  {explainer.description}"]
    if explainer.weight_dependence:
        found = explainer.weight_dependence
        lines.append(
            f"  with the model's weights in disorder, entropy of the maps {found.entropy_rise:+.0%}, correlation with "
            f"them {found.correlation:.2f}"
        )
    if not explainer.available:
        lines.append(f"  not available: {explainer.unavailable_reason}")
    rows = [_parameter_row(each) for each in explainer.parameters.values()]
    lines += table(("parameter", "type", "range", "default", "meaning"), rows, indent=2, width=width) if rows else []
    for parameter in explainer.parameters.values():
        if len(parameter.choices) > _SHOWN_CHOICES:
            choices = f"{parameter.name}: {', '.join(parameter.choices)}"
            room = min(_WIDTH, width or _WIDTH)
            lines += textwrap.wrap(choices, room, initial_indent="  ", subsequent_indent="    ", break_long_words=False)
    return lines


def _layer_lines(layers: Iterable[LayerInfo], width: int | None) -> list[str]:
    """The layers that can be explained, and which of them requests may name."""
    rows = [(each.name, f"{each.channels} x {each.height} x {each.width}", _use(each)) for each in layers]
    return ["layers", *table(("layer", "output", "in requests"), rows, indent=2, width=width)]


def _use(layer: LayerInfo) -> str:
    if layer.is_default:
        return "the default"
    if not layer.available:
        return "not compiled"
    return "compiled" if layer.compiled else "compiled when asked for"


def _parameter_row(parameter: ParameterInfo) -> Sequence[str]:
    default = "-" if parameter.default in (None, "") else str(parameter.default)
    return parameter.name, parameter.type, _range(parameter), default, parameter.description


def _range(parameter: ParameterInfo) -> str:
    if len(parameter.choices) > _SHOWN_CHOICES:
        return f"{len(parameter.choices)} choices, below"
    if parameter.choices:
        return ", ".join(parameter.choices)
    if parameter.minimum is None and parameter.maximum is None:
        return "-"
    low = "" if parameter.minimum is None else f"{parameter.minimum:g}"
    high = "" if parameter.maximum is None else f"{parameter.maximum:g}"
    return f"{low} .. {high}".strip()
