"""Finds the layers of a net with a spatial output: one whose positions correspond to those of the picture."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xai_sidecar.backends.mindspore.displacement import displaced
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.surgery import shared_copy, wrapped_copy
from xai_sidecar.backends.mindspore.tokens import UnplacedError, place_tokens
from xai_sidecar.engine.backend import Layer
from xai_sidecar.engine.work import Array
from xai_sidecar.errors import PreconditionError

_MOST_EXTRA = 16
"""Class, distillation and register tokens besides the picture's own, at the most."""

_TRIED = 16
"""Layers whose gradients are computed together in the search for the default layer, from the last one on."""

_EXAMPLES = 2
"""Inputs for all of which a layer that matters is unlikely to be dead."""

_MISFIT = 1.5
"""Cells by which padding may change the size of a grid."""


@dataclass(frozen=True)
class SpatialLayer(Layer):
    """A layer with a spatial output, and its layout.

    Attributes:
        axes: "nchw"; "nhwc"; or "tokens", (n, tokens, channels).
        token_count: Number of tokens, at least height · width.
        order: The index of the token of each position, row by row.
    """

    axes: str
    token_count: int = 0
    order: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the layer's output for one input."""
        if self.axes == "nchw":
            return 1, self.channels, self.height, self.width
        if self.axes == "nhwc":
            return 1, self.height, self.width, self.channels
        return 1, self.token_count, self.channels

    def to_nchw(self, output: Array) -> Array:
        """The layer's output (n, …) as (n, channels, height, width)."""
        if self.axes == "nchw":
            return output
        if self.axes == "tokens":
            output = output[:, list(self.order)].reshape(-1, self.height, self.width, self.channels)
        return output.transpose(0, 3, 1, 2)


@dataclass(frozen=True)
class Layers:
    """The layers of a net, by name, in the order in which they finish.

    Attributes:
        spatial: Those with a spatial output.
        refused: Why others are not counted as such, though their shape suggests it.
        calls: Each call of a layer in order, with the shape of its output; None if that is no tensor.
    """

    spatial: dict[str, SpatialLayer]
    refused: dict[str, str]
    calls: tuple[tuple[str, tuple[int, ...] | None], ...] = ()


def trace_layers(net: nn.Cell, example: Array, height: int, width: int, layout: str) -> Layers:
    """Runs a net once and finds its layers with a spatial output.

    Args:
        net: The net; it is not changed.
        example: One input as the net takes it, (1, …) float32.
        height: Rows of the input.
        width: Columns of the input.
        layout: "nchw" or "nhwc", the axes of the input.

    Returns:
        The layers. Those that run several times in a pass are left out: they have no single output.
    """
    copy = shared_copy(net)
    outputs: list[tuple[str, Any]] = []
    for name, cell in copy.cells_and_names():
        if name:
            cell.register_forward_hook(_recorder(name, outputs))
    copy(ms.Tensor(example))
    token_counts = {shape[1] for _, shape in outputs if shape is not None and len(shape) == 3}
    calls = Counter(name for name, _ in outputs)
    layers: dict[str, SpatialLayer] = {}
    for name, shape in outputs:
        if shape is not None and calls[name] == 1:
            layer = _spatial(name, shape, height, width, layout, token_counts)
            if layer:
                layers[name] = layer
    return replace(_placed(net, layers, example, layout), calls=tuple(outputs))


def _placed(net: nn.Cell, layers: dict[str, SpatialLayer], example: Array, layout: str) -> Layers:
    """The layers with the positions of their tokens; those that lie elsewhere, or have no positions, are refused."""
    groups: dict[tuple[int, int, int], list[SpatialLayer]] = {}
    for layer in layers.values():
        if layer.axes == "tokens":
            groups.setdefault((layer.token_count, layer.height, layer.width), []).append(layer)
    placed, refused = dict(layers), {}
    for (_, height, width), group in groups.items():
        try:
            order = place_tokens(net, group[0].name, example, (height, width), layout)
        except UnplacedError as error:
            refused.update({layer.name: _unplaced(layer, f"{error}.") for layer in group})
        else:
            placed.update({layer.name: replace(layer, order=order) for layer in group})
    kept = [layer for layer in placed.values() if layer.name not in refused]
    moved = displaced(net, kept, example, layout)
    refused.update({layer.name: _displaced(layer) for layer in kept if layer.name in moved})
    return Layers({name: layer for name, layer in placed.items() if name not in refused}, refused)


def _unplaced(layer: SpatialLayer, reason: str) -> str:
    return f"Where the tokens of the layer {layer.name!r} lie on the picture cannot be told: {reason}"


def _displaced(layer: SpatialLayer) -> str:
    if layer.axes == "tokens":
        return _unplaced(layer, "they do not lie as in the layers before.")
    return (
        f"The output of the layer {layer.name!r} does not lie on the picture as its {layer.height} rows and "
        f"{layer.width} columns do: it is shifted, turned or in another order."
    )


def default_layer(net: nn.Cell, layers: dict[str, SpatialLayer], examples: Array, class_count: int) -> str | None:
    """The last layer with a spatial output at whose positions the logits have a gradient.

    Behind the last attention of a transformer that classifies by a class token, the picture's own tokens no longer
    matter to the prediction: their gradient is zero, and so would be every map. Such layers are passed over, as are
    branches that training alone used, and layers inside an attention, whose channels are no longer the embedding's.

    Args:
        net: The net.
        layers: Its layers.
        examples: Some inputs as the net takes them, (n, …) float32.
        class_count: Number of logits.
    """
    tokens = [layer for layer in layers.values() if layer.axes == "tokens"]
    embedded, counts = {layer.channels for layer in tokens[-1:]}, {layer.token_count for layer in tokens}
    candidates = [
        layer
        for layer in layers.values()
        # With as many rows or columns as there are tokens, it is an attention's, split by heads.
        if (layer.channels in embedded if layer.axes == "tokens" else not {layer.height, layer.width} & counts)
    ]
    while candidates:
        last = candidates[-_TRIED:]
        for start in range(min(_EXAMPLES, len(examples))):
            alive = layers_with_gradient(net, last, examples[start : start + 1], class_count)
            if alive:
                return alive[-1]
        del candidates[-_TRIED:]
    return None


def layers_with_gradient(net: nn.Cell, layers: list[SpatialLayer], examples: Array, class_count: int) -> list[str]:
    """Names of the layers by whose output, at the positions of the picture, the logits have a gradient.

    Args:
        net: The net.
        layers: The layers to examine.
        examples: Some inputs as the net takes them, (n, …) float32: what is dead for one may be alive for another.
        class_count: Number of logits.
    """
    # A mix of the logits that no symmetry of theirs is likely to cancel, as their plain sum might be.
    mix = np.random.default_rng(0).standard_normal((1, class_count)).astype(np.float32)
    alive: set[str] = set()
    for start in range(min(_EXAMPLES, len(examples))):
        left = [layer for layer in layers if layer.name not in alive]
        if not left:
            break
        try:
            gradients = layer_gradients(net, left, examples[start : start + 1], mix)
        except Exception:  # of a net that cannot be derived so; then compiling will tell
            return [layer.name for layer in layers]
        alive |= {
            layer.name for layer, gradient in zip(left, gradients, strict=True) if np.any(layer.to_nchw(gradient))
        }
    return [layer.name for layer in layers if layer.name in alive]


def _recorder(name: str, outputs: list[tuple[str, Any]]) -> Any:
    def record(cell: nn.Cell, inputs: Any, output: Any) -> None:
        outputs.append((name, tuple(output.shape) if isinstance(output, ms.Tensor) else None))

    return record


def _spatial(
    name: str, shape: tuple[int, ...], height: int, width: int, layout: str, token_counts: set[int]
) -> SpatialLayer | None:
    if shape[0] != 1:  # windows of an attention, say
        return None
    if len(shape) == 4:
        _, a, b, c = shape
        if b == c and b in token_counts:  # an attention matrix
            return None
        readings = [SpatialLayer(name, a, b, c, "nchw"), SpatialLayer(name, c, a, b, "nhwc")]
        fitting = [one for one in readings if _misfit(one.height, one.width, height, width) < _MISFIT]
        # As many channels as columns, or nearly so: the better fit is right, and on a tie the axes of the input.
        return min(
            fitting, key=lambda one: (_misfit(one.height, one.width, height, width), one.axes != layout), default=None
        )
    if len(shape) == 3:
        for extra in range(min(_MOST_EXTRA + 1, shape[1])):
            grid = _grid(shape[1] - extra, height, width)
            if grid:
                return SpatialLayer(name, shape[2], *grid, "tokens", shape[1])
    return None


def _misfit(rows: int, columns: int, height: int, width: int) -> float:
    """Deviation in cells of a grid from the proportions of the input; infinite for an impossible grid."""
    if rows * columns <= 1 or rows > height or columns > width:
        return math.inf
    scale = math.sqrt(height * width / (rows * columns))
    return max(abs(rows - height / scale), abs(columns - width / scale))


def _grid(count: int, height: int, width: int) -> tuple[int, int] | None:
    """The grid of patches of a whole number of pixels per side that has `count` of them and covers the input."""
    for side in range(1, min(height, width) // 2 + 1):
        if height % side == 0 and width % side == 0 and height * width == count * side * side:
            return height // side, width // side
    return None


class _Shift(nn.Cell):
    """Adds a zero parameter to a layer's output, whose gradient is then the output's, without compiling."""

    def __init__(self, layer: SpatialLayer) -> None:
        super().__init__(auto_prefix=False)
        self.layer: nn.Cell
        self.shift = ms.Parameter(ms.ops.zeros(layer.shape, ms.float32), name=f"xai_shift.{layer.name}")

    def construct(self, *inputs: Any, **named: Any) -> ms.Tensor:
        output = self.layer(*inputs, **named)
        return output + self.shift.astype(output.dtype)


def check_has_gradient(net: nn.Cell, layer: SpatialLayer, examples: Array, class_count: int) -> None:
    """Refuses a layer on which the logits do not depend: all its maps would be zero.

    Arguments are as of `layers_with_gradient`.

    Raises:
        PreconditionError: No logit has a gradient by its output.
    """
    if not layers_with_gradient(net, [layer], examples, class_count):
        raise PreconditionError(
            f"The prediction does not flow through the layer {layer.name!r}: no logit has a gradient by its output. "
            "It belongs to a branch that the logits do not depend on, or its gradient is stopped."
        )


def layer_gradients(net: nn.Cell, layers: list[SpatialLayer], example: Array, mix: Array) -> list[Array]:
    """The gradients of a mix of the logits by the outputs of layers, uncompiled.

    Args:
        net: The net.
        layers: The layers.
        example: One input as the net takes it, (1, …) float32.
        mix: (1, classes) float32, weights of the sum of logits that is differentiated.

    Returns:
        For each layer, an array like its output.
    """
    cells = dict(net.cells_and_names())
    shifts = {cells[layer.name]: _Shift(layer) for layer in layers}
    copy = wrapped_copy(net, shifts)
    derive = ms.grad(lambda x: (copy(x) * ms.Tensor(mix)).sum(), None, [shift.shift for shift in shifts.values()])
    return [gradient.asnumpy() for gradient in derive(ms.Tensor(example))]


def layer_output(net: nn.Cell, layer: SpatialLayer, example: Array) -> Array:
    """The output of a layer for one input as the net takes it, (1, …) float32, uncompiled."""
    copy = shared_copy(net)
    outputs: list[Array] = []
    cell = dict(copy.cells_and_names())[layer.name]
    cell.register_forward_hook(lambda cell, inputs, output: outputs.append(output.asnumpy()))
    copy(ms.Tensor(example))
    return outputs[0]
