"""EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation, with ReLU6 in the place of swish.

Blocks as in M. Tan, Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
table 1; the Lite changes as in TensorFlow's `tpu/models/official/efficientnet/lite`.
"""

from __future__ import annotations

from typing import NamedTuple

from mindspore import Tensor, nn


class _Stage(NamedTuple):
    """Blocks alike; only the first of them strides."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280
_STAGES = (
    _Stage(repeats=1, kernel=3, stride=1, expansion=1, channels=16),
    _Stage(repeats=2, kernel=3, stride=2, expansion=6, channels=24),
    _Stage(repeats=2, kernel=5, stride=2, expansion=6, channels=40),
    _Stage(repeats=3, kernel=3, stride=2, expansion=6, channels=80),
    _Stage(repeats=3, kernel=5, stride=1, expansion=6, channels=112),
    _Stage(repeats=4, kernel=5, stride=2, expansion=6, channels=192),
    _Stage(repeats=1, kernel=3, stride=1, expansion=6, channels=320),
)


class _ConvUnit(nn.Cell):
    """Convolution, batch norm and, unless `linear`, ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        # "same" is TensorFlow's: with a stride, the odd row and column of padding come at the bottom and the right.
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, pad_mode="same", group=groups, has_bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.99)
        self.activation = nn.Identity() if linear else nn.ReLU6()

    def construct(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


class _Block(nn.Cell):
    """Inverted residual: widen (unless the expansion is 1), filter each channel, project; add the input if it fits."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = nn.Identity() if expansion == 1 else _ConvUnit(inputs, wide)
        self.depthwise = _ConvUnit(wide, wide, kernel, stride, groups=wide)
        self.project = _ConvUnit(wide, outputs, linear=True)
        self.residual = stride == 1 and inputs == outputs

    def construct(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLite(nn.Cell):
    """The net of `efficientnet_lite0`; its layers are `stem`, `blocks.0` to `blocks.15`, `head` and `classifier`."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = _ConvUnit(3, _STEM_CHANNELS, kernel=3, stride=2)
        self.blocks = nn.SequentialCell(_blocks())
        self.head = _ConvUnit(_STAGES[-1].channels, _HEAD_CHANNELS)
        self.classifier = nn.Dense(_HEAD_CHANNELS, num_classes)

    def construct(self, x: Tensor) -> Tensor:
        """Logits, (N, num_classes) float32, of pictures, (N, 3, H, W) float32."""
        features = self.head(self.blocks(self.stem(x)))
        return self.classifier(features.mean((2, 3)))


def efficientnet_lite0(num_classes: int = 1000) -> EfficientNetLite:
    """Builds the cell, with random weights.

    It takes (N, 3, 224, 224) float32, normalised by mean 127/255 and std 128/255, and returns logits.

    Args:
        num_classes: Length of the output.
    """
    return EfficientNetLite(num_classes)


def _blocks() -> list[_Block]:
    blocks = []
    inputs = _STEM_CHANNELS
    for stage in _STAGES:
        for index in range(stage.repeats):
            stride = stage.stride if index == 0 else 1
            blocks.append(_Block(inputs, stage.channels, stage.kernel, stride, stage.expansion))
            inputs = stage.channels
    return blocks
