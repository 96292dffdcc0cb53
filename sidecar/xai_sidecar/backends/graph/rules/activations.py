"""Rules of activations."""

from __future__ import annotations

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.registry import Gradients, rule


@rule("Relu")
def relu(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient passes where the input is positive; at 0 it does not, as all frameworks have it."""
    return [masked(node, gradient, emit.op("Greater", node.inputs[0], emit.constant(0)), emit)]


def masked(node: Node, gradient: str, passes: str, emit: Emitter) -> str:
    """The gradient of a rectifier, by the ReLU rule if it follows one.

    Args:
        node: The rectifier.
        gradient: The gradient by its output.
        passes: Name of a condition: where the output goes with the input.
        emit: Writes.
    """
    if emit.is_ruled(node):
        gradient = emit.op("Relu", gradient)
        if emit.relu_rule == "deconvolution":
            return gradient
    return emit.multiply(gradient, emit.number(passes))
