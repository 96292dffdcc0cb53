"""Reads the weights in a file of PyTorch's format before 1.6, with NumPy and the standard library alone.

Such a file is a sequence: pickles of a magic number, the format's version, the writer's type sizes, the named tensors
and the storages' keys; then, for each key, the storage's length (int64) and its raw values. A tensor's pickle only says
which storage it lies in and how. Later files are zip archives, and not read here.
"""

from __future__ import annotations

import collections
import math
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.errors import ConfigError, SidecarError

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001

_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


def read_torch_file(path: Path) -> dict[str, NDArray[Any]]:
    """Reads the named tensors of a file that `torch.save(net.state_dict(), ...)` wrote before PyTorch 1.6.

    No code of the file is run: of all that a pickle can name, an ordered dictionary, tensors and storages are allowed.

    Args:
        path: The file.

    Returns:
        Name to array, in the file's order; each of the tensor's shape and dtype, contiguous, in memory of its own.

    Raises:
        ConfigError: The file cannot be read, is not of this format, names anything else, or is cut short.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except SidecarError as error:
        raise ConfigError(f"{path} is refused: {error.message}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Check that it is there and readable.") from error
    except Exception as error:  # Unpickling corrupt bytes raises anything at all.
        raise ConfigError(
            f"{path} is cut short, corrupt, or no PyTorch file of the format before 1.6: "
            f"{type(error).__name__}, {error}. Install or download it again."
        ) from error


@dataclass(frozen=True)
class _StorageType:
    dtype: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    length: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_unused: Any) -> _Tensor:
    """Stands in for PyTorch's function of the same purpose: notes the tensor, as its values come later in the file."""
    if not isinstance(storage, _Storage):
        raise ConfigError("A tensor in it lies in no storage. Install or download it again.")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return _StorageType(_DTYPES[name])
        raise ConfigError(
            f"It names {module}.{name}, which is not among the parts of plain weights, and unpickling may run code. "
            "Use a file of weights only, from a source that you trust."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _location, length, view = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType) or view is not None:
            raise ConfigError(f"It refers to {kind!r}, not to a whole storage. Save it again with a newer PyTorch.")
        return _Storage(str(key), storage_type.dtype, int(length))


def _read(file: BinaryIO) -> dict[str, NDArray[Any]]:
    if _Unpickler(file).load() != _MAGIC or _Unpickler(file).load() != _VERSION:
        raise ConfigError("It is no PyTorch file of the format before 1.6. Install or download it again.")
    if not _Unpickler(file).load()["little_endian"]:
        raise ConfigError("It was written on a big-endian machine. Save it again on a little-endian one.")
    named = _Unpickler(file).load()
    keys = _Unpickler(file).load()
    if not isinstance(named, dict) or not all(isinstance(tensor, _Tensor) for tensor in named.values()):
        raise ConfigError("It holds more than named tensors. Save only the net's state_dict().")
    dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in named.values()}
    storages = {str(key): _read_storage(file, dtypes.get(str(key))) for key in keys}
    return {str(name): _lay_out(tensor, storages[tensor.storage.key]) for name, tensor in named.items()}


def _read_storage(file: BinaryIO, dtype: str | None) -> NDArray[Any]:
    if dtype is None:
        raise ConfigError("It holds a storage that no tensor uses. Save only the net's state_dict().")
    (length,) = struct.unpack("<q", file.read(8))
    size = length * np.dtype(dtype).itemsize
    data = file.read(size) if size >= 0 else b""
    if len(data) != size:
        raise ConfigError(f"It ends {size - len(data):,} bytes too early. Install or download it again.")
    return np.frombuffer(data, dtype)


def _lay_out(tensor: _Tensor, storage: NDArray[Any]) -> NDArray[Any]:
    if len(tensor.shape) != len(tensor.strides) or min((tensor.offset, *tensor.shape, *tensor.strides)) < 0:
        raise ConfigError(f"A tensor has the shape {tensor.shape} and the strides {tensor.strides}. Save it again.")
    if 0 in tensor.shape:
        return np.empty(tensor.shape, storage.dtype)
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if last >= len(storage) or math.prod(tensor.shape) > len(storage):
        raise ConfigError(
            f"A tensor of shape {tensor.shape} goes beyond its storage of {len(storage)} values. "
            "Install or download it again."
        )
    strides = tuple(stride * storage.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides).copy()
