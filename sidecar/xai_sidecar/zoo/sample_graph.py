"""EfficientNet-Lite0 as an ONNX graph, made of its weights alone.

Values are named as the layers of the MindSpore cell that compute them: `stem`, `blocks.0` to `blocks.15`, `head`. Batch
norms are folded into the convolutions before them, so that what a cell calls `stem.norm` is the convolution's output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.zoo.stages import EPSILON, BlockShape, block_shapes

SIDE = 224
"""Rows and columns of the input."""

_OPSET = 17
_IR_VERSION = 8
"""The oldest version of the file format for that version of the operators."""

_BOUNDS = ("relu6.least", "relu6.most")


def sample_graph(weights: Mapping[str, NDArray[Any]]) -> bytes:
    """Makes EfficientNet-Lite0: input (batch, 3, 224, 224) float32 → logits (batch, classes) float32.

    Args:
        weights: By the cell's names of its parameters, such as `blocks.0.project.norm.gamma`.

    Returns:
        An ONNX model in the file's format.

    Raises:
        KeyError: A weight is missing.
    """
    from onnx import TensorProto, helper

    maker = _Maker(weights)
    name = maker.unit("stem", "input", stride=2)
    for index, shape in enumerate(block_shapes()):
        name = maker.block(f"blocks.{index}", name, shape)
    maker.classify(maker.unit("head", name))
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(weights["classifier.bias"])])
    graph = helper.make_graph(maker.nodes, "efficientnet-lite0", [picture], [logits], maker.constants)
    imports = [helper.make_opsetid("", _OPSET)]
    made: bytes = helper.make_model(graph, opset_imports=imports, ir_version=_IR_VERSION).SerializeToString()
    return made


class _Maker:
    """Collects the nodes and constants of a graph; each method adds a part and returns the name of its output."""

    def __init__(self, weights: Mapping[str, NDArray[Any]]) -> None:
        self._weights = weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        for name, bound in zip(_BOUNDS, (0, 6), strict=True):
            self._constant(name, np.float32(bound))

    def unit(self, name: str, source: str, stride: int = 1, *, linear: str = "") -> str:
        """A convolution with its batch norm and, unless there is a name for what comes without it, ReLU6."""
        kernel, bias = _folded(self._weights, name)
        rows = kernel.shape[2]
        # TensorFlow's "same": with a stride, the odd row and column of padding come at the bottom and the right.
        padding = rows - stride
        before, after = padding // 2, padding - padding // 2
        output = linear or f"{name}.norm"
        self._add(
            "Conv",
            (source, self._constant(f"{name}.conv.weight", kernel), self._constant(f"{name}.conv.bias", bias)),
            output,
            group=len(kernel) if kernel.shape[1] == 1 else 1,
            kernel_shape=[rows, rows],
            pads=[before, before, after, after],
            strides=[stride, stride],
        )
        return output if linear else self._add("Clip", (output, *_BOUNDS), name)

    def block(self, name: str, source: str, shape: BlockShape) -> str:
        """An inverted residual."""
        wide = source if shape.expansion == 1 else self.unit(f"{name}.expand", source)
        filtered = self.unit(f"{name}.depthwise", wide, shape.stride)
        projected = self.unit(f"{name}.project", filtered, linear=f"{name}.project" if shape.residual else name)
        return self._add("Add", (source, projected), name) if shape.residual else projected

    def classify(self, source: str) -> str:
        """The mean over the positions, and the dense layer."""
        pooled = self._add("GlobalAveragePool", (source,), "pooled")
        features = self._add("Flatten", (pooled,), "features", axis=1)
        dense = [self._constant(name, self._weights[name]) for name in ("classifier.weight", "classifier.bias")]
        return self._add("Gemm", (features, *dense), "logits", transB=1)

    def _add(self, kind: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, value: NDArray[Any] | np.float32) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name


def _folded(weights: Mapping[str, NDArray[Any]], name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The kernel and bias of a convolution that does what its batch norm did behind it."""
    kernel, *norm = (
        weights[f"{name}.{part}"].astype(np.float64)
        for part in ("conv.weight", "norm.gamma", "norm.beta", "norm.moving_mean", "norm.moving_variance")
    )
    gamma, beta, mean, variance = norm
    scale = gamma / np.sqrt(variance + EPSILON)
    return kernel * scale[:, None, None, None], beta - mean * scale
