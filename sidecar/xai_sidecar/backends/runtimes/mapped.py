"""What engines read weights from: files in memory, whose pages can be let go of once the engine has its own copy."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from pathlib import Path

import numpy as np

from xai_sidecar.engine.work import Array


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


def _copy(source: Path, target: int) -> None:
    with source.open("rb") as file:
        size, done = os.fstat(file.fileno()).st_size, 0
        while done < size:
            sent = os.sendfile(target, file.fileno(), done, size - done)
            if not sent:
                raise OSError(f"{source} has become shorter while it was read")
            done += sent
