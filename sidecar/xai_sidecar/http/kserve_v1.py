"""KServe's first protocol: POST /v1/models/NAME:predict and :explain, with a list of instances in JSON.

An instance is a file, ``{"b64": "…"}``, as TensorFlow Serving has bytes, maybe by the name ``image``; or pixels, a list
of rows of pixels of whole numbers; or ``{"model_input": […]}``, resized and normalised. A prediction is the most
probable classes, an explanation their maps. ``parameters`` are ``top_k`` and, to explain, ``explainer`` and those that
requested outputs of the Open Inference Protocol take.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.errors import InvalidRequestError, PictureError, TensorError, quoted, within
from xai_sidecar.http.requests import read_json
from xai_sidecar.open_inference.messages import InputTensor
from xai_sidecar.open_inference.settings import check_count, check_known, explanation_request, integer
from xai_sidecar.open_inference.tensors import read_array
from xai_sidecar.serving.answers import Answer, Explanation, SaliencyMap
from xai_sidecar.serving.planning import AUTO
from xai_sidecar.serving.requests import EncodedPicture, ExplanationRequest, ModelInput, Picture, Pixels, PredictRequest

_KEYS = ("instances", "parameters", "signature_name")
_WRAPPERS: Final = ("image", "image_bytes")
_CURE = (
    'Send {"b64": "…"} for a file in base64, rows of pixels for a decoded picture, or {"model_input": […]} for what is '
    "resized and normalised already."
)


@dataclass(frozen=True)
class Asked:
    """What a body asks for.

    Attributes:
        instances: The instances.
        parameters: Settings.
    """

    instances: list[Any]
    parameters: Mapping[str, Any]


def read_body(body: bytes) -> Asked:
    """What a body asks for.

    Raises:
        InvalidRequestError: It is none by the protocol.
    """
    found = read_json(body)
    for name in found:
        if name not in _KEYS:
            raise InvalidRequestError(f"There is no {quoted(name)} here. There are {', '.join(_KEYS)}.")
    instances, parameters = found.get("instances"), found.get("parameters", {})
    if not isinstance(instances, list):
        raise InvalidRequestError("It is missing, or no list. Give a list of pictures.", field="instances")
    if not isinstance(parameters, dict):
        raise InvalidRequestError("It is no object. Give one, or leave it out.", field="parameters")
    check_count(parameters)
    return Asked(instances, parameters)


def core_request(
    asked: Asked, request_id: str, model: str, byte_count: int, most_images: int, *, explain: bool
) -> PredictRequest:
    """The core's request.

    Raises:
        SidecarError: With the path of the field at fault.
    """
    if not 1 <= len(asked.instances) <= most_images:
        raise InvalidRequestError(
            f"There are {len(asked.instances):,} instances; send 1 to {most_images}.", field="instances"
        )
    explanations: list[ExplanationRequest] = []
    if explain:
        settings = {name: value for name, value in asked.parameters.items() if name != "top_k"}
        settings.setdefault("explainer", AUTO)
        explanations = [explanation_request(str(settings["explainer"]), settings)]
    else:
        check_known(asked.parameters, ("top_k",))
    return PredictRequest(
        images=[_picture(each, index) for index, each in enumerate(asked.instances)],
        explanations=explanations,
        top_k=integer(asked.parameters, "top_k"),
        request_id=request_id,
        model=model,
        byte_count=byte_count,
    )


def own_path(field: str) -> str:
    """The protocol's path of a field of the core's request."""
    if field.startswith("explanations[0]."):
        name = field.removeprefix("explanations[0].").split(".")[-1]
        return "parameters.budget_seconds" if name == "budget" else f"parameters.{name}"
    if field.startswith("images"):
        return field.split(".")[0].replace("images", "instances")
    return {"top_k": "parameters.top_k", "explanations": "parameters", "explanations[0]": "parameters"}.get(
        field, field
    )


def predictions_json(answer: Answer) -> dict[str, Any]:
    """The answer to `:predict`."""
    return {
        "predictions": [{"classes": [score._asdict() for score in one.classes]} for one in answer.predictions],
        "model_version": answer.model_version,
        "request_id": answer.request_id,
    }


def explanations_json(answer: Answer) -> dict[str, Any]:
    """The answer to `:explain`."""
    found = predictions_json(answer)
    explanations = [_explanation(one.explanations[0]) for one in answer.predictions]
    return {"explanations": explanations, **found}


def _explanation(one: Explanation) -> dict[str, Any]:
    return {
        "explainer": one.explainer,
        "status": one.stage.name,
        "status_message": one.message,
        "parameters": {name: value for name, value in one.parameters.items() if value is not None},
        "seed": one.seed,
        "maps": [_map(each) for each in one.maps],
    }


def _map(one: SaliencyMap) -> dict[str, Any]:
    return {
        "class_id": one.class_id,
        "label": one.label,
        "status": one.status.name,
        "saliency": None if one.values is None else one.values.tolist(),
        "standard_error": one.standard_error,
    }


def _picture(instance: Any, index: int) -> Picture:
    with within(f"instances[{index}]"):
        found = instance
        for wrapper in _WRAPPERS:
            if isinstance(found, dict) and list(found) == [wrapper]:
                found = found[wrapper]
        if isinstance(found, list):
            return Pixels(_tensor(found, "UINT8"))
        if isinstance(found, dict) and list(found) == ["model_input"] and isinstance(found["model_input"], list):
            with within("model_input"):
                return ModelInput(_tensor(found["model_input"], "FP32"))
        if isinstance(found, dict) and list(found) == ["b64"] and isinstance(found["b64"], str):
            return EncodedPicture(_file(found["b64"]))
        raise PictureError(f"{quoted(instance)} is no picture. {_CURE}")


def _file(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise PictureError("It is no base64. Encode the file anew.", field="b64") from None


def _tensor(rows: list[Any], datatype: str) -> NDArray[Any]:
    """Nested lists of numbers, which have to be three deep, as an array."""
    shape: list[int] = []
    inner: Any = rows
    while isinstance(inner, list) and len(shape) < 4:
        shape.append(len(inner))
        inner = inner[0] if inner else None
    if len(shape) != 3:
        raise TensorError(f"Its lists are {len(shape)} deep, and a picture's 3. {_CURE}")
    return np.ascontiguousarray(read_array(InputTensor("", datatype, tuple(shape), values=rows)))
