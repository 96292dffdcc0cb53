"""From the contract's images and tensors to pictures and arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xai_proto import explanation_pb2 as pb
from xai_sidecar.errors import PictureError, TensorError, within
from xai_sidecar.serving.requests import EncodedPicture, ModelInput, Picture, Pixels

_DTYPES: dict[int, np.dtype[Any]] = {
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
}
_MOST_AXES = 4


def picture_of(image: pb.Image) -> Picture:
    """An image of the contract.

    Raises:
        PictureError: It is empty.
        TensorError: Its tensor's dtype, shape and data do not belong together; with the field within the image.
    """
    source = image.WhichOneof("source")
    if source is None:
        raise PictureError("The image is empty. Set encoded, pixels or model_input.")
    if source == "encoded":
        return EncodedPicture(image.encoded)
    with within(source):
        if source == "pixels":
            return Pixels(read_tensor(image.pixels))
        return ModelInput(read_tensor(image.model_input))


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
    data = tensor.data  # a copy each time
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(data):
        raise TensorError(
            f"A {dtype.name} tensor of shape {shape} takes {expected} bytes, but there are {len(data)}. "
            "Send all of it, in C order and little-endian.",
            field="data",
        )
    array: np.ndarray[Any, Any] = np.frombuffer(data, dtype).reshape(shape)
    return array
