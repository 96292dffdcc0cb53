"""EfficientNet-Lite0's blocks: those of EfficientNet-B0.

As in M. Tan, Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019, table 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
EPSILON = 1e-3
"""Of the batch norms."""


class Stage(NamedTuple):
    """Blocks alike; only the first of them strides."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(repeats=1, kernel=3, stride=1, expansion=1, channels=16),
    Stage(repeats=2, kernel=3, stride=2, expansion=6, channels=24),
    Stage(repeats=2, kernel=5, stride=2, expansion=6, channels=40),
    Stage(repeats=3, kernel=3, stride=2, expansion=6, channels=80),
    Stage(repeats=3, kernel=5, stride=1, expansion=6, channels=112),
    Stage(repeats=4, kernel=5, stride=2, expansion=6, channels=192),
    Stage(repeats=1, kernel=3, stride=1, expansion=6, channels=320),
)


class BlockShape(NamedTuple):
    """An inverted residual: it widens, filters each channel, and projects."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    expansion: int

    @property
    def wide(self) -> int:
        """Channels inside."""
        return self.inputs * self.expansion

    @property
    def residual(self) -> bool:
        """Whether its input is added to what it computes."""
        return self.stride == 1 and self.inputs == self.outputs


def block_shapes() -> Iterator[BlockShape]:
    """The 16 blocks in order."""
    inputs = STEM_CHANNELS
    for stage in STAGES:
        for index in range(stage.repeats):
            stride = stage.stride if index == 0 else 1
            yield BlockShape(inputs, stage.channels, stage.kernel, stride, stage.expansion)
            inputs = stage.channels
