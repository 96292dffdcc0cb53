"""The description of the model, as the contract has it."""

from __future__ import annotations

from typing import Any

from xai_proto import explanation_pb2 as pb
from xai_sidecar import __version__
from xai_sidecar.engine.work import Forward
from xai_sidecar.service.encode import value_message
from xai_sidecar.service.model import OfferedExplainer, ServedModel


def model_info(model: ServedModel, ready_seconds: float) -> pb.ModelInfo:
    """The description of the model.

    Args:
        model: The model.
        ready_seconds: When the server became ready, as Unix time.
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
            interpolation=spec.interpolation,
            mean=spec.mean,
            std=spec.std,
        ),
        device=backend.device,
        engine=backend.engine,
        engine_note=backend.engine_note,
        explainers=[_explainer_info(offered, model) for offered in model.explainers.values()],
        limits=pb.Limits(
            max_image_count=config.server.max_images,
            max_pixel_count=config.server.max_pixels,
            max_message_bytes=config.server.max_message_bytes,
            max_explanation_count=config.server.max_explanations,
            max_target_count=config.server.max_targets,
        ),
        server_version=__version__,
    )
    if backend.ood is not None:
        info.ood.training_sample_count = backend.ood.sample_count
        info.ood.training_time.FromNanoseconds(round(backend.ood.time * 1e9))
        info.ood.auroc.update(backend.ood.auroc)
    info.ready_time.FromNanoseconds(round(ready_seconds * 1e9))
    for size, seconds in sorted(backend.costs(Forward.kind).items()):
        info.batches.add(batch_size=size).duration.FromNanoseconds(round(seconds * 1e9))
    return info


def _explainer_info(offered: OfferedExplainer, model: ServedModel) -> pb.ExplainerInfo:
    explainer = offered.explainer
    info = pb.ExplainerInfo(
        name=explainer.name,
        description=explainer.description,
        available=not offered.unavailable,
        unavailable_reason=offered.unavailable,
    )
    schema = explainer.parameters_type.model_json_schema()["properties"]
    for name, default in offered.defaults.model_dump().items():
        info.parameters.append(_parameter_info(name, schema[name], default, model, offered))
    if not offered.unavailable:
        info.cost.pass_count = explainer.pass_counts(1, offered.defaults, model.facts).most
        info.cost.duration.FromNanoseconds(round(model.expected_seconds(offered) * 1e9))
    return info


_TYPES = {
    "integer": pb.PARAMETER_TYPE_INTEGER,
    "number": pb.PARAMETER_TYPE_NUMBER,
    "string": pb.PARAMETER_TYPE_STRING,
}


def _parameter_info(
    name: str, schema: dict[str, Any], default: Any, model: ServedModel, offered: OfferedExplainer
) -> pb.ParameterInfo:
    description = schema["description"]
    schema = next((one for one in schema.get("anyOf", [schema]) if one["type"] != "null"), schema)
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
    if name == "layer":
        ready = [kind.layer for kind in offered.kinds]
        info.choices.extend(model.facts.layers if offered.on_demand else ready)
    return info
