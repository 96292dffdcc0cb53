"""From the contract's images to model inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from xai_proto import explanation_pb2 as pb
from xai_sidecar.config import ServerConfig
from xai_sidecar.errors import PictureError, TensorError, within
from xai_sidecar.imaging import (
    Header,
    InputSpec,
    Prepared,
    check_model_input,
    decode,
    from_pixels,
    prepare,
    read_header,
)

_DTYPES: dict[int, np.dtype[Any]] = {
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
}
_MOST_AXES = 4
_PIXELS_EFFORT = 0.3  # they are only resized


def header_of(image: pb.Image, limits: ServerConfig) -> Header | None:
    """What is known of a picture before it is decoded, or of pixels; None of a model input and of nothing.

    Raises:
        SidecarError: With the path of the field at fault within the image.
    """
    if image.HasField("pixels"):
        return Header("pixels", len(image.pixels.data), 1, _PIXELS_EFFORT)
    if not image.HasField("encoded"):
        return None
    with within("encoded"):
        return read_header(image.encoded, limits.max_pixels)


def read_image(
    image: pb.Image, spec: InputSpec, limits: ServerConfig, look: Callable[[], None] = lambda: None
) -> Prepared:
    """One picture as a model input.

    Args:
        image: The picture.
        spec: What the net takes.
        limits: What is taken.
        look: Called between pieces of the work; what it raises ends it.

    Raises:
        SidecarError: With the path of the field at fault within the image.
    """
    source = image.WhichOneof("source")
    if source is None:
        raise PictureError("The image is empty. Set encoded, pixels or model_input.")
    with within(source):
        if source == "encoded":
            return prepare(decode(image.encoded, limits.max_pixels, look), spec)
        if source == "pixels":
            return prepare(from_pixels(read_tensor(image.pixels), limits.max_pixels), spec)
        return check_model_input(read_tensor(image.model_input), spec)


def read_tensor(tensor: pb.Tensor) -> np.ndarray[Any, Any]:
    """A tensor as a read-only array over its bytes.

    Raises:
        TensorError: dtype, shape and data do not belong together.
    """
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise TensorError("The dtype is not set, or not one of this version. Set it to a DATA_TYPE.", field="dtype")
    if len(tensor.shape) > _MOST_AXES:
        raise TensorError(f"The tensor has {len(tensor.shape):,} axes; pictures have 3.", field="shape")
    shape = tuple(tensor.shape)
    if any(size < 1 for size in shape):
        raise TensorError(f"The shape {shape} has a size below 1.", field="shape")
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(tensor.data):
        raise TensorError(
            f"A {dtype.name} tensor of shape {shape} takes {expected} bytes, but there are {len(tensor.data)}. "
            "Send all of it, in C order and little-endian.",
            field="data",
        )
    array: np.ndarray[Any, Any] = np.frombuffer(tensor.data, dtype).reshape(shape)
    return array
