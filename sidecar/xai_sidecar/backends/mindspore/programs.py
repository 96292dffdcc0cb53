"""The compiled programs: one for each kind of work, specialised by batch size when first called.

They are cells, since MindSpore's compile cache binds a cached graph to the weights of the cell whose method it is; a
cached graph of a free function comes back bound to none and computes nonsense. They are cells with auto_prefix off,
since the net's parameters would otherwise be renamed when the net becomes their child.

The target's logit is selected by a product with a one-hot matrix: that compiles everywhere, an index does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import TypeAlias

import numpy as np

from xai_sidecar.backends.mindspore.runtime import api, ms, nn
from xai_sidecar.backends.mindspore.surgery import Tapped
from xai_sidecar.engine.work import Array

Program: TypeAlias = Callable[[tuple[Array, ...]], tuple[Array, ...]]
"""A compiled program: takes and returns arrays whose first axis is the batch; the last one returned are logits."""


def compiled_graphs() -> frozenset[str]:
    """The names of all graphs compiled in this process."""
    return frozenset(api.ms_compile_cache)


def release_graphs(graphs: Collection[str]) -> None:
    """Frees compiled graphs, some 30 MB each, by name. MindSpore keeps them even after their cell is gone."""
    if graphs:
        api.ms_compile_cache.difference_update(graphs)
        api.JitExecutor_.get_instance().del_net_res(None, set(graphs))


@contextlib.contextmanager
def in_place_as_plain() -> Iterator[None]:
    """Inside, MindSpore compiles `x += y` as `x = x + y`.

    Operations in place cannot be exported, are not eliminated where their result is unused, and gave wrong gradients
    where another operation needs the overwritten value.
    """
    from mindspore.graph._parse import resources

    operators = resources.parse_augassign_object_map
    in_place = dict(operators)
    operators.update(resources.parse_object_map)
    try:
        yield
    finally:
        operators.update(in_place)


def forward_program(net: nn.Cell) -> Program:
    """Inputs (n, …) float32 → logits (n, classes), or all outputs of the cell, such as features and logits."""
    forward = _Forward(net)
    return lambda rows: as_arrays(forward(ms.Tensor(rows[0])))


def as_arrays(outputs: ms.Tensor | tuple[ms.Tensor, ...]) -> tuple[Array, ...]:
    """The tensor or tensors that a cell returned, as arrays."""
    return tuple(output.asnumpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,)))


def input_gradient_program(net: nn.Cell, class_count: int) -> Program:
    """Inputs (n, …) float32, targets (n,) → gradients (n, …), logits (n, classes)."""
    return _on_targets(_InputGradient(net), class_count)


def layer_gradient_program(net: nn.Cell, tapped: Tapped, class_count: int) -> Program:
    """Inputs (n, …) float32, targets (n,) → the layer's outputs, their gradients, logits (n, classes)."""
    return _on_targets(_LayerGradient(net, tapped), class_count)


def _on_targets(program: nn.Cell, class_count: int) -> Program:
    def run(rows: tuple[Array, ...]) -> tuple[Array, ...]:
        *inputs, targets = rows
        chosen = np.zeros((len(targets), class_count), np.float32)
        chosen[np.arange(len(targets)), targets] = 1
        return tuple(output.asnumpy() for output in program(*map(ms.Tensor, inputs), ms.Tensor(chosen)))

    return run


class _Forward(nn.Cell):
    def __init__(self, net: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.net = net

    @ms.jit
    def construct(self, inputs: ms.Tensor) -> ms.Tensor:
        return self.net(inputs)


class _InputGradient(nn.Cell):
    def __init__(self, net: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.net = net
        self.derive = ms.value_and_grad(self.selected, grad_position=0, weights=None, has_aux=True)

    def selected(self, inputs: ms.Tensor, chosen: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        logits = self.net(inputs)
        return (logits * chosen).sum(), logits

    @ms.jit
    def construct(self, inputs: ms.Tensor, chosen: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        (_, logits), gradients = self.derive(inputs, chosen)
        return gradients, logits


class _LayerGradient(nn.Cell):
    def __init__(self, net: nn.Cell, tapped: Tapped) -> None:
        super().__init__(auto_prefix=False)
        self.net = net
        weights = [tapped.activation, tapped.gradient]
        self.derive = ms.value_and_grad(self.selected, grad_position=None, weights=weights, has_aux=True)

    def selected(self, inputs: ms.Tensor, chosen: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        logits = self.net(inputs)
        return (logits * chosen).sum(), logits

    @ms.jit
    def construct(self, inputs: ms.Tensor, chosen: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor]:
        (_, logits), (activations, gradients) = self.derive(inputs, chosen)
        return activations, gradients, logits
