"""What the graph backend loads, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xai_sidecar.ood.head import OodHead


@dataclass(frozen=True)
class GraphSource:
    """An ONNX file and the device and options to run it with.

    Attributes:
        path: The file.
        input: Name of the input of pictures; None if there is only one.
        output: Name of the logits, or of what an activation made of them; None if there is only one output.
        activation: "softmax" or "sigmoid", as the config has it.
        device: "cpu", "gpu" or "ascend", optionally with ":index".
        preparation: Text that tells how pictures become inputs; it becomes part of the version.
        layout: Axes of the net's input, "nchw" or "nhwc".
        channels: Channels of the input.
        height: Rows of the input.
        width: Columns of the input.
        batch_sizes: Batch sizes of forward passes.
        gradient_batch_sizes: Batch sizes of passes with a gradient.
        cache: Folder for what engines have compiled; None for none.
        forward_engine: "auto", or the one engine to use.
        threads: Number of threads that compute passes on a CPU; None for one on each usable CPU.
        ood: The head of the OoD net; None for none.
        calls: How many batches are run at once; on a CPU, a program divides its threads among so many.
    """

    path: Path
    input: str | None = None
    output: str | None = None
    activation: str = "softmax"
    device: str = "cpu"
    preparation: str = ""
    layout: str = "nchw"
    channels: int = 3
    height: int = 224
    width: int = 224
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8)
    gradient_batch_sizes: tuple[int, ...] = (1,)
    cache: Path | None = None
    forward_engine: str = "auto"
    threads: int | None = None
    ood: OodHead | None = None
    calls: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one input as the net takes it."""
        if self.layout == "nhwc":
            return self.height, self.width, self.channels
        return self.channels, self.height, self.width
