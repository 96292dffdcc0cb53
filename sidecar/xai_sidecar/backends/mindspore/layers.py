"""Finding the layers of a net whose output lies on the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.surgery import shared_copy, wrapped_copy
from xai_sidecar.engine.backend import Layer
from xai_sidecar.engine.work import Array

_LONGEST_PREFIX = 8
"""Class, distillation and register tokens before the picture's own, at the most."""


@dataclass(frozen=True)
class SpatialLayer(Layer):
    """A layer whose output lies on the picture, and how.

    Attributes:
        axes: "nchw"; "nhwc"; or "tokens", (n, prefix + height · width, channels).
        prefix: Tokens before those of the picture.
    """

    axes: str
    prefix: int = 0

    def to_nchw(self, output: Array) -> Array:
        """The layer's output (n, …) as (n, channels, height, width)."""
        if self.axes == "nchw":
            return output
        if self.axes == "tokens":
            output = output[:, self.prefix :].reshape(-1, self.height, self.width, self.channels)
        return output.transpose(0, 3, 1, 2)


@dataclass(frozen=True)
class Traced:
    """What one pass through a net showed.

    Attributes:
        layers: The layers with a spatial output that run once in a pass, in the order in which they finish.
        repeated: Names of those that run several times, so that "their output" means nothing.
    """

    layers: dict[str, SpatialLayer]
    repeated: frozenset[str]


def trace_layers(net: nn.Cell, example: Array, height: int, width: int) -> Traced:
    """Runs a net once and sees which of its layers have a spatial output.

    Args:
        net: The net; it is not changed.
        example: One input as the net takes it, (1, …) float32.
        height: Rows of the input.
        width: Columns of the input.
    """
    copy = shared_copy(net)
    outputs: list[tuple[str, Any]] = []
    for name, cell in copy.cells_and_names():
        if name:
            cell.register_forward_hook(_recorder(name, outputs))
    copy(ms.Tensor(example))
    token_counts = {shape[1] for _, shape in outputs if shape is not None and len(shape) == 3}
    calls: dict[str, int] = {}
    layers: dict[str, SpatialLayer] = {}
    for name, shape in outputs:
        calls[name] = calls.get(name, 0) + 1
        layer = shape and _spatial(name, shape, height, width, token_counts)
        if layer:
            layers[name] = layer
    repeated = frozenset(name for name in layers if calls[name] > 1)
    return Traced({name: layer for name, layer in layers.items() if calls[name] == 1}, repeated)


def default_layer(net: nn.Cell, layers: dict[str, SpatialLayer], example: Array, class_count: int) -> str | None:
    """The last layer with a spatial output through whose positions the prediction still flows.

    Behind the last attention of a transformer that classifies by a class token, the picture's own tokens no longer
    matter to the prediction: their gradient is zero, and so would be every map. Such layers are passed over, and so
    are those inside an attention, whose channels are no longer the embedding's.
    """
    if not layers:
        return None
    last = list(layers.values())[-1]
    if last.axes != "tokens":
        return last.name
    candidates = [layer for layer in layers.values() if layer.axes == "tokens" and layer.channels == last.channels]
    alive = _with_gradient(net, candidates, example, class_count)
    return alive[-1] if alive else None


def _recorder(name: str, outputs: list[tuple[str, Any]]) -> Any:
    def record(cell: nn.Cell, inputs: Any, output: Any) -> None:
        outputs.append((name, tuple(output.shape) if isinstance(output, ms.Tensor) else None))

    return record


def _spatial(name: str, shape: tuple[int, ...], height: int, width: int, token_counts: set[int]) -> SpatialLayer | None:
    if shape[0] != 1:  # windows of an attention, say
        return None
    if len(shape) == 4:
        _, a, b, c = shape
        attention = b == c and b in token_counts
        if _fits(b, c, height, width) and not attention:
            return SpatialLayer(name, a, b, c, "nchw")
        if _fits(a, b, height, width) and not attention:
            return SpatialLayer(name, c, a, b, "nhwc")
    if len(shape) == 3:
        for prefix in range(min(_LONGEST_PREFIX, shape[1])):
            grid = _grid(shape[1] - prefix, height, width)
            if grid:
                return SpatialLayer(name, shape[2], *grid, "tokens", prefix)
    return None


def _fits(rows: int, columns: int, height: int, width: int) -> bool:
    """Whether a grid of more than one cell has the proportions of the input, up to what padding adds or takes."""
    if rows * columns <= 1 or rows > height or columns > width:
        return False
    scale = math.sqrt(height * width / (rows * columns))
    return abs(rows - height / scale) < 1.5 and abs(columns - width / scale) < 1.5


def _grid(count: int, height: int, width: int) -> tuple[int, int] | None:
    """The grid of patches of a whole number of pixels per side that has `count` of them and covers the input."""
    for side in range(1, min(height, width) // 2 + 1):
        if height % side == 0 and width % side == 0 and height * width == count * side * side:
            return height // side, width // side
    return None


class _Shift(nn.Cell):
    """A layer whose output is shifted by a parameter, so that its gradient can be had without compiling."""

    def __init__(self, layer: SpatialLayer) -> None:
        super().__init__(auto_prefix=False)
        self.layer: nn.Cell
        shape = (1, layer.prefix + layer.height * layer.width, layer.channels)
        self.shift = ms.Parameter(ms.ops.zeros(shape, ms.float32), name=f"xai_shift.{layer.name}")

    def construct(self, *inputs: Any) -> ms.Tensor:
        return self.layer(*inputs) + self.shift


def _with_gradient(net: nn.Cell, layers: list[SpatialLayer], example: Array, class_count: int) -> list[str]:
    """The names of those layers, all of tokens, whose output at the picture's own tokens the logits depend on."""
    cells = dict(net.cells_and_names())
    shifts = {cells[layer.name]: _Shift(layer) for layer in layers}
    copy = wrapped_copy(net, shifts)
    # A mix of the logits that no symmetry of theirs is likely to cancel, as their plain sum might be.
    mix = ms.Tensor(np.random.default_rng(0).standard_normal((1, class_count)).astype(np.float32))
    derive = ms.grad(lambda x: (copy(x) * mix).sum(), None, [shift.shift for shift in shifts.values()])
    gradients = derive(ms.Tensor(example))
    return [
        layer.name
        for layer, gradient in zip(layers, gradients, strict=True)
        if np.any(layer.to_nchw(gradient.asnumpy()))
    ]
