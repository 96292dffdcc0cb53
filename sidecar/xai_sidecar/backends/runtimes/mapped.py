"""What engines read weights from: files in memory, whose pages can be let go of once the engine has its own copy."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from xai_sidecar.engine.work import Array

_LARGE = 4096
"""Bytes from which on an array is put into a file."""

_ALIGNED = 64


class MappedFile:
    """A file of this process alone, in memory. It has no name, so that nobody can change or shorten it.

    Attributes:
        bytes: Its bytes, (n,) uint8; it must not be written to, though libraries want it writable.

    Args:
        content: A file to be copied, or bytes.
        folder: Where the file lies; by default where temporary files do.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, content: Path | bytes | bytearray, folder: Path | None = None) -> None:
        with tempfile.TemporaryFile(dir=folder) as file:
            if isinstance(content, Path):
                _copy(content, file.fileno())
            else:
                file.write(content)
                file.flush()
            self._map = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self.bytes: Array = np.frombuffer(self._map, np.uint8)

    def release(self) -> None:
        """Gives its memory back to the system; what is read again is fetched from the file."""
        with contextlib.suppress(AttributeError, OSError):  # where the system cannot
            self._map.madvise(mmap.MADV_DONTNEED)


def in_a_file(arrays: Mapping[str, Array]) -> tuple[dict[str, Array], MappedFile | None]:
    """Large arrays of numbers as parts of a file.

    Args:
        arrays: The arrays; none is changed.

    Returns:
        Those that are large, by name, in the memory of the file, and the file; none and None if it cannot be written.
    """
    large = {name: array for name, array in arrays.items() if array.nbytes >= _LARGE and array.dtype.kind in "fiu"}
    starts, size = {}, 0
    for name, array in large.items():
        starts[name] = size
        size += -(-array.nbytes // _ALIGNED) * _ALIGNED
    content = bytearray(size)
    for name, array in large.items():
        content[starts[name] : starts[name] + array.nbytes] = array.tobytes()
    try:
        file = MappedFile(content) if large else None
    except OSError:
        file = None
    if file is None:
        return {}, None
    parts = {name: file.bytes[starts[name] : starts[name] + array.nbytes] for name, array in large.items()}
    return {name: part.view(large[name].dtype).reshape(large[name].shape) for name, part in parts.items()}, file


def _copy(source: Path, target: int) -> None:
    with source.open("rb") as file:
        size, done = os.fstat(file.fileno()).st_size, 0
        while done < size:
            sent = os.sendfile(target, file.fileno(), done, size - done)
            if not sent:
                raise OSError(f"{source} has become shorter while it was read")
            done += sent
