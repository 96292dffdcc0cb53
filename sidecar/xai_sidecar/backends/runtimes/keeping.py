"""Keeps on disk what engines have made of graphs, so that the next start need not make it again.

What is kept is named by a key, a digest of all that it was made of, and by the digest of its own content. A file
appears under its name only when it is complete, and what does not have the digest in its name is thrown away: so a
process that was killed, two that start at once, or a damaged disk cost time at worst.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import structlog

from xai_sidecar.backends.runtimes.program import LazyModel, Model

_log = structlog.get_logger(__name__)

_OURS = "engine-graphs"
"""The subfolder of the cache that is tidied; nothing outside of it is ever removed."""

_KEPT_BYTES = 4 << 30

_ABANDONED_SECONDS = 3600
"""Age at which a temporary file belongs to a process that was killed."""

_CHUNK = 1 << 20


class EngineCache:
    """A folder of what engines have made.

    Args:
        folder: Where it lies; it need not exist. One that cannot be written is done without, and that is logged.
        kept_bytes: How much is kept; the least recently used files are removed.
    """

    def __init__(self, folder: Path, kept_bytes: int = _KEPT_BYTES) -> None:
        self._folder = folder / _OURS
        self._kept_bytes = kept_bytes

    def find(self, key: str) -> Path | None:
        """The file kept under a key, as whole as it was written; None if there is none."""
        for path in self._folder.glob(f"{key}.*"):
            try:
                if file_digest(path) == path.suffix[1:]:
                    with contextlib.suppress(OSError):  # of another user's file, as in an image
                        os.utime(path)
                    return path
                path.unlink()
            except OSError:  # removed by another process, or a folder that may only be read
                continue
        return None

    def keep(self, key: str, content: bytes) -> None:
        """Keeps some bytes under a key, in the place of what was there."""
        name = f"{key}.{hashlib.sha256(content).hexdigest()}"
        try:
            self._write(name, content)
            for path in self._folder.glob(f"{key}.*"):
                if path.name != name:
                    path.unlink(missing_ok=True)
            self._tidy()
        except OSError as error:
            _log.warning("engine_cache_not_written", folder=str(self._folder), error=str(error))

    def _write(self, name: str, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix="writing-", dir=self._folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).chmod(0o644)  # readable to the user of an image that root has built
            Path(temporary).rename(self._folder / name)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _tidy(self) -> None:
        left = self._kept_bytes
        for modified, size, path in sorted(self._files(), reverse=True):
            left -= size
            abandoned = path.name.startswith("writing-") and time.time() - modified > _ABANDONED_SECONDS
            if left < 0 or abandoned:
                path.unlink(missing_ok=True)

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        for path in self._folder.iterdir():
            with contextlib.suppress(OSError):  # removed by another process
                found = path.stat()
                yield found.st_mtime, found.st_size, path


def cache_key(model: Model, *parts: object) -> str:
    """A digest of a graph, this machine's CPU, and further values by their repr.

    Args:
        model: The graph. If it is a path, files of external data beside it count, too.
        parts: All else that goes into what is kept: the engine, its version, its options.
    """
    digest = hashlib.sha256(repr((_cpu(), *parts)).encode())
    for content in _contents(model):
        digest.update(content)
    return digest.hexdigest()[:32]


def code_digest(folder: Path) -> str:
    """A digest of the sources in a folder and below: what they found out is found out anew when they have changed."""
    digest = hashlib.sha256()
    for source in sorted(folder.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _contents(model: Model) -> Iterator[bytes]:
    if not isinstance(model, Path):
        yield model.digest.encode() if isinstance(model, LazyModel) else model
        return
    for path in (model, *external_files(model)):
        yield from _chunks(path)


def external_files(model: Path) -> list[Path]:
    """The files of a model's external data."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    tensors = onnx.load(model, load_external_data=False).graph.initializer
    return sorted(
        {model.parent / ExternalDataInfo(tensor).location for tensor in tensors if uses_external_data(tensor)}
    )


def file_digest(path: Path) -> str:
    """The SHA-256 of a file.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


@cache
def _cpu() -> str:
    """The CPU's model and abilities, which compiled programs are made for."""
    wanted = ("model name", "flags", "Features", "CPU part")
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    return platform.machine() + "".join(line for line in lines if line.startswith(wanted))
