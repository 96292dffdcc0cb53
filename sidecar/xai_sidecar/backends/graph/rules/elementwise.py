"""Rules of arithmetic, element by element."""

from __future__ import annotations

import numpy as np

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.registry import Gradients, rule, without_gradient

without_gradient(
    "Shape", "Size", "ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "Not", "And", "Or", "Xor", "Floor", "Ceil", "Round", "Sign", "IsNaN", "IsInf", "NonZero", "Hardmax",
)  # fmt: skip


def unbroadcast(node: Node, gradients: Gradients, emit: Emitter) -> Gradients:
    """The gradients by all inputs, which are as large as the output, summed where the inputs were broadcast."""
    pairs = zip(node.inputs, gradients, strict=True)
    return [each and emit.unbroadcast(each, name, node.outputs[0]) for name, each in pairs]


@rule("Add", "Sum")
def add(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient goes to all."""
    return unbroadcast(node, [gradient] * len(node.inputs), emit)


@rule("Mean")
def mean(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Each gets its share."""
    count = len(node.inputs)
    return unbroadcast(node, [emit.scaled(gradient, 1 / count)] * count, emit)


@rule("Sub")
def subtract(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient goes to the first, and its opposite to the second."""
    return unbroadcast(node, [gradient, emit.op("Neg", gradient)], emit)


@rule("Neg")
def negative(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The opposite."""
    return [emit.op("Neg", gradient)]


@rule("Mul")
def multiply(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Each gets the gradient times the other."""
    one, other = node.inputs
    return unbroadcast(node, [emit.multiply(gradient, other), emit.multiply(gradient, one)], emit)


@rule("Div")
def divide(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient over the divisor; for that, its opposite times the quotient."""
    divisor = emit.value(node.inputs[1])
    if divisor is None:
        share = emit.divide(gradient, node.inputs[1])
    else:
        with np.errstate(divide="ignore"):
            share = emit.multiply(gradient, emit.constant(1 / divisor))
    return unbroadcast(node, [share, emit.op("Neg", emit.multiply(share, node.outputs[0]))], emit)


@rule("Max", "Min")
def extreme(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The largest, or smallest, gets the gradient; of several each its share, as PyTorch's maximum has it."""
    if len(node.inputs) == 1:
        return [gradient]
    if len(node.inputs) == 2:
        share = emit.multiply(gradient, _ahead(node, emit))
        return unbroadcast(node, [share, emit.subtract(gradient, share)], emit)
    equal = [emit.number(emit.op("Equal", name, node.outputs[0])) for name in node.inputs]
    count = equal[0]
    for each in equal[1:]:
        count = emit.add(count, each)
    share = emit.divide(gradient, count)
    return unbroadcast(node, [emit.multiply(share, each) for each in equal], emit)


def _ahead(node: Node, emit: Emitter) -> str:
    """1 where the first of two inputs is what the output is, 0 where it is the second, 0.5 where they are equal."""
    beyond, short_of = ("Greater", "Less") if node.kind == "Max" else ("Less", "Greater")
    is_beyond = emit.op(beyond, *node.inputs)
    reaches = emit.op("Not", emit.op(short_of, *node.inputs))
    return emit.scaled(emit.add(emit.number(is_beyond), emit.number(reaches)), 0.5)


@rule("Where")
def choose(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient goes to what was chosen."""
    condition, zero = node.inputs[0], emit.constant(0)
    return [
        None,
        emit.unbroadcast(emit.where(condition, gradient, zero), node.inputs[1], node.outputs[0]),
        emit.unbroadcast(emit.where(condition, zero, gradient), node.inputs[2], node.outputs[0]),
    ]


@rule("CumSum")
def running_sum(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The running sum from the other end."""
    exclusive, reverse = node.attributes.get("exclusive", 0), node.attributes.get("reverse", 0)
    return [emit.op("CumSum", gradient, node.inputs[1], exclusive=exclusive, reverse=1 - reverse)]
