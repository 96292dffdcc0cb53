"""A ResNet with made-up weights, written once: as an ONNX graph, and as a plain PyTorch computation of the same."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from xai_sidecar.engine.work import Array

Value = TypeVar("Value")


@dataclass(frozen=True)
class Net:
    """A ResNet of bottlenecks: He et al., arXiv:1512.03385, figure 5; batch norms are folded into the convolutions.

    Attributes:
        blocks: Blocks of each stage.
        width: Channels of the first convolution.
        side: Rows and columns of the input.
        classes: Number of logits.
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    side: int = 224
    classes: int = 1000

    def apply(self, ops: Operations[Value], x: Value) -> Value:
        """The logits of inputs (n, 3, side, side)."""
        x = ops.pool(ops.relu(ops.convolution(x, "stem", (self.width, 3, 7, 7), 2)))
        channels = self.width
        for stage, count in enumerate(self.blocks):
            inner = self.width << stage
            for block in range(count):
                name, stride = f"{stage}.{block}", 2 if stage and not block else 1
                y = ops.relu(ops.convolution(x, f"{name}.1", (inner, channels, 1, 1)))
                y = ops.relu(ops.convolution(y, f"{name}.2", (inner, inner, 3, 3), stride))
                y = ops.convolution(y, f"{name}.3", (4 * inner, inner, 1, 1))
                if channels != 4 * inner or stride != 1:
                    x = ops.convolution(x, f"{name}.shortcut", (4 * inner, channels, 1, 1), stride)
                x = ops.relu(ops.add(y, x))
                channels = 4 * inner
        return ops.dense(ops.mean(x), "head", (self.classes, channels))


class Operations(Protocol[Value]):
    """What a net is made of."""

    def convolution(self, x: Value, name: str, shape: tuple[int, ...], stride: int = 1) -> Value:
        """A convolution whose output is as large as its input, over the stride."""

    def dense(self, x: Value, name: str, shape: tuple[int, ...]) -> Value:
        """A dense layer."""

    def relu(self, x: Value) -> Value:
        """A ReLU."""

    def add(self, x: Value, y: Value) -> Value:
        """A sum."""

    def pool(self, x: Value) -> Value:
        """A maximum over 3 x 3, of stride 2."""

    def mean(self, x: Value) -> Value:
        """The mean over positions, (n, channels)."""


def weights(name: str, shape: tuple[int, ...]) -> Array:
    """Weights that keep the variance of what they are applied to; the same ones for the same name."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    # Half the variance for what comes together with a shortcut.
    gain = 1.0 if name.endswith((".3", ".shortcut", "head")) else 2.0
    return (generator.standard_normal(shape) * math.sqrt(gain / math.prod(shape[1:]))).astype(np.float32)


class OnnxOperations:
    """Operations that become nodes of an ONNX graph; values are names."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._tensors: list[Any] = []

    def convolution(self, x: str, name: str, shape: tuple[int, ...], stride: int = 1) -> str:
        """See `Operations`."""
        pads = [shape[2] // 2] * 4
        return self._node("Conv", [x, self._tensor(name, shape)], pads=pads, strides=[stride] * 2)

    def dense(self, x: str, name: str, shape: tuple[int, ...]) -> str:
        """See `Operations`."""
        return self._node("Gemm", [x, self._tensor(name, shape)], transB=1)

    def relu(self, x: str) -> str:
        """See `Operations`."""
        return self._node("Relu", [x])

    def add(self, x: str, y: str) -> str:
        """See `Operations`."""
        return self._node("Add", [x, y])

    def pool(self, x: str) -> str:
        """See `Operations`."""
        return self._node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)

    def mean(self, x: str) -> str:
        """See `Operations`."""
        return self._node("Flatten", [self._node("GlobalAveragePool", [x])])

    def _node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        from onnx import helper

        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _tensor(self, name: str, shape: tuple[int, ...]) -> str:
        from onnx import numpy_helper

        self._tensors.append(numpy_helper.from_array(weights(name, shape), name))
        return name

    def model(self, net: Net) -> bytes:
        """The net as a serialised model."""
        from onnx import TensorProto, helper

        logits = self._node("Identity", [net.apply(self, "pictures")])
        shape = ["batch", 3, net.side, net.side]
        graph = helper.make_graph(
            self._nodes,
            "resnet",
            [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(logits, TensorProto.FLOAT, ["batch", net.classes])],
            self._tensors,
        )
        made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        return bytes(made.SerializeToString())


class TorchOperations:
    """Operations of PyTorch; values are its tensors, on a device."""

    def __init__(self, device: str) -> None:
        import torch

        self._torch = torch
        self._device = device
        self._kept: dict[str, Any] = {}

    def convolution(self, x: Any, name: str, shape: tuple[int, ...], stride: int = 1) -> Any:
        """See `Operations`."""
        weight = self._weight(name, shape)
        return self._torch.nn.functional.conv2d(x, weight, stride=stride, padding=shape[2] // 2)

    def dense(self, x: Any, name: str, shape: tuple[int, ...]) -> Any:
        """See `Operations`."""
        return self._torch.nn.functional.linear(x, self._weight(name, shape))

    def relu(self, x: Any) -> Any:
        """See `Operations`."""
        return self._torch.relu(x)

    def add(self, x: Any, y: Any) -> Any:
        """See `Operations`."""
        return x + y

    def pool(self, x: Any) -> Any:
        """See `Operations`."""
        return self._torch.nn.functional.max_pool2d(x, 3, 2, 1)

    def mean(self, x: Any) -> Any:
        """See `Operations`."""
        return x.mean((2, 3))

    def _weight(self, name: str, shape: tuple[int, ...]) -> Any:
        if name not in self._kept:
            with self._torch.inference_mode(False):  # what is made inside cannot be derived through later
                self._kept[name] = self._torch.from_numpy(weights(name, shape)).to(self._device)
        return self._kept[name]


def in_torch(net: Net, device: str) -> dict[str, Callable[..., Array]]:
    """The net's passes by a plain PyTorch computation: arrays in, arrays out, as a server has them.

    Args:
        net: The net.
        device: As PyTorch names it: "cuda:0", "cpu".

    Returns:
        "forward" of inputs; "masked_forward" of masks and images; "input_gradient" of inputs and targets.
    """
    import torch

    # As this product computes: float32 is not TF32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True  # by far the faster, once the sizes are known
    ops = TorchOperations(device)

    def sent(array: Array) -> Any:
        return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(device)

    @torch.inference_mode()
    def forward(inputs: Array) -> Array:
        return np.asarray(net.apply(ops, sent(inputs)).cpu().numpy())

    @torch.inference_mode()
    def masked_forward(masks: Array, images: Array) -> Array:
        return np.asarray(net.apply(ops, sent(images[:1]) * sent(masks)[:, None]).cpu().numpy())

    def input_gradient(inputs: Array, targets: Array) -> Array:
        leaf = sent(inputs).requires_grad_()
        logits = net.apply(ops, leaf)
        (gradient,) = torch.autograd.grad(logits[torch.arange(len(targets)), sent(targets).long()].sum(), leaf)
        return np.asarray(gradient.cpu().numpy())

    return {"forward": forward, "masked_forward": masked_forward, "input_gradient": input_gradient}
