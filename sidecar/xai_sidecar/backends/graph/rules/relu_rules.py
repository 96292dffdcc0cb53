"""The gradient of rectifiers in guided backpropagation and deconvolution, whichever operators they are made of."""

from __future__ import annotations

import math

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rectifiers import Clamps


def ruled(node: Node, gradient: str, emit: Emitter) -> list[str | None]:
    """The gradients by the inputs of a rectifier, or of the ceiling of one, by the ReLU rule.

    Guided: the gradient passes where it is positive and the rectifier is neither at zero nor at its ceiling (J.
    Springenberg et al. 2014, arXiv:1412.6806, section 3.4). Deconvolution: it passes where it is positive (M. Zeiler,
    R. Fergus 2014, arXiv:1311.2901, section 2.1).

    Args:
        node: The rectifier.
        gradient: The gradient by its output.
        emit: Writes.

    Raises:
        ValueError: The node is no rectifier.
    """
    clamp = Clamps(emit.graph).of(node)
    if clamp is None:
        raise ValueError(f"{node.outputs[0]!r} was said to be a rectifier, but {node.kind} is none")
    gradient = emit.op("Relu", gradient)
    if emit.relu_rule == "guided":
        gradient = emit.multiply(gradient, _passes(node.outputs[0], clamp.low == 0, clamp.high, emit))
    gradient = emit.unbroadcast(gradient, clamp.value, node.outputs[0])
    return [gradient if name == clamp.value else None for name in node.inputs]


def _passes(output: str, has_floor: bool, ceiling: float, emit: Emitter) -> str:
    """1 where an output is neither at zero nor at the ceiling, else 0. A ceiling alone comes with a floor elsewhere."""
    conditions = [emit.op("Greater", output, emit.constant(0))] if has_floor else []
    if ceiling < math.inf:
        conditions.append(emit.op("Less", output, emit.constant(ceiling)))
    return emit.number(conditions[0] if len(conditions) == 1 else emit.op("And", *conditions))
