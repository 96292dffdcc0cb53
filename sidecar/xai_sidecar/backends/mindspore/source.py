"""What the MindSpore backend loads, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xai_sidecar.ood.head import OodHead


@dataclass(frozen=True)
class ModelSource:
    """A model and the device and options to load it with.

    Attributes:
        factory: ``module:callable`` returning a cell.
        arguments: Its keyword arguments.
        checkpoint: Weights; None keeps the factory's own.
        device: "cpu", "gpu" or "ascend", optionally with ":index".
        preparation: Text that tells how pictures become inputs; it becomes part of the version.
        layout: Axes of the net's input, "nchw" or "nhwc".
        channels: Channels of the input.
        height: Rows of the input.
        width: Columns of the input.
        batch_sizes: Batch sizes of forward passes.
        gradient_batch_sizes: Batch sizes of passes with a gradient.
        cache: Folder of the compile cache; None for none.
        forward_engine: "auto", "onnxruntime" or "mindspore", what runs passes without a gradient on a CPU.
        ood: The head of the OoD net; None for none.
        threads: Number of threads that compute passes on a CPU; None for one on each usable CPU.
    """

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None
    device: str = "cpu"
    preparation: str = ""
    layout: str = "nchw"
    channels: int = 3
    height: int = 224
    width: int = 224
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8)
    gradient_batch_sizes: tuple[int, ...] = (1, 4)
    cache: Path | None = None
    forward_engine: str = "auto"
    ood: OodHead | None = None
    threads: int | None = None
