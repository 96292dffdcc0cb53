"""Rules of matrix products."""

from __future__ import annotations

import numpy as np

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.registry import Gradients, rule
from xai_sidecar.backends.graph.tracing import Shape


@rule("Gemm")
def gemm(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Each matrix gets the gradient times the other one, as that stands in the product."""
    one, other = node.inputs[:2]
    first, second = (node.attributes.get(name, 0) for name in ("transA", "transB"))
    alpha = node.attributes.get("alpha", 1.0)

    def product(left: str, right: str, left_transposed: int, right_transposed: int) -> str:
        return emit.op(
            "Gemm", emit.own(left), emit.own(right), transA=left_transposed, transB=right_transposed, alpha=alpha
        )

    by_inputs: list[str | None] = [None, None]
    if emit.is_active(one):
        by_inputs[0] = product(other, gradient, second, 1) if first else product(gradient, other, 0, 1 - second)
    if emit.is_active(other):
        by_inputs[1] = product(gradient, one, 1, first) if second else product(one, gradient, 1 - first, 0)
    bias = node.input(2)
    if not bias:
        return by_inputs
    by_sum = emit.scaled(gradient, node.attributes.get("beta", 1.0))
    return [*by_inputs, emit.unbroadcast(by_sum, bias, node.outputs[0])]


@rule("MatMul")
def matrix_product(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Each matrix gets the gradient times the other one, transposed. A vector is a matrix of one row or column."""
    one, other = node.inputs
    is_row, is_column = emit.rank(one) == 1, emit.rank(other) == 1
    rank = emit.rank(node.outputs[0]) + is_row + is_column
    gradient = emit.unsqueezed(gradient, [*[rank - 2] * is_row, *[rank - 1] * is_column])
    batch = emit.shape(node.outputs[0])[: rank - 2]
    left, right = _Matrix(one, 0 if is_row else None, emit), _Matrix(other, 1 if is_column else None, emit)
    by_left = by_right = None
    if emit.is_active(one):
        product = emit.op("MatMul", gradient, right.transposed())
        by_left = left.summed(product, (*batch, left.shape[-2], right.shape[-2]))
    if emit.is_active(other):
        product = emit.op("MatMul", left.transposed(), gradient)
        by_right = right.summed(product, (*batch, left.shape[-1], right.shape[-1]))
    return [by_left, by_right]


class _Matrix:
    """Matrices that are multiplied, or a vector.

    Args:
        name: Their name.
        added: For a vector: the axis of length 1 that makes it a matrix.
        emit: Writes.
    """

    def __init__(self, name: str, added: int | None, emit: Emitter) -> None:
        self._emit = emit
        self._name = name
        self._added = [] if added is None else [added]
        shape = list(emit.shape(name))
        for axis in self._added:
            shape.insert(axis, 1)
        self.shape: Shape = tuple(shape)

    def transposed(self) -> str:
        """All matrices with rows and columns exchanged; engines do so within the product."""
        value = self._emit.value(self._name)
        if value is not None:
            return self._emit.constant(np.expand_dims(value, self._added).swapaxes(-1, -2), value.dtype)
        *batch, rows, columns = range(len(self.shape))
        return self._emit.transpose(self._emit.unsqueezed(self._name, self._added), [*batch, columns, rows])

    def summed(self, gradient: str, shape: Shape) -> str:
        """The gradient by these matrices, of one that has all batch axes.

        Args:
            gradient: The gradient by these matrices, repeated as they were.
            shape: Its shape.
        """
        return self._emit.squeezed(self._emit.summed_to(gradient, self.shape, shape), self._added)
