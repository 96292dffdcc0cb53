"""From what was computed to the contract's responses."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from google.protobuf.struct_pb2 import Value
from PIL import Image

from xai_proto import explanation_pb2 as pb
from xai_sidecar import __version__
from xai_sidecar.engine.work import FloatArray, Forward
from xai_sidecar.errors import PreconditionError, within
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.imaging import Region
from xai_sidecar.service.decode import Asked
from xai_sidecar.service.model import OfferedExplainer, ServedModel
from xai_sidecar.service.predictor import Explained, Predicted, ranked

_STATUSES = {
    MapStatus.OK: pb.MAP_STATUS_OK,
    MapStatus.ALL_ZERO: pb.MAP_STATUS_ALL_ZERO,
    MapStatus.ZERO_GRADIENT: pb.MAP_STATUS_ZERO_GRADIENT,
    MapStatus.NOT_FINITE: pb.MAP_STATUS_NOT_FINITE,
    MapStatus.NO_OOD_RANGE: pb.MAP_STATUS_NO_OOD_RANGE,
}
_SHOWN = (MapStatus.OK, MapStatus.ALL_ZERO)
_HALF_RANGE = (2.0**-14, 65504.0)
"""Largest magnitudes of maps that half precision carries to its full relative precision."""


def predict_response(
    predicted: list[Predicted], asked: Asked, model: ServedModel, request_id: str
) -> pb.PredictResponse:
    """The answer to a request.

    Raises:
        PreconditionError: A map cannot be had in the encoding asked for.
    """
    return pb.PredictResponse(
        request_id=request_id,
        predictions=[_prediction(one, asked, model) for one in predicted],
        model_version=model.version,
    )


def _prediction(predicted: Predicted, asked: Asked, model: ServedModel) -> pb.Prediction:
    best = ranked(predicted.probabilities)[: asked.top_k]
    scores = zip(best.tolist(), predicted.probabilities[best].tolist(), predicted.logits[best].tolist(), strict=True)
    prediction = pb.Prediction(
        classes=[
            pb.ClassScore(class_id=class_id, label=model.labels[class_id], probability=probability, logit=logit)
            for class_id, probability, logit in scores
        ],
    )
    if predicted.ood is not None:
        prediction.ood.score, prediction.ood.percentile = predicted.ood
    prepared = predicted.prepared
    if prepared.picture_size is not None:
        prediction.picture.width, prediction.picture.height = prepared.picture_size
    if prepared.region is not None:
        prediction.region.CopyFrom(_region(prepared.region))
    for index, (explained, encoding) in enumerate(zip(predicted.explained, asked.encodings, strict=True)):
        with within(f"explanations[{index}]"):
            prediction.explanations.append(_explanation(explained, encoding, model))
    return prediction


def _region(region: Region) -> pb.Region:
    return pb.Region(left=region.left, top=region.top, right=region.right, bottom=region.bottom)


def _explanation(explained: Explained, encoding: pb.MapEncoding, model: ServedModel) -> pb.Explanation:
    explanation = pb.Explanation(
        name=explained.plan.name,
        explainer=explained.plan.explainer.name,
        status=pb.EXPLANATION_STATUS_COMPLETE,
        parameters=_values(explained.plan.parameters.model_dump()),
        pass_count=explained.pass_count,
    )
    explanation.elapsed.FromNanoseconds(round(explained.seconds * 1e9))
    if explained.plan.explainer.is_random:
        explanation.seed = explained.plan.seed
    saliency = explained.saliency
    for index, class_id in enumerate(explained.targets.tolist()):
        status = saliency.statuses[index]
        one = explanation.maps.add(class_id=class_id, label=model.labels[class_id], status=_STATUSES[status])
        if saliency.standard_errors is not None and np.isfinite(saliency.standard_errors[index]):
            one.standard_error = saliency.standard_errors[index]
        if status not in _SHOWN:
            continue
        if encoding == pb.MAP_ENCODING_PNG:
            one.png.CopyFrom(_png(saliency.maps[index]))
        else:
            one.tensor.CopyFrom(_tensor(saliency.maps[index], encoding))
    return explanation


def _tensor(saliency: FloatArray, encoding: pb.MapEncoding) -> pb.Tensor:
    if encoding == pb.MAP_ENCODING_FLOAT32:
        return pb.Tensor(
            dtype=pb.DATA_TYPE_FLOAT32, shape=saliency.shape, data=np.ascontiguousarray(saliency, "<f4").tobytes()
        )
    largest = float(np.abs(saliency).max())
    low, high = _HALF_RANGE
    if largest and not low <= largest <= high:
        raise PreconditionError(
            f"The map's largest value is {largest:.3g}, which half precision cannot carry well. "
            "Ask for MAP_ENCODING_FLOAT32, or for NORMALIZATION_MAX.",
            field="encoding",
        )
    return pb.Tensor(
        dtype=pb.DATA_TYPE_FLOAT16, shape=saliency.shape, data=np.ascontiguousarray(saliency, "<f2").tobytes()
    )


def _png(saliency: FloatArray) -> pb.PngMap:
    minimum, maximum = float(saliency.min()), float(saliency.max())
    scale = 255 / (maximum - minimum) if maximum > minimum else 0.0
    grey = np.rint((saliency.astype(np.float64) - minimum) * scale).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG", compress_level=3)
    return pb.PngMap(data=file.getvalue(), minimum=minimum, maximum=maximum)


def _value(value: Any) -> Value:
    if isinstance(value, bool):
        return Value(bool_value=value)
    if isinstance(value, (int, float)):
        return Value(number_value=value)
    return Value(string_value=str(value))


def _values(parameters: dict[str, Any]) -> dict[str, Value]:
    return {name: _value(value) for name, value in parameters.items() if value is not None}


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


def expected_seconds(offered: OfferedExplainer, model: ServedModel) -> float:
    """Time that an explanation of one target takes with the defaults on an idle device."""
    costs = model.backend.costs(offered.explainer.kind(offered.defaults))
    count = offered.explainer.pass_count(1, offered.defaults, model.facts)
    return min(math.ceil(count / size) * seconds for size, seconds in costs.items())


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
        info.cost.pass_count = explainer.pass_count(1, offered.defaults, model.facts)
        info.cost.duration.FromNanoseconds(round(expected_seconds(offered, model) * 1e9))
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
        default_value=None if default is None else _value(default),
        minimum=schema.get("minimum"),
        maximum=min((limit for limit in (schema.get("maximum"), largest) if limit is not None), default=None),
        choices=schema.get("enum", []),
    )
    if name == "layer":
        ready = [kind.layer for kind in offered.kinds]
        info.choices.extend(model.facts.layers if offered.on_demand else ready)
    return info
