"""The gradient of rectifiers in guided backpropagation and deconvolution, whichever operators they are made of.

Where all rectifiers are of the kinds in `CHOOSABLE`, one graph does for these rules and for the gradient as mathematics
has it: numbers that are inputs choose the rule. Engines lay the weights of a graph out anew, so that each further graph
would take the memory of the net, and seconds of a start.
"""

from __future__ import annotations

import math

import numpy as np

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rectifiers import Clamp, Clamps
from xai_sidecar.engine.work import Array

CHOSEN = "chosen"
"""In the place of a rule: that which the inputs `FLOOR` and `THRESHOLD` choose, the same for all rows."""

CHOOSABLE = frozenset({"Relu", "Clip"})
"""Operators whose own derivative is the one that `FLOOR` and `THRESHOLD` can choose."""

FLOOR = "derivative/rule_floor"
"""Name of an input, (n, 1): the gradient passes where the output of a rectifier exceeds it; above its ceiling, too,
where it is far below zero."""

THRESHOLD = "derivative/rule_threshold"
"""Name of an input, (n, 1): the least that passes of a gradient; in the place of what is smaller, this does."""

_NO_BOUND = float(np.finfo(np.float32).min)
_CHOICES = {"": (0.0, _NO_BOUND), "guided": (0.0, 0.0), "deconvolution": (_NO_BOUND, 0.0)}


def rule_rows(relu_rule: str, count: int) -> tuple[Array, Array]:
    """`FLOOR` and `THRESHOLD` for a rule, (count, 1) float32 each."""
    floor, threshold = (np.full((count, 1), number, np.float32) for number in _CHOICES[relu_rule])
    return floor, threshold


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
    if emit.relu_rule == CHOSEN:
        gradient = _chosen(gradient, node.outputs[0], clamp, emit)
    else:
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


def _chosen(gradient: str, output: str, clamp: Clamp, emit: Emitter) -> str:
    """The part of a gradient that passes by the rule that the inputs choose: of the positive one, a maximum with zero.

    OpenVINO computes products with numbers of all axes in one go; conditions joined by "and" it does not.
    """
    floor, threshold = (_number(name, emit.rank(output), emit) for name in (FLOOR, THRESHOLD))
    gradient = emit.op("Max", gradient, threshold)
    conditions = []
    if clamp.low == 0:
        conditions.append(emit.op("Greater", output, floor))
    if clamp.high < math.inf:
        high = emit.once(f"{clamp.high} {floor}", lambda: emit.subtract(emit.constant(clamp.high), floor))
        conditions.append(emit.op("Less", output, high))
    return emit.multiply(gradient, *(emit.number(condition) for condition in conditions))


def _number(name: str, rank: int, emit: Emitter) -> str:
    """What an input says, with as many axes as are wanted, of length 1."""
    return emit.once(f"{name} {rank}", lambda: emit.reshaped(emit.sliced(name, 0, 0, 1), [1] * rank))
