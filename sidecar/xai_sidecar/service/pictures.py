"""From the contract's images to model inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xai_proto import explanation_pb2 as pb
from xai_sidecar.config import ServerConfig
from xai_sidecar.errors import PictureError, TensorError, within
from xai_sidecar.imaging import InputSpec, Prepared, check_model_input, decode, from_pixels, prepare

_DTYPES: dict[int, np.dtype[Any]] = {
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
}
_MOST_AXES = 4


def read_images(images: Sequence[pb.Image], spec: InputSpec, limits: ServerConfig) -> list[Prepared]:
    """All pictures of a request; see `read_image`."""
    prepared = []
    for index, image in enumerate(images):
        with within(f"images[{index}]"):
            prepared.append(read_image(image, spec, limits))
    return prepared


def read_image(image: pb.Image, spec: InputSpec, limits: ServerConfig) -> Prepared:
    """One picture as a model input.

    Raises:
        SidecarError: With the path of the field at fault within the image.
    """
    source = image.WhichOneof("source")
    if source is None:
        raise PictureError("The image is empty. Set encoded, pixels or model_input.")
    with within(source):
        if source == "encoded":
            return prepare(decode(image.encoded, limits.max_pixels), spec)
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
