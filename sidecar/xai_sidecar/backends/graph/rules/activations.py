"""Rules of activations that are made of straight lines, or of a straight line and a curve.

Where it can be, a slope is told by the output, not by the input: engines join an activation with the layer before it
only if nothing else uses what is between. At a kink the gradient is that of PyTorch and MindSpore.
"""

from __future__ import annotations

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.elementwise import unbroadcast
from xai_sidecar.backends.graph.rules.registry import Gradients, rule


@rule("Relu")
def relu(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient passes where the input is positive; at 0 it does not, as all frameworks have it."""
    return [emit.multiply(gradient, emit.number(_is_positive(node, emit)))]


@rule("ThresholdedRelu")
def thresholded_relu(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient passes beyond the threshold."""
    threshold = node.attributes.get("alpha", 1.0)
    passes = emit.op("Greater", node.inputs[0], emit.constant(threshold)) if threshold < 0 else _is_positive(node, emit)
    return [emit.multiply(gradient, emit.number(passes))]


@rule("Clip")
def clip(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient passes between the bounds; at a bound it does not."""
    output, bounds = node.outputs[0], (node.input(1), node.input(2))
    within = [emit.op(kind, output, bound) for kind, bound in zip(("Greater", "Less"), bounds, strict=True) if bound]
    if not within:
        return [gradient]
    passes = within[0] if len(within) == 1 else emit.op("And", *within)
    return [emit.multiply(gradient, emit.number(passes))]


@rule("LeakyRelu")
def leaky_relu(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Up to 0 the slope is a constant."""
    slope = node.attributes.get("alpha", 0.01)
    slopes = emit.where(_is_positive(node, emit, slope >= 0), emit.constant(1), emit.constant(slope))
    return [emit.multiply(gradient, slopes)]


@rule("PRelu")
def parametric_relu(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Up to 0 the slope is an input."""
    value = emit.value(node.inputs[1])
    positive = _is_positive(node, emit, value is not None and bool((value >= 0).all()))
    by_slope = emit.where(positive, emit.constant(0), emit.multiply(gradient, node.inputs[0]))
    by_input = emit.multiply(gradient, emit.where(positive, emit.constant(1), node.inputs[1]))
    return unbroadcast(node, [by_input, by_slope], emit)


@rule("Elu")
def elu(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Up to 0 the slope is the output and alpha."""
    alpha = node.attributes.get("alpha", 1.0)
    one, curve = emit.constant(1), emit.add(node.outputs[0], emit.constant(alpha))
    if alpha == 1:
        return [emit.multiply(gradient, emit.op("Min", curve, one))]
    return [emit.multiply(gradient, emit.where(_is_positive(node, emit, alpha >= 0), one, curve))]


@rule("Selu")
def selu(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """That of Elu, times gamma."""
    alpha = node.attributes.get("alpha", 1.67326319217681884765625)
    gamma = node.attributes.get("gamma", 1.05070102214813232421875)
    positive = _is_positive(node, emit, alpha >= 0 and gamma > 0)
    curve = emit.add(node.outputs[0], emit.constant(alpha * gamma))
    return [emit.multiply(gradient, emit.where(positive, emit.constant(gamma), curve))]


@rule("Celu")
def celu(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Up to 0 the slope is exp(x / alpha), the output over alpha and 1; for positive numbers that is beyond 1."""
    alpha = node.attributes.get("alpha", 1.0)
    one = emit.constant(1)
    curve = emit.add(emit.scaled(node.outputs[0], 1 / alpha), one)
    return [emit.multiply(gradient, emit.op("Min" if alpha > 0 else "Max", curve, one))]


@rule("HardSigmoid")
def hard_sigmoid(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """A constant slope between 0 and 1."""
    above, below = (emit.op(kind, node.outputs[0], emit.constant(at)) for kind, at in (("Greater", 0), ("Less", 1)))
    passes = emit.number(emit.op("And", above, below))
    return [emit.multiply(emit.scaled(gradient, node.attributes.get("alpha", 0.2)), passes)]


@rule("HardSwish")
def hard_swish(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """For y = x · h with h = HardSigmoid(x): h + x / 6 from -3 to 3, and h outside."""
    x = node.inputs[0]
    inside = emit.number(emit.op("Less", emit.op("Abs", x), emit.constant(3)))
    slope = emit.multiply(inside, emit.scaled(x, 1 / 6))
    return [emit.multiply(gradient, emit.add(slope, emit.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)))]


def _is_positive(node: Node, emit: Emitter, by_output: bool = True) -> str:
    """Where the input is positive; by the output, if that is positive in the same places."""
    return emit.op("Greater", node.outputs[0] if by_output else node.inputs[0], emit.constant(0))
