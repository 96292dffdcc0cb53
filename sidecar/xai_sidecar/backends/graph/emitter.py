"""Adds operations to a graph, in the version of ONNX's operators that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xai_sidecar.backends.graph.graph import Graph, Node
from xai_sidecar.backends.graph.tracing import Shape, Traced
from xai_sidecar.engine.work import Array

_PREFIX = "derivative"
"""What names of added values begin with."""


@dataclass(frozen=True)
class _Piece:
    """A value with zeros around it: how many before and after, along each axis."""

    value: str
    before: tuple[int, ...]
    after: tuple[int, ...]

    def along(self, axis: int) -> tuple[int, int] | None:
        """Those along an axis; None if there are others."""
        others = [place for place in range(len(self.before)) if place != axis]
        if any(self.before[place] or self.after[place] for place in others):
            return None
        return self.before[axis], self.after[axis]


class Emitter:
    """Adds operations to a graph. Rules of derivatives write with it.

    Args:
        graph: The graph. It is changed.
        traced: The shapes and types of its values.
        dtype: Type of the logits, in which gradients begin. While a rule writes, it is that of its node's output.
        active: Names of the values between what is derived by and the logits: those whose gradient is wanted.
        rectifiers: Names of the outputs of rectifiers, which follow `relu_rule`.
        relu_rule: As of `engine.work.Kind`, or `relu_rules.CHOSEN`.
    """

    def __init__(
        self,
        graph: Graph,
        traced: Traced,
        dtype: np.dtype[Any],
        active: Iterable[str] = (),
        rectifiers: Iterable[str] = (),
        relu_rule: str = "",
    ) -> None:
        self.graph = graph
        self.dtype = dtype
        self.relu_rule = relu_rule
        self._traced = traced
        self._active = frozenset(active)
        self._rectifiers = frozenset(rectifiers)
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._pieces: dict[str, _Piece] = {}
        self._products: dict[str, tuple[str, str]] = {}
        self._once: dict[str, str] = {}
        self._count = 0

    # ------------------------------------------------------------------------------------ what is known of the graph

    @property
    def opset(self) -> int:
        """The version of the operators."""
        return self.graph.opset

    def is_active(self, name: str) -> bool:
        """Whether the gradient by a value is wanted."""
        return name in self._active

    def is_ruled(self, node: Node) -> bool:
        """Whether a node is a rectifier for which a ReLU rule holds."""
        return bool(self.relu_rule) and node.outputs[0] in self._rectifiers

    def shape(self, name: str) -> Shape:
        """The shape of a value of the original graph; None for axes that go by the batch size."""
        return self._traced.shapes[name]

    def rank(self, name: str) -> int:
        """The number of axes of a value of the original graph."""
        return len(self.shape(name))

    def type(self, name: str) -> np.dtype[Any]:
        """The type of a value of the original graph."""
        return self._traced.dtypes[name]

    def value(self, name: str) -> Array | None:
        """The value of a constant; None if it is none, or left out."""
        return self.graph.constants.get(name)

    # ------------------------------------------------------------------------------------ operations

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds an operation with one output, and returns its name. Attributes that are None are left out."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, count: int, *inputs: str, **attributes: Any) -> tuple[str, ...]:
        """Adds an operation with several outputs."""
        self._count += 1
        outputs = tuple(f"{_PREFIX}/{self._count}/{kind}{f'/{place}' if place else ''}" for place in range(count))
        given = {name: value for name, value in attributes.items() if value is not None}
        self.graph.nodes.append(Node(kind, inputs, outputs, given, outputs[0]))
        return outputs

    def constant(self, value: Any, dtype: Any = None) -> str:
        """A constant; by default numbers have the type of gradients.

        Numbers and lists that are equal are one constant. Matrices and kernels are not: OpenVINO 2026.4 packs a
        constant once for all that multiply with it, be it by its rows or by its columns, by a convolution or by a
        transposed one. Where its first two axes are as long, the second computes with mixed up numbers.
        """
        array = np.asarray(value, self.dtype if dtype is None else dtype)
        content = array.tobytes() if array.ndim < 2 else str(len(self._constants)).encode()
        key = array.dtype.str, array.shape, content
        if key not in self._constants:
            self._constants[key] = f"{_PREFIX}/constant/{len(self._constants)}"
            self.graph.constants[self._constants[key]] = array
        return self._constants[key]

    def once(self, key: str, write: Callable[[], str]) -> str:
        """A value that is written when it is first wanted under a key."""
        if key not in self._once:
            self._once[key] = write()
        return self._once[key]

    def own(self, name: str) -> str:
        """A value; a constant as one of the derivative's own, which nothing else multiplies with: see `constant`."""
        value = self.value(name)
        return name if value is None else self.constant(value, value.dtype)

    def integers(self, values: Iterable[int]) -> str:
        """A constant list of integers, such as a shape."""
        return self.constant(list(values), np.int64)

    def add(self, one: str, other: str) -> str:
        """The sum of two values."""
        return self.op("Add", one, other)

    def subtract(self, one: str, other: str) -> str:
        """The first value minus the second."""
        return self.op("Sub", one, other)

    def multiply(self, *factors: str) -> str:
        """The product of all factors."""
        product, *others = factors
        for other in others:
            name = self.op("Mul", product, other)
            self._products[name] = product, other
            product = name
        return product

    def without_factors(self, gradient: str, channels: int, rank: int) -> tuple[str, Array | None]:
        """A gradient before it was multiplied by a constant for each channel, and that constant, if it was.

        Kernels that take the factors in save a product: convolutions are followed by normalizations.

        Args:
            gradient: The gradient, (n, channels, …).
            channels: Number of channels.
            rank: Number of axes.
        """
        total = None
        while gradient in self._products:
            value, name = self._products[gradient]
            factor = self.value(name)
            if factor is None or (1,) * (rank - factor.ndim) + factor.shape != (1, channels, *[1] * (rank - 2)):
                break
            flat = factor.astype(np.float64).reshape(-1)
            gradient, total = value, flat if total is None else total * flat
        return gradient, total

    def divide(self, one: str, other: str) -> str:
        """The first value over the second."""
        return self.op("Div", one, other)

    def scaled(self, value: str, factor: float) -> str:
        """A value times a number."""
        return value if factor == 1 else self.op("Mul", value, self.constant(factor))

    def number(self, condition: str) -> str:
        """A condition as the numbers 1 and 0."""
        return self.cast(condition, self.dtype)

    def cast(self, value: str, dtype: np.dtype[Any]) -> str:
        """A value as another type."""
        from onnx import helper

        return self.op("Cast", value, to=int(helper.np_dtype_to_tensor_dtype(dtype)))

    def where(self, condition: str, yes: str, no: str) -> str:
        """Values by a condition."""
        return self.op("Where", condition, yes, no)

    def zeros_like(self, name: str) -> str:
        """Zeros in the shape of a value, whatever it holds: infinity minus itself would not be zero."""
        return self.expanded_like(self.constant(0), name)

    def transpose(self, value: str, permutation: Sequence[int]) -> str:
        """A value with its axes in another order."""
        if list(permutation) == sorted(permutation):
            return value
        return self.op("Transpose", value, perm=tuple(permutation))

    def sum(self, value: str, axes: Sequence[int], keepdims: bool = True) -> str:
        """The sum over axes."""
        return self._reduced("ReduceSum", value, axes, keepdims, since=13)

    def mean(self, value: str, axes: Sequence[int], keepdims: bool = True) -> str:
        """The mean over axes."""
        return self._reduced("ReduceMean", value, axes, keepdims, since=18)

    def _reduced(self, kind: str, value: str, axes: Sequence[int], keepdims: bool, since: int) -> str:
        """A reduction, whose axes are an input from some version of the operators on, and an attribute before."""
        if not axes:
            return value
        if self.opset >= since:
            return self.op(kind, value, self.integers(axes), keepdims=int(keepdims))
        return self.op(kind, value, axes=tuple(axes), keepdims=int(keepdims))

    def unsqueezed(self, value: str, axes: Sequence[int]) -> str:
        """A value with axes of length 1 put in, by their places in the result."""
        if not axes:
            return value
        if self.opset >= 13:
            return self.op("Unsqueeze", value, self.integers(axes))
        return self.op("Unsqueeze", value, axes=tuple(axes))

    def squeezed(self, value: str, axes: Sequence[int]) -> str:
        """A value without some axes of length 1."""
        if not axes:
            return value
        if self.opset >= 13:
            return self.op("Squeeze", value, self.integers(axes))
        return self.op("Squeeze", value, axes=tuple(axes))

    def reshaped(self, value: str, shape: Sequence[int | None]) -> str:
        """A value in another shape, one of whose axes may be None: the free one."""
        return self.op("Reshape", value, self.integers(-1 if axis is None else axis for axis in shape))

    def reshaped_like(self, value: str, name: str) -> str:
        """A value in the shape of one of the original graph, which has as many elements."""
        shape = self.shape(name)
        if shape.count(None) > 1 or (None in shape and 0 in shape):
            return self.op("Reshape", value, self.op("Shape", name))
        return self.reshaped(value, shape)

    def expanded_like(self, value: str, name: str) -> str:
        """A value broadcast to the shape of one of the original graph."""
        shape = self.shape(name)
        target = self.op("Shape", name) if None in shape else self.integers(axis or 0 for axis in shape)
        return self.op("Expand", value, target)

    def sliced(self, value: str, axis: int, start: int, stop: int, step: int = 1) -> str:
        """Part of a value along one axis, as Python slices; a large stop means the end."""
        bounds = (self.integers([number]) for number in (start, stop, axis, step))
        return self.op("Slice", value, *bounds)

    def split(self, value: str, axis: int, count: int) -> tuple[str, ...]:
        """Equal parts of a value along one axis."""
        return self.ops("Split", count, value, axis=axis, num_outputs=count if self.opset >= 18 else None)

    def padded(self, value: str, before: Sequence[int], after: Sequence[int], fill: float = 0.0) -> str:
        """A value with a border: elements put before and after along each axis; negative numbers cut off."""
        if not any((*before, *after)):
            return value
        wider = self.op("Pad", value, self.integers([*before, *after]), self.constant(fill), mode="constant")
        if fill == 0 and min(*before, *after) >= 0:
            self._pieces[wider] = _Piece(value, tuple(before), tuple(after))
        return wider

    def joined(self, gradients: Sequence[str], name: str) -> list[str]:
        """The gradients by a value, with those by parts of it put in a row where that makes up the whole.

        That is quicker than to add them up, each with zeros around it: channels that are split, axes that are rolled.
        """
        for axis, length in enumerate(self.shape(name)):
            lines = {each: self._pieces[each].along(axis) for each in gradients if each in self._pieces}
            row = sorted((line, each) for each, line in lines.items() if line)
            ends = [0, *(length - line[1] for line, _ in row)] if length else []
            if len(row) > 1 and ends == [*(line[0] for line, _ in row), length]:
                values = [self._pieces[each].value for _, each in row]
                used = {each for _, each in row}
                return [self.op("Concat", *values, axis=axis), *(each for each in gradients if each not in used)]
        return list(gradients)

    def unbroadcast(self, gradient: str, name: str, output: str) -> str:
        """The gradient by an input that was broadcast: the sum over the axes along which it was repeated.

        Args:
            gradient: The gradient by what was computed.
            name: The input.
            output: What was computed; the gradient has its shape.
        """
        return self.summed_to(gradient, self.shape(name), self.shape(output))

    def summed_to(self, gradient: str, small: Shape, large: Shape) -> str:
        """The sum over the axes along which a value of one shape was repeated to one of another shape."""
        extra = len(large) - len(small)
        leading = list(range(extra))
        repeated = [extra + axis for axis, length in enumerate(small) if length == 1 and large[extra + axis] != 1]
        summed = self.sum(gradient, [*leading, *repeated])
        return self.squeezed(summed, leading)
