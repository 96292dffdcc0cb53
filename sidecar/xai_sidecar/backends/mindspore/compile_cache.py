"""Makes MindSpore's compile cache on disk safe to use.

MindSpore files compiled graphs by the order in which they were compiled and checks little more than the sources beside
the entry script. So every combination of net, input and programs has a folder of its own here, named by a key of all
that goes into a graph, sources and MindSpore's version, too; it is filled under a temporary name and appears only when
complete. So a killed process, or two that start at once, leave no incomplete folder that would be read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import site
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.engine.backend import Report

_OURS = "mindspore-graphs"
"""The subfolder of the cache that is tidied; nothing outside of it is ever removed."""

_KEPT = 8
"""Keys kept; the least recently used ones are removed."""

_ABANDONED_SECONDS = 3600
"""Age at which a temporary folder belongs to a process that was killed."""

_CELL_ATTRIBUTES = frozenset(vars(nn.Cell()))
_used = False


def cache_key(net: nn.Cell, *parts: object) -> str:
    """A digest of all that a compiled graph of a net depends on but the values of its parameters.

    It has nothing to do with the net's version (`net_version`): another key only means that a start compiles anew.

    Args:
        net: The net.
        parts: Further values that the digest depends on, by their repr.
    """
    digest = hashlib.sha256()
    for part in (ms.__version__, sys.version_info[:2], os.environ.get("ONEDNN_MAX_CPU_ISA"), structure(net), *parts):
        digest.update(repr(part).encode())
    for path in _sources(net):
        digest.update(path.read_bytes())
    for name, value in _constants(net):
        digest.update(f"{name}={value}".encode())
    return digest.hexdigest()[:20]


def earlier_version(net: nn.Cell, *parts: object) -> str:
    """The version of a net as OoD nets trained by earlier releases have it in their files, so that they stay valid.

    Args:
        net: The net.
        parts: Further values that the digest depends on, by their repr.
    """
    digest = hashlib.sha256(repr((structure(net), *parts)).encode())
    for name, value in _constants(net):
        digest.update(f"{name}={value}".encode())
    for parameter in net.get_parameters():
        digest.update(parameter.name.encode())
        digest.update(parameter.asnumpy().tobytes())
    return digest.hexdigest()[:12]


def structure(net: nn.Cell) -> str:
    """A net as text that is the same in every process."""
    return _without_addresses(str(net))


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _sources(net: nn.Cell) -> list[Path]:
    """The sources that a graph may be made of.

    Those are this package, the whole packages that the net's cells come from, and every module of the user's own, that
    is, one that is neither installed nor of the standard library.
    """
    packages = {type(cell).__module__.partition(".")[0] for _, cell in net.cells_and_names()} - {"mindspore"}
    own = Path(__file__).parent
    paths = set(own.glob("*.py"))
    installed = _installed_below()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name.startswith("xai_sidecar"):
            wanted = name.startswith("xai_sidecar.zoo.")
        else:
            wanted = name.partition(".")[0] in packages or not file.startswith(installed)
        if wanted and file.endswith(".py") and Path(file).is_file():
            paths.add(Path(file))
    return sorted(paths)


def _installed_below() -> tuple[str, ...]:
    """The folders of what is installed and of the standard library, each with a separator at its end."""
    paths = sysconfig.get_paths()
    folders = {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], *site.getsitepackages()}
    return tuple(str(Path(folder)) + os.sep for folder in (*folders, site.getusersitepackages()))


def _constants(net: nn.Cell) -> Iterator[tuple[str, str]]:
    """What cells hold besides cells and parameters: it becomes part of the graph."""
    for cell_name, cell in net.cells_and_names():
        for name, value in sorted(vars(cell).items()):
            if name not in _CELL_ATTRIBUTES:
                yield f"{cell_name}.{name}", _described(value)
        for name, parameter in cell.parameters_and_names(expand=False):
            yield f"{cell_name}.{name}", f"{parameter.shape} {parameter.dtype}"


def _described(value: Any) -> str:
    if isinstance(value, ms.Tensor) and not isinstance(value, ms.Parameter):
        value = value.asnumpy()
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype} {hashlib.sha256(value.tobytes()).hexdigest()}"
    # What a primitive draws by is used in training alone, and differs with all that was made before it.
    return re.sub(r"\b(Seed\d)=\d+", r"\1=0", _without_addresses(repr(value)))


@contextlib.contextmanager
def compile_cache(root: Path | None, key: str, report: Report = lambda line: None) -> Iterator[bool]:
    """Compiles inside are read from and kept in the folder of a key; yields whether they are read.

    Only the first use in a process is cached: MindSpore numbers graphs by process, so later ones would not be found
    under the same number again. A cache that cannot be written is reported and done without.

    Args:
        root: Where the folders lie; None switches the cache off.
        key: As of `cache_key`, with the programs.
        report: Told when there is no caching though it was asked for.
    """
    global _used
    if root is None or _used:
        yield False
        return
    folder = root / _OURS / key
    warm = folder.is_dir()
    try:
        work = folder if warm else _temporary(folder)
    except OSError as error:
        report(f"compiled programs are not cached: {error}")
        yield False
        return
    _used = True
    os.environ["MS_COMPILER_CACHE_ENABLE"] = "1"
    os.environ["MS_COMPILER_CACHE_PATH"] = str(work)
    try:
        yield warm
        if not warm:
            work.chmod(0o755)  # readable to the user of an image that root has built
            # Fails when another process was quicker; then its folder serves as well.
            with contextlib.suppress(OSError):
                work.rename(folder)
    finally:
        os.environ["MS_COMPILER_CACHE_ENABLE"] = "0"
        if not warm:
            shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(OSError):  # a folder that may only be read
            os.utime(folder)
            _tidy(folder.parent)


@contextlib.contextmanager
def uncached() -> Iterator[None]:
    """Compiles inside neither read MindSpore's compile cache nor fill it: it goes by the order of compiling."""
    enabled = os.environ.get("MS_COMPILER_CACHE_ENABLE", "0")
    os.environ["MS_COMPILER_CACHE_ENABLE"] = "0"
    try:
        yield
    finally:
        os.environ["MS_COMPILER_CACHE_ENABLE"] = enabled


def discard(root: Path, key: str) -> None:
    """Removes the folder of a key, which turned out to be wrong."""
    shutil.rmtree(root / _OURS / key, ignore_errors=True)


def _temporary(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))


def _tidy(ours: Path) -> None:
    folders = sorted(ours.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    complete = [path for path in folders if not path.suffix]
    abandoned = [path for path in folders if path.suffix and time.time() - path.stat().st_mtime > _ABANDONED_SECONDS]
    for path in (*complete[_KEPT:], *abandoned):
        shutil.rmtree(path, ignore_errors=True)
