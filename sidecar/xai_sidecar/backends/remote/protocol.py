"""What both ways of the Open Inference Protocol have in common: tensors, metadata, and a client as the backend uses it.

https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from xai_sidecar.engine.work import Array
from xai_sidecar.errors import DeviceError

NUMBERS: Final[Mapping[str, str]] = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
"""NumPy's names of the data types that are taken and sent, as they lie in raw contents."""


@dataclass(frozen=True)
class Tensor:
    """An input or an output of a model, as its metadata say.

    Attributes:
        name: Its name.
        datatype: As in "FP32"; empty where the metadata do not say.
        shape: Its axes, -1 for a free one; empty where the metadata do not say.
    """

    name: str
    datatype: str = ""
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelMetadata:
    """What a server says of a model.

    Attributes:
        name: Its name.
        versions: The versions that there are; may be none.
        platform: What it runs on there.
        inputs: Its inputs; none where the server does not say.
        outputs: Its outputs, likewise.
    """

    name: str
    versions: tuple[str, ...] = ()
    platform: str = ""
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Inferred:
    """The answer to a batch.

    Attributes:
        version: Of the model that gave it; empty where the server does not say.
        outputs: By name, as the model gave them, in float32.
    """

    version: str
    outputs: Mapping[str, Array]


class Client(Protocol):
    """Calls a server. Any thread may do so, several at once.

    Its methods raise an UpstreamError where the server does not answer or has no such model, an UpstreamBusyError where
    it takes no more, and a DeviceError where it answers with a failure.
    """

    def server(self) -> str:
        """The server's name and version, as in "triton 2.51.0"."""

    def ready(self) -> bool:
        """Whether the model is ready."""

    def metadata(self) -> ModelMetadata:
        """What the server says of the model."""

    def infer(self, tensor: Tensor, rows: Array, outputs: Sequence[str]) -> Inferred:
        """Has the model answer a batch.

        Args:
            tensor: The input.
            rows: Its values, float32.
            outputs: The names of the outputs wanted; none for all that there are.
        """

    def close(self) -> None:
        """Ends the connections; calls in progress fail."""


def raw(rows: Array, datatype: str) -> Array:
    """Values as they lie in raw contents: little-endian, in order."""
    return np.ascontiguousarray(rows, NUMBERS[datatype or "FP32"])


def from_raw(name: str, datatype: str, shape: Sequence[int], content: bytes | memoryview) -> Array:
    """An output of raw contents, in float32.

    Raises:
        DeviceError: It is of another type, or has another number of values than its shape says.
    """
    dtype = np.dtype(_known(name, datatype))
    if len(content) != dtype.itemsize * math.prod(shape):
        raise DeviceError(
            f"The model's server says that the output {name!r} has the shape {tuple(shape)} of {datatype}, and sent "
            f"{len(content):,} bytes. Its log may say more."
        )
    return np.frombuffer(content, dtype).reshape(tuple(shape)).astype(np.float32, copy=False)


def from_numbers(name: str, datatype: str, shape: Sequence[int], numbers: object) -> Array:
    """An output of numbers, flat or nested, in float32. Raises what `from_raw` does."""
    _known(name, datatype)
    values = np.asarray(numbers, np.float32)
    if values.size != math.prod(shape):
        raise DeviceError(
            f"The model's server says that the output {name!r} has the shape {tuple(shape)}, and sent {values.size:,} "
            "numbers. Its log may say more."
        )
    return values.reshape(tuple(shape))


def _known(name: str, datatype: str) -> str:
    if datatype not in NUMBERS:
        raise DeviceError(
            f"The model's server sent the output {name!r} as {datatype or 'no type'}, where numbers are of "
            f"{', '.join(NUMBERS)}. Name another output in model.upstream."
        )
    return NUMBERS[datatype]
