"""What is seen of a net's layers: their calls, their outputs, and the gradients by these."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.surgery import shared_copy, wrapped_copy
from xai_sidecar.backends.mindspore.watching import WatchedNet
from xai_sidecar.backends.spatial.layers import EXAMPLES, Layers, SpatialLayer, find_layers, place
from xai_sidecar.backends.spatial.placement_cache import placed
from xai_sidecar.engine.work import Array
from xai_sidecar.errors import PreconditionError

Calls: TypeAlias = tuple[tuple[str, tuple[int, ...] | None], ...]
"""Each call of a net's cells, by name and in the order in which they finish, with the shape of its output for one
input; None if that is no tensor."""


def trace_calls(net: nn.Cell, example: Array) -> Calls:
    """Runs a net once, and records the calls of its cells.

    Args:
        net: The net; it is not changed.
        example: One input as the net takes it, (1, …) float32.
    """
    copy = shared_copy(net)
    calls: list[tuple[str, Any]] = []
    for name, cell in copy.cells_and_names():
        if name:
            cell.register_forward_hook(_recorder(name, calls))
    copy(ms.Tensor(example))
    return tuple(calls)


def spatial_layers(
    net: nn.Cell,
    calls: Calls,
    example: Array,
    size: tuple[int, int],
    layout: str,
    cache: Path | None = None,
    key: object = (),
) -> Layers:
    """The layers of a net whose output lies on the picture.

    Args:
        net: The net; it is not changed.
        calls: The calls of its cells. Those that run several times in a pass are left out: they have no single output.
        example: One input as the net takes it, (1, …) float32.
        size: Rows and columns of the input.
        layout: "nchw" or "nhwc", the axes of the input.
        cache: Folder in which it is kept where they lie, for the next start; None for none.
        key: For that, all that the layers depend on: the net's version, which has the weights; the key of the compile
            cache, which has the code, of which the version has but a part; and some logits, for what neither has.
    """
    watch = partial(WatchedNet, net)
    layers = find_layers(calls, size, layout)
    return placed(cache, key, layers, lambda all_: place(watch, all_, example, layout))


def layers_with_gradient(net: nn.Cell, layers: Sequence[SpatialLayer], examples: Array, class_count: int) -> list[str]:
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
    for start in range(min(EXAMPLES, len(examples))):
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
