"""EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation, with ReLU6 in the place of swish.

The Lite changes are as in TensorFlow's `tpu/models/official/efficientnet/lite`.
"""

from __future__ import annotations

from mindspore import Tensor, nn

from xai_sidecar.zoo.stages import EPSILON, HEAD_CHANNELS, STEM_CHANNELS, BlockShape, block_shapes


class _ConvUnit(nn.Cell):
    """Convolution, batch norm and, unless `linear`, ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        # "same" is TensorFlow's: with a stride, the odd row and column of padding come at the bottom and the right.
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, pad_mode="same", group=groups, has_bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=EPSILON, momentum=0.99)
        self.activation = nn.Identity() if linear else nn.ReLU6()

    def construct(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


class _Block(nn.Cell):
    """Inverted residual: widen (unless the expansion is 1), filter each channel, project; add the input if it fits."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        wide = shape.wide
        self.expand = nn.Identity() if shape.expansion == 1 else _ConvUnit(shape.inputs, wide)
        self.depthwise = _ConvUnit(wide, wide, shape.kernel, shape.stride, groups=wide)
        self.project = _ConvUnit(wide, shape.outputs, linear=True)
        self.residual = shape.residual

    def construct(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLite(nn.Cell):
    """The net of `efficientnet_lite0`; its layers are `stem`, `blocks.0` to `blocks.15`, `head` and `classifier`."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        shapes = list(block_shapes())
        self.stem = _ConvUnit(3, STEM_CHANNELS, kernel=3, stride=2)
        self.blocks = nn.SequentialCell([_Block(shape) for shape in shapes])
        self.head = _ConvUnit(shapes[-1].outputs, HEAD_CHANNELS)
        self.classifier = nn.Dense(HEAD_CHANNELS, num_classes)

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
