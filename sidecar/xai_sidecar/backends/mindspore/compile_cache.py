"""MindSpore's compile cache on disk, made safe to rely on.

MindSpore files compiled graphs by the order in which they were compiled and checks little more than the sources beside
the entry script. So every combination of net, input and programs has a folder of its own here, named by a fingerprint
of all that goes into a graph; it is filled under a temporary name and appears only when complete. A process that is
killed half-way, or two that start at once, leave no half-filled folder behind that anyone would read.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from xai_sidecar.backends.mindspore.runtime import ms, nn

_KEPT = 8
"""Folders kept; the least recently used ones go."""

_used = False


def fingerprint(net: nn.Cell, *parts: object) -> str:
    """A digest of all that a compiled graph of a net depends on but the values of its parameters.

    Args:
        net: The net.
        parts: What else matters; its repr counts.
    """
    digest = hashlib.sha256()
    for part in (ms.__version__, sys.version_info[:2], os.environ.get("ONEDNN_MAX_CPU_ISA"), structure(net), *parts):
        digest.update(repr(part).encode())
    sources = {inspect.getsourcefile(type(cell)) for cell in net.cells()} | {inspect.getsourcefile(type(net))}
    package = Path(__file__).parent
    for source in sorted({str(path) for path in package.glob("*.py")} | {path for path in sources if path}):
        digest.update(Path(source).read_bytes())
    for name, value in _constants(net):
        digest.update(f"{name}={value}".encode())
    return digest.hexdigest()[:20]


def structure(net: nn.Cell) -> str:
    """A net as text that is the same in every process."""
    return _without_addresses(str(net))


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _constants(net: nn.Cell) -> Iterator[tuple[str, str]]:
    """What cells hold besides cells and parameters: plain values are part of the graph."""
    for cell_name, cell in net.cells_and_names():
        for name, value in sorted(vars(cell).items()):
            if isinstance(value, (bool, int, float, str, tuple, list)) and not name.startswith("_"):
                yield f"{cell_name}.{name}", _without_addresses(repr(value))
            elif isinstance(value, ms.Tensor) and not isinstance(value, ms.Parameter):
                yield f"{cell_name}.{name}", hashlib.sha256(value.asnumpy().tobytes()).hexdigest()
        for name, parameter in cell.parameters_and_names(expand=False):
            yield f"{cell_name}.{name}", f"{parameter.shape} {parameter.dtype}"


@contextlib.contextmanager
def compile_cache(root: Path | None, key: str) -> Iterator[bool]:
    """Compiles inside are read from and kept in the folder of a fingerprint; yields whether they are read.

    Only the first use in a process is cached: MindSpore numbers graphs by process, so later ones would not be found
    under the same number again.

    Args:
        root: Where the folders lie; None switches the cache off.
        key: The fingerprint.
    """
    global _used
    if root is None or _used:
        yield False
        return
    _used = True
    folder = root / key
    warm = folder.is_dir()
    if warm:
        os.utime(folder)
        work = folder
    else:
        root.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=root))
    os.environ["MS_COMPILER_CACHE_ENABLE"] = "1"
    os.environ["MS_COMPILER_CACHE_PATH"] = str(work)
    try:
        yield warm
        if not warm:
            # Fails when another process was quicker; then its folder serves as well.
            with contextlib.suppress(OSError):
                work.rename(folder)
    finally:
        os.environ["MS_COMPILER_CACHE_ENABLE"] = "0"
        if not warm:
            shutil.rmtree(work, ignore_errors=True)
        _discard_oldest(root)


def discard(root: Path, key: str) -> None:
    """Removes the folder of a fingerprint, which turned out to be wrong."""
    shutil.rmtree(root / key, ignore_errors=True)


def _discard_oldest(root: Path) -> None:
    def last_used(folder: Path) -> float:
        try:
            return folder.stat().st_mtime
        except OSError:
            return 0.0

    folders = sorted((path for path in root.iterdir() if path.is_dir()), key=last_used, reverse=True)
    for folder in folders[_KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)
