"""Tensors of the protocol: elements as bytes, or one by one.

As bytes they lie row-major and little-endian, without gaps; an element of BYTES has its length before it, in four
bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.errors import TensorError, quoted
from xai_sidecar.open_inference.messages import InputTensor, OutputTensor

BYTES = "BYTES"

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""The types of elements that NumPy has, too; beside them there are BF16 and BYTES."""

DATATYPES = (*DTYPES, "BF16", BYTES)

_LENGTH = struct.Struct("<I")
_MOST_AXES = 8


def check_shape(tensor: InputTensor) -> int:
    """The number of elements that a tensor's shape says.

    Raises:
        TensorError: It is no shape.
    """
    if len(tensor.shape) > _MOST_AXES:
        raise TensorError(f"The tensor has {len(tensor.shape):,} axes, of at most {_MOST_AXES}.", field="shape")
    if any(size < 1 for size in tensor.shape):
        raise TensorError(f"The shape {list(tensor.shape)} has a size below 1.", field="shape")
    return math.prod(tensor.shape)


def read_array(tensor: InputTensor) -> NDArray[Any]:
    """A tensor of numbers as a read-only array.

    Raises:
        TensorError: Type, shape and elements do not belong together.
    """
    dtype, count = DTYPES[tensor.datatype], check_shape(tensor)
    if tensor.raw is not None:
        expected = count * dtype.itemsize
        if expected != len(tensor.raw):
            raise TensorError(
                f"{tensor.datatype} of shape {list(tensor.shape)} takes {expected:,} bytes, but there are "
                f"{len(tensor.raw):,}. Send all of it, row-major and little-endian."
            )
        return np.frombuffer(tensor.raw, dtype).reshape(tensor.shape)
    array = _array(tensor, dtype)
    if array.size != count:
        raise TensorError(_wrong_count(tensor, count, array.size))
    return array.reshape(tensor.shape)


def read_elements(tensor: InputTensor) -> list[bytes]:
    """The elements of a tensor of BYTES.

    Raises:
        TensorError: Shape and elements do not belong together.
    """
    count = check_shape(tensor)
    if tensor.raw is not None:
        elements = list(_split(tensor, count))
    else:
        elements = list(tensor.values if tensor.values is not None else ())
    if len(elements) != count:
        raise TensorError(_wrong_count(tensor, count, len(elements)))
    return elements


def raw_bytes(tensor: OutputTensor) -> bytes:
    """The elements of an output as bytes."""
    if isinstance(tensor.elements, np.ndarray):
        return np.ascontiguousarray(tensor.elements, DTYPES[tensor.datatype]).tobytes()
    return packed(tensor.elements)


def packed(elements: Iterable[bytes]) -> bytes:
    """Elements of BYTES, each with its length before it."""
    return b"".join(part for each in elements for part in (_LENGTH.pack(len(each)), each))


def _split(tensor: InputTensor, most: int) -> Iterable[bytes]:
    """The elements of BYTES, until there are more than the shape says."""
    data, at = tensor.raw, 0
    if data is None:
        return
    for index in range(most + 1):
        if at == len(data):
            return
        if at + _LENGTH.size > len(data):
            raise TensorError(
                f"Element {index} ends within its length. Put the length of each before it, in four bytes, "
                "little-endian."
            )
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length > len(data) - at:
            raise TensorError(
                f"Element {index} should have {length:,} bytes by the four before it, but {len(data) - at:,} follow. "
                "Put the length of each before it, in four bytes, little-endian."
            )
        yield bytes(data[at : at + length])
        at += length


_KINDS: dict[str, tuple[str, set[type]]] = {"f": ("numbers", {int, float}), "b": ("truth values", {bool})}
_WHOLE: tuple[str, set[type]] = ("whole numbers", {int})


def _array(tensor: InputTensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The elements that were given one by one.

    Raises:
        TensorError: They are not of that type.
    """
    array = np.asarray(tensor.values if tensor.values is not None else (), object)
    wanted, types = _KINDS.get(dtype.kind, _WHOLE)
    found = set(map(type, array.flat))
    if list in found:
        raise TensorError("Its rows are not of equal length. Send all elements, row by row or flat.")
    if not found <= types:
        raise TensorError(f"Its elements are not {wanted}, as {tensor.datatype} wants them.")
    if dtype.kind in "iu" and array.size and not _fit(array, dtype):
        raise TensorError(f"{tensor.datatype} cannot hold all of its elements, {array.min()} to {array.max()}.")
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is refused as such
            return array.astype(dtype)
    except OverflowError:
        raise TensorError(f"{tensor.datatype} cannot hold all of its elements.") from None


def _fit(array: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    return bool(np.iinfo(dtype).min <= array.min() and array.max() <= np.iinfo(dtype).max)


def _wrong_count(tensor: InputTensor, expected: int, found: int) -> str:
    more = "more than that" if found > expected and tensor.datatype == BYTES else f"{found:,}"
    return f"The shape {list(tensor.shape)} says {expected:,} elements, but there are {more}. Send as many as it says."


def check_datatype(tensor: InputTensor, taken: Sequence[str]) -> None:
    """Checks that an input is of one of some types.

    Raises:
        TensorError: It is not.
    """
    if tensor.datatype not in taken:
        known = "" if tensor.datatype in DATATYPES else ", which is no data type of the protocol"
        raise TensorError(
            f"{quoted(tensor.name)} is sent as {quoted(tensor.datatype)}{known}. Send it as {' or '.join(taken)}.",
            field="datatype",
        )
