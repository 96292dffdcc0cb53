"""Modified copies of a net that share its weights; the net itself stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from xai_sidecar.backends.mindspore.runtime import ms, nn


def shared_copy(net: nn.Cell, replacements: Mapping[nn.Cell, nn.Cell] | None = None) -> nn.Cell:
    """A copy of a net's structure on the same weights, for inference.

    Replacing goes by identity and so reaches a cell wherever the net refers to it: as an attribute, in a list, in the
    tuple that a SequentialCell keeps besides. Neither the structure nor the parameters of the original change, their
    names included.

    Args:
        net: The net.
        replacements: For each cell to be replaced, its replacement.
    """
    memo: dict[int, Any] = {id(parameter): parameter for parameter in net.get_parameters()}
    # Operations hold no state, and some cannot be copied: LRN and Dropout2d raise a TypeError.
    for _, cell in net.cells_and_names():
        memo.update({id(value): value for value in vars(cell).values() if isinstance(value, ms.ops.Primitive)})
    for cell, replacement in (replacements or {}).items():
        memo[id(cell)] = replacement
    return copy.deepcopy(net, memo).set_train(False)


class Tap(nn.Cell):
    """Identity that returns a layer's output and its gradient as the "gradients" of two unused parameters.

    That needs no hook, so it works compiled, in one pass.
    """

    def construct(self, x: ms.Tensor, activation: ms.Parameter, gradient: ms.Parameter) -> ms.Tensor:
        """Returns x."""
        return x

    def bprop(
        self, x: ms.Tensor, activation: ms.Parameter, gradient: ms.Parameter, out: ms.Tensor, dout: ms.Tensor
    ) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor]:
        """Passes the gradient on; the parameters' gradients are the output and its gradient."""
        return dout, out, dout


class Tapped(nn.Cell):
    """A layer with a tap on its output.

    Attributes:
        layer: The layer; to be set, as by `wrapped_copy`.
        activation: Parameter whose gradient is the layer's output.
        gradient: Parameter whose gradient is the gradient of the layer's output.
    """

    def __init__(self) -> None:
        # Without auto_prefix=False the parameters of the layer would be renamed, in the original net as well.
        super().__init__(auto_prefix=False)
        self.layer: nn.Cell
        self.tap = Tap()
        self.activation = ms.Parameter(ms.Tensor([0.0], ms.float32), name="xai_tap_activation")
        self.gradient = ms.Parameter(ms.Tensor([0.0], ms.float32), name="xai_tap_gradient")

    def construct(self, *inputs: Any, **named: Any) -> ms.Tensor:
        """The layer's output."""
        return self.tap(self.layer(*inputs, **named), self.activation, self.gradient)


def wrapped_copy(net: nn.Cell, wrappers: Mapping[nn.Cell, nn.Cell]) -> nn.Cell:
    """A copy of a net on the same weights, some of whose cells have a wrapper around them, nested ones too.

    Args:
        net: The net.
        wrappers: For each cell to be wrapped, its wrapper; the wrapper's attribute `layer` is set to the cell's copy.
    """
    for cell, wrapper in wrappers.items():
        others = {other: replacement for other, replacement in wrappers.items() if other is not cell}
        wrapper.layer = shared_copy(cell, others)
        copy_plain_attributes(cell, wrapper)
    return shared_copy(net, wrappers)


def copy_plain_attributes(cell: nn.Cell, stand_in: nn.Cell) -> None:
    """Copies plain attributes, which nets read of their layers, to the cell that replaces one: channels, say."""
    for name, value in vars(cell).items():
        if isinstance(value, (bool, int, float, str, tuple)) and not hasattr(stand_in, name):
            setattr(stand_in, name, value)


def tapped_copy(net: nn.Cell, layer: nn.Cell) -> tuple[nn.Cell, Tapped]:
    """A copy of a net on the same weights with a tap behind one of its layers, and the tap."""
    tapped = Tapped()
    return wrapped_copy(net, {layer: tapped}), tapped
