"""The Open Inference Protocol in JSON, with the binary tensor data extension: to requests, and from answers.

A body is JSON, or JSON of the length that the header Inference-Header-Content-Length says, with the elements of tensors
behind it: those of each input (or output) that has the parameter `binary_data_size`, in their order. In JSON, elements
of BYTES are base64 in requests, since pictures are no text, and text in answers.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xai_sidecar.errors import InvalidRequestError, ParameterError, TensorError, quoted, shortened, within
from xai_sidecar.http.requests import read_json
from xai_sidecar.open_inference.asked import check_counts
from xai_sidecar.open_inference.messages import (
    InferRequest,
    InferResponse,
    InputTensor,
    ModelMetadata,
    OutputTensor,
    RequestedOutput,
    TensorMetadata,
)
from xai_sidecar.open_inference.settings import check_count
from xai_sidecar.open_inference.tensors import BYTES, raw_bytes

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY_SIZE = "binary_data_size"
BINARY = "binary_data"
ALL_BINARY = "binary_data_output"

_KEYS = ("id", "parameters", "inputs", "outputs", "model_name", "model_version")
_INPUT_KEYS = ("name", "shape", "datatype", "parameters", "data")
_OUTPUT_KEYS = ("name", "parameters")
_LARGEST_SIZE = 2**63


@dataclass(frozen=True)
class Binary:
    """Which outputs are sent as binary data.

    Attributes:
        by_default: Whether those are that do not say.
        named: What outputs say, by name.
    """

    by_default: bool
    named: Mapping[str, bool]

    def of(self, name: str) -> bool:
        """Whether an output is."""
        return self.named.get(name, self.by_default)


@dataclass(frozen=True, eq=False)
class JsonRequest:
    """A request, and how to send its answer."""

    request: InferRequest
    binary: Binary


def read_infer_request(body: bytes, header_length: str | None, model_name: str, model_version: str) -> JsonRequest:
    """A request.

    Args:
        body: Its body.
        header_length: The length of the JSON in it, as the header says; None for all of it.
        model_name: The model that its path names.
        model_version: The version that its path names; empty for none.

    Raises:
        SidecarError: It is none by the protocol; with the path of the field at fault.
    """
    head, blobs = _split(body, header_length)
    found = read_json(head, "The request")
    _check_keys(found, _KEYS)
    check_counts(_list(found, "inputs"), _list(found, "outputs"))
    outputs = [_output(each, index) for index, each in enumerate(_list(found, "outputs"))]
    parameters = _parameters(found)
    inputs, at = [], 0
    for index, each in enumerate(_list(found, "inputs")):
        with within(f"inputs[{index}]"):
            tensor, at = _input(each, blobs, at)
            inputs.append(tensor)
    if at != len(blobs):
        raise InvalidRequestError(
            f"{len(blobs) - at:,} bytes follow that belong to no input. Set {BINARY_SIZE} of each input whose elements "
            "are binary data.",
            field="inputs",
        )
    request = InferRequest(
        model_name=model_name,
        model_version=model_version,
        id=_text(found, "id"),
        parameters=parameters,
        inputs=inputs,
        outputs=outputs,
        byte_count=len(body),
    )
    named = {each.name: each.parameters[BINARY] is True for each in outputs if BINARY in each.parameters}
    return JsonRequest(request, Binary(parameters.get(ALL_BINARY) is True, named))


def write_infer_response(response: InferResponse, binary: Binary) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of the JSON in it where binary data follow."""
    outputs, blobs = [], []
    for each in response.outputs:
        one: dict[str, Any] = {"name": each.name, "datatype": each.datatype, "shape": list(each.shape)}
        parameters = dict(each.parameters)
        if binary.of(each.name):
            blobs.append(raw_bytes(each))
            parameters[BINARY_SIZE] = len(blobs[-1])
        else:
            one["data"] = _data(each)
        outputs.append({**one, "parameters": parameters} if parameters else one)
    head = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "id": response.id,
        "parameters": response.parameters,
        "outputs": outputs,
    }
    text = json.dumps(head, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    return b"".join([text, *blobs]), len(text) if blobs else None


def metadata_json(model: ModelMetadata) -> dict[str, Any]:
    """The description of a model."""
    return {
        "name": model.name,
        "versions": model.versions,
        "platform": model.platform,
        "inputs": [_tensor(each) for each in model.inputs],
        "outputs": [_tensor(each) for each in model.outputs],
    }


def _tensor(tensor: TensorMetadata) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}


def _data(tensor: OutputTensor) -> list[Any]:
    """An output's elements; null stands for what is no number, which JSON does not have."""
    if not isinstance(tensor.elements, np.ndarray):
        return [each.decode(errors="replace") for each in tensor.elements]
    values: list[Any] = tensor.elements.ravel().tolist()
    if tensor.elements.dtype.kind == "f" and not np.isfinite(tensor.elements).all():
        return [value if math.isfinite(value) else None for value in values]
    return values


def _split(body: bytes, header_length: str | None) -> tuple[memoryview, memoryview]:
    """The JSON of a body, and what follows."""
    whole = memoryview(body)
    if header_length is None:
        return whole, whole[len(whole) :]
    if not (header_length.isascii() and header_length.isdecimal() and int(header_length[:20]) <= len(body)):
        raise InvalidRequestError(
            f"It is {quoted(header_length)}, and the body has {len(body):,} bytes. Give the length of the JSON in it.",
            field=HEADER_LENGTH,
        )
    return whole[: int(header_length)], whole[int(header_length) :]


def _input(found: Any, blobs: memoryview, at: int) -> tuple[InputTensor, int]:
    """An input, and where the binary data of the next one begin."""
    _check_keys(found, _INPUT_KEYS)
    parameters = _parameters(found)
    tensor = InputTensor(
        name=_text(found, "name"),
        datatype=_text(found, "datatype"),
        shape=_shape(found),
        parameters={name: value for name, value in parameters.items() if name != BINARY_SIZE},
    )
    size = parameters.get(BINARY_SIZE)
    if size is None:
        return replace(tensor, values=_values(found)), at
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(blobs) - at:
        raise InvalidRequestError(
            f"It is {quoted(size)}, and {len(blobs) - at:,} bytes are left behind the JSON. Give the number of bytes "
            f"there, and the length of the JSON in the header {HEADER_LENGTH}.",
            field=f"parameters.{BINARY_SIZE}",
        )
    if "data" in found:
        raise InvalidRequestError(f"It has data, and {BINARY_SIZE}. Send one of them.", field="data")
    return replace(tensor, raw=blobs[at : at + size]), at + size


def _values(found: Mapping[str, Any]) -> list[Any]:
    values = _list(found, "data")
    if found.get("datatype") != BYTES:
        return values
    with within("data"):
        return [_decoded(each) for row in values for each in (row if isinstance(row, list) else [row])]


def _decoded(text: Any) -> bytes:
    """An element of BYTES."""
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise TensorError(
        f"{quoted(text)} is no base64. In JSON, elements of BYTES are base64; or send them as binary data, see "
        f"{HEADER_LENGTH}."
    )


def _output(found: Any, index: int) -> RequestedOutput:
    with within(f"outputs[{index}]"):
        _check_keys(found, _OUTPUT_KEYS)
        return RequestedOutput(_text(found, "name"), _parameters(found))


def _check_keys(found: Any, known: tuple[str, ...]) -> None:
    if not isinstance(found, dict):
        raise InvalidRequestError(f"It is {quoted(found)}; give an object with {', '.join(known)}.")
    for name in found:
        if name not in known:
            raise InvalidRequestError(
                f"There is no {quoted(name)} here. There are {', '.join(known)}.", field=shortened(name, 64)
            )


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name, "")
    if not isinstance(value, str):
        raise InvalidRequestError(f"It is {quoted(value)}; give a text.", field=name)
    return value


def _list(found: Mapping[str, Any], name: str) -> list[Any]:
    value = found.get(name, [])
    if not isinstance(value, list):
        raise InvalidRequestError(f"It is {quoted(value)}; give a list.", field=name)
    return value


def _shape(found: Mapping[str, Any]) -> tuple[int, ...]:
    shape = _list(found, "shape")
    for size in shape:
        if isinstance(size, bool) or not isinstance(size, int) or abs(size) >= _LARGEST_SIZE:
            raise TensorError(f"{quoted(size)} is no size. Give whole numbers.", field="shape")
    return tuple(shape)


def _parameters(found: Mapping[str, Any]) -> dict[str, Any]:
    """Settings: texts, numbers and truth values, and lists of whole numbers."""
    values = found.get("parameters", {})
    if not isinstance(values, dict):
        raise ParameterError(f"It is {quoted(values)}; give an object.", field="parameters")
    check_count(values)
    for name, value in values.items():
        one_by_one = value if isinstance(value, list) else [value]
        if not all(isinstance(each, (str, int, float)) for each in one_by_one):
            raise ParameterError(
                f"It is {quoted(value)}; give a text, a number or a truth value.",
                field=f"parameters.{shortened(name, 64)}",
            )
    return values
