"""From the Open Inference Protocol's messages to what the server takes by it, and from what it gives to messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xai_proto import open_inference_pb2 as pb
from xai_sidecar.errors import InvalidRequestError, ParameterError, TensorError, quoted, shortened, within
from xai_sidecar.open_inference.asked import check_counts
from xai_sidecar.open_inference.messages import (
    InferRequest,
    InferResponse,
    InputTensor,
    ModelMetadata,
    RequestedOutput,
    TensorMetadata,
)
from xai_sidecar.open_inference.settings import check_count
from xai_sidecar.open_inference.tensors import BYTES, raw_bytes

_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""Where the elements of each type are that are not raw. FP16 and BF16 have no such place."""

_HIGHEST_INT64 = 2**63 - 1


def read_infer_request(request: pb.ModelInferRequest, byte_count: int) -> InferRequest:
    """What is asked for.

    Raises:
        SidecarError: The message is none by the protocol; with the path of the field at fault.
    """
    check_counts(request.inputs, request.outputs)
    if len(request.raw_input_contents) not in (0, len(request.inputs)):
        raise _uneven(request)
    raw = list(request.raw_input_contents)
    return InferRequest(
        model_name=request.model_name,
        model_version=request.model_version,
        id=request.id,
        parameters=_parameters(request.parameters),
        inputs=[_input(each, index, raw[index] if raw else None) for index, each in enumerate(request.inputs)],
        outputs=[_output(each, index) for index, each in enumerate(request.outputs)],
        byte_count=byte_count,
    )


def _uneven(request: pb.ModelInferRequest) -> InvalidRequestError:
    return InvalidRequestError(
        f"There are {len(request.raw_input_contents):,} raw contents for {len(request.inputs):,} inputs. Send one for "
        "each, in their order, or use the contents of all inputs.",
        field="raw_input_contents",
    )


def infer_response(response: InferResponse) -> pb.ModelInferResponse:
    """The answer, with all elements as bytes."""
    return pb.ModelInferResponse(
        model_name=response.model_name,
        model_version=response.model_version,
        id=response.id,
        parameters=_values(response.parameters),
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(
                name=each.name, datatype=each.datatype, shape=each.shape, parameters=_values(each.parameters)
            )
            for each in response.outputs
        ],
        raw_output_contents=[raw_bytes(each) for each in response.outputs],
    )


def metadata_response(model: ModelMetadata) -> pb.ModelMetadataResponse:
    """The description of a model."""
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=model.versions,
        platform=model.platform,
        inputs=[_tensor(each) for each in model.inputs],
        outputs=[_tensor(each) for each in model.outputs],
    )


def _tensor(tensor: TensorMetadata) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)


def _input(tensor: pb.ModelInferRequest.InferInputTensor, index: int, raw: bytes | None) -> InputTensor:
    with within(f"inputs[{index}]"):
        has_contents = tensor.HasField("contents") and tensor.contents.ByteSize() > 0
        if raw is not None and has_contents:
            raise InvalidRequestError(
                "It has contents, and there are raw_input_contents. Use one of them for all inputs.", field="contents"
            )
        return InputTensor(
            name=tensor.name,
            datatype=tensor.datatype,
            shape=tuple(tensor.shape),
            raw=raw,
            values=_values_of(tensor) if raw is None else None,
            parameters=_parameters(tensor.parameters),
        )


def _values_of(tensor: pb.ModelInferRequest.InferInputTensor) -> list[Any]:
    """The elements of an input that are not raw.

    Raises:
        TensorError: They are in the place of another type.
    """
    place = _CONTENTS.get(tensor.datatype)
    if place is None:
        if tensor.datatype in ("FP16", "BF16"):
            raise TensorError(f"{tensor.datatype} has no contents. Send it in raw_input_contents.", field="contents")
        return []  # that the type is unknown is said later
    for field, _ in tensor.contents.ListFields():
        if field.name != place:
            raise TensorError(
                f"{tensor.datatype} has its elements in {place}, but {field.name} is set. Set {place}, or send them in "
                "raw_input_contents.",
                field=f"contents.{field.name}",
            )
    return list(getattr(tensor.contents, place))


def _output(output: pb.ModelInferRequest.InferRequestedOutputTensor, index: int) -> RequestedOutput:
    if not output.parameters:
        return RequestedOutput(output.name)
    with within(f"outputs[{index}]"):
        return RequestedOutput(output.name, _parameters(output.parameters))


def _parameters(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    check_count(parameters)
    found = {}
    for name, value in parameters.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is None:
            raise ParameterError(
                f"{quoted(name)} has no value. Set one, or leave it out.", field=f"parameters.{shortened(name, 64)}"
            )
        found[name] = getattr(value, choice)
    return found


def _values(parameters: Mapping[str, Any]) -> dict[str, pb.InferParameter]:
    return {name: _value(value) for name, value in parameters.items()}


def _value(value: Any) -> pb.InferParameter:
    if isinstance(value, bool):
        return pb.InferParameter(bool_param=value)
    if isinstance(value, int):
        return (
            pb.InferParameter(int64_param=value) if value <= _HIGHEST_INT64 else pb.InferParameter(uint64_param=value)
        )
    if isinstance(value, float):
        return pb.InferParameter(double_param=value)
    return pb.InferParameter(string_param=str(value))
