"""Requests and answers of the protocol, as neither gRPC nor JSON has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from numpy.typing import NDArray

Parameters: TypeAlias = Mapping[str, Any]
"""Settings by name: booleans, integers, numbers and strings."""


@dataclass(frozen=True, eq=False)
class InputTensor:
    """An input.

    Attributes:
        name: Its name.
        datatype: The type of its elements, as the protocol names it.
        shape: Its shape.
        raw: Its elements as bytes, see `tensors`; None where `values` has them.
        values: Its elements one by one, maybe nested by rows; None where `raw` has them. Elements of BYTES are bytes.
        parameters: Settings of it.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes | memoryview | None = None
    values: Sequence[Any] | None = None
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class RequestedOutput:
    """An output that is wanted.

    Attributes:
        name: Its name.
        parameters: Settings of it.
    """

    name: str
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class InferRequest:
    """Inputs, and what is wanted of the model.

    Attributes:
        model_name: The model; empty for the one that is served.
        model_version: Its version; empty for the one that is served.
        id: Comes back with the answer.
        parameters: Settings of the request.
        inputs: The inputs.
        outputs: The outputs that are wanted; none for those that cost nothing.
        byte_count: Size of the request as it was received.
    """

    model_name: str
    inputs: Sequence[InputTensor]
    outputs: Sequence[RequestedOutput] = ()
    parameters: Parameters = field(default_factory=dict)
    model_version: str = ""
    id: str = ""
    byte_count: int = 0


@dataclass(frozen=True, eq=False)
class OutputTensor:
    """An output.

    Attributes:
        name: Its name.
        datatype: The type of its elements, as the protocol names it.
        shape: Its shape.
        elements: An array of that shape or, of BYTES, the elements in row-major order.
        parameters: What is to be known of it.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    elements: NDArray[Any] | Sequence[bytes]
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class InferResponse:
    """Outputs.

    Attributes:
        model_name: The model.
        model_version: Its version.
        id: Of the request.
        parameters: What is to be known of the answer.
        outputs: The outputs, in the order in which they were asked for.
    """

    model_name: str
    model_version: str
    id: str
    parameters: Parameters
    outputs: Sequence[OutputTensor]


@dataclass(frozen=True)
class TensorMetadata:
    """A tensor that a model takes or gives; -1 in its shape stands for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelMetadata:
    """What a model takes and gives."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


@dataclass(frozen=True)
class ServerMetadata:
    """What the server is."""

    name: str
    version: str
    extensions: tuple[str, ...]
