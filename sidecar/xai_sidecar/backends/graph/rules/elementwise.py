"""Rules of arithmetic, element by element."""

from __future__ import annotations

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.registry import Gradients, rule, without_gradient

without_gradient(
    "Shape", "Size", "ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "Not", "And", "Or", "Xor", "Floor", "Ceil", "Round", "Sign", "IsNaN", "IsInf", "NonZero",
)  # fmt: skip


@rule("Add")
def add(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient goes to both."""
    return [emit.unbroadcast(gradient, name, node.outputs[0]) for name in node.inputs]


@rule("Mul")
def multiply(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Each gets the gradient times the other."""
    one, other = node.inputs
    return [
        emit.unbroadcast(emit.multiply(gradient, other), one, node.outputs[0]),
        emit.unbroadcast(emit.multiply(gradient, one), other, node.outputs[0]),
    ]
