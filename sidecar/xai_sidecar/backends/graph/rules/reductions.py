"""Rules of sums, means, norms and extremes over axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.registry import Gradients, NotDerivableError, rule

_WHERE_NOTHING_IS_REDUCED = frozenset({"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"})
"""Operators that give their input as it is where there are no axes; engines disagree on others."""

Reduction: TypeAlias = Callable[[Node, str, str, list[int], Emitter], str]
"""A node, the gradient by its output and that output, both with reduced axes of length 1, and the axes → the gradient
by its input, or one that has to be repeated along the axes."""


def reduction(kind: str) -> Callable[[Reduction], Reduction]:
    """Registers a rule for a reduction."""

    def register(simple: Reduction) -> Reduction:
        @rule(kind)
        def whole(node: Node, gradient: str, emit: Emitter) -> Gradients:
            axes = _axes(node, emit)
            if not axes:
                return [gradient]
            output = node.outputs[0]
            if not node.attributes.get("keepdims", 1):
                gradient, output = emit.unsqueezed(gradient, axes), emit.unsqueezed(output, axes)
            return [simple(node, gradient, output, axes, emit)]

        return simple

    return register


def _axes(node: Node, emit: Emitter) -> list[int]:
    """The axes that are reduced, counted from the first one: an attribute, an input, or all."""
    rank = emit.rank(node.inputs[0])
    given = node.attributes.get("axes")
    if node.input(1):
        value = emit.value(node.inputs[1])
        if value is None:
            raise NotDerivableError.of(node, "has axes that are computed on the way (axes).")
        given = value.tolist()
    if given is not None and len(given):
        return sorted(axis % rank for axis in given)
    if not node.attributes.get("noop_with_empty_axes", 0):
        return list(range(rank))
    if node.kind not in _WHERE_NOTHING_IS_REDUCED:
        raise NotDerivableError.of(node, "reduces no axes (noop_with_empty_axes), in which engines disagree.")
    return []


def repeated(value: str, name: str, axes: list[int], emit: Emitter) -> str:
    """A value repeated along axes, in which it has length 1, to the shape of one of the original graph."""
    shape = emit.shape(name)
    if any(shape[axis] is None for axis in axes):
        return emit.expanded_like(value, name)
    return emit.op(
        "Expand", value, emit.integers(shape[axis] or 0 if axis in axes else 1 for axis in range(len(shape)))
    )


@reduction("ReduceSum")
def total(node: Node, gradient: str, output: str, axes: list[int], emit: Emitter) -> str:
    """Each element gets the gradient of its sum."""
    return repeated(gradient, node.inputs[0], axes, emit)


@reduction("ReduceMean")
def mean(node: Node, gradient: str, output: str, axes: list[int], emit: Emitter) -> str:
    """Each element gets its share of the gradient of its mean."""
    return repeated(shared(gradient, node.inputs[0], output, axes, emit), node.inputs[0], axes, emit)


def shared(gradient: str, name: str, output: str, axes: list[int], emit: Emitter) -> str:
    """A gradient over the number of elements that were reduced to one."""
    lengths = [emit.shape(name)[axis] for axis in axes]
    if None not in lengths:
        return emit.scaled(gradient, 1 / int(np.prod([length or 0 for length in lengths])))
    count = emit.divide(emit.op("Size", name), emit.op("Size", output))
    return emit.divide(gradient, emit.cast(count, emit.dtype))


@reduction("ReduceMax")
def maximum(node: Node, gradient: str, output: str, axes: list[int], emit: Emitter) -> str:
    """The largest elements share the gradient evenly, as those of PyTorch's amax and MindSpore's ReduceMax do."""
    largest = emit.number(emit.op("Equal", node.inputs[0], output))
    return emit.multiply(largest, emit.divide(gradient, emit.sum(largest, axes)))


reduction("ReduceMin")(maximum)


@reduction("ReduceL1")
def norm_1(node: Node, gradient: str, output: str, axes: list[int], emit: Emitter) -> str:
    """The sign of each element; 0 at 0."""
    return emit.multiply(emit.op("Sign", node.inputs[0]), gradient)


@reduction("ReduceL2")
def norm_2(node: Node, gradient: str, output: str, axes: list[int], emit: Emitter) -> str:
    """Each element over the norm; 0 at 0."""
    return emit.multiply(node.inputs[0], divided_or_zero(gradient, output, emit))


def divided_or_zero(one: str, other: str, emit: Emitter) -> str:
    """The first value over the second, and 0 where that is 0."""
    is_zero = emit.op("Equal", other, emit.constant(0))
    return emit.where(is_zero, emit.constant(0), emit.divide(one, emit.where(is_zero, emit.constant(1), other)))


@reduction("ReduceSumSquare")
def sum_of_squares(node: Node, gradient: str, output: str, axes: list[int], emit: Emitter) -> str:
    """Twice each element."""
    return emit.multiply(node.inputs[0], emit.scaled(gradient, 2))


@reduction("ReduceLogSum")
def log_of_sum(node: Node, gradient: str, output: str, axes: list[int], emit: Emitter) -> str:
    """One over the sum, whose logarithm the output is."""
    return repeated(emit.divide(gradient, emit.op("Exp", output)), node.inputs[0], axes, emit)


@reduction("ReduceLogSumExp")
def log_of_sum_of_exponentials(node: Node, gradient: str, output: str, axes: list[int], emit: Emitter) -> str:
    """The softmax of the elements."""
    return emit.multiply(emit.op("Exp", emit.subtract(node.inputs[0], output)), gradient)
