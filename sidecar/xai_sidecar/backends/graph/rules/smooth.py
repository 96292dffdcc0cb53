"""Rules of smooth activations, and of softmax."""

from __future__ import annotations

import math
from collections.abc import Callable

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.registry import Gradients, rule


@rule("Sigmoid")
def sigmoid(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The slope is y (1 - y)."""
    y = node.outputs[0]
    return [emit.multiply(gradient, y, emit.subtract(emit.constant(1), y))]


@rule("Tanh")
def tanh(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The slope is 1 - y²."""
    return [emit.multiply(gradient, _one_minus_square(node.outputs[0], emit))]


@rule("Softplus")
def softplus(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The sigmoid of x."""
    return [emit.multiply(gradient, emit.op("Sigmoid", node.inputs[0]))]


@rule("Softsign")
def softsign(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """1 / (1 + |x|)², the square of 1 - |y|."""
    root = emit.subtract(emit.constant(1), emit.op("Abs", node.outputs[0]))
    return [emit.multiply(gradient, root, root)]


@rule("Mish")
def mish(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """For y = x · t with t = tanh(softplus(x)): t + x (1 - t²) sigmoid(x)."""
    x = node.inputs[0]
    t = emit.op("Tanh", emit.op("Softplus", x))
    slope = emit.multiply(x, _one_minus_square(t, emit), emit.op("Sigmoid", x))
    return [emit.multiply(gradient, emit.add(t, slope))]


@rule("Swish")
def swish(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """For y = x · sigmoid(alpha x)."""
    return [_by_swish(node, gradient, node.attributes.get("alpha", 1.0), emit)]


@rule("com.microsoft.QuickGelu")
def quick_gelu(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """A Swish whose alpha makes it like Gelu."""
    return [_by_swish(node, gradient, node.attributes.get("alpha", 1.702), emit)]


def _by_swish(node: Node, gradient: str, alpha: float, emit: Emitter) -> str:
    """The slope is s + alpha · y (1 - s) with s = sigmoid(alpha x)."""
    s = emit.op("Sigmoid", emit.scaled(node.inputs[0], alpha))
    slope = emit.multiply(emit.scaled(node.outputs[0], alpha), emit.subtract(emit.constant(1), s))
    return emit.multiply(gradient, emit.add(s, slope))


@rule("Gelu")
def gelu(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Exact, or by a hyperbolic tangent."""
    slope = _tanh_gelu_slope if node.attributes.get("approximate", "none") == "tanh" else _gelu_slope
    return [emit.multiply(gradient, slope(node.inputs[0], emit))]


@rule("com.microsoft.Gelu", "com.microsoft.BiasGelu")
def fused_gelu(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The exact one, as ONNX Runtime's optimiser writes it: with a bias or without."""
    return _by_biased(node, gradient, _gelu_slope, emit)


@rule("com.microsoft.FastGelu")
def fast_gelu(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The one by a hyperbolic tangent, with a bias or without."""
    return _by_biased(node, gradient, _tanh_gelu_slope, emit)


def _by_biased(node: Node, gradient: str, slope: Callable[[str, Emitter], str], emit: Emitter) -> Gradients:
    """The gradients by the input and by the bias that is added to it, if there is one."""
    value, bias = node.inputs[0], node.input(1)
    if not bias:
        return [emit.multiply(gradient, slope(value, emit))]
    gradient = emit.multiply(gradient, slope(emit.add(value, bias), emit))
    return [gradient, emit.unbroadcast(gradient, bias, node.outputs[0])]


def _gelu_slope(x: str, emit: Emitter) -> str:
    """(1 + erf(x / √2)) / 2 + x · exp(-x² / 2) / √(2π)."""
    half = emit.constant(0.5)
    distribution = emit.add(emit.scaled(emit.op("Erf", emit.scaled(x, math.sqrt(0.5))), 0.5), half)
    density = emit.op("Exp", emit.scaled(emit.multiply(x, x), -0.5))
    return emit.add(distribution, emit.multiply(emit.scaled(x, 1 / math.sqrt(2 * math.pi)), density))


def _tanh_gelu_slope(x: str, emit: Emitter) -> str:
    """For y = x (1 + t) / 2 with t = tanh(u) and u = √(2/π) (x + 0.044715 x³): (1 + t + x u' (1 - t²)) / 2."""
    factor = math.sqrt(2 / math.pi)
    square = emit.multiply(x, x)
    u = emit.multiply(x, emit.add(emit.scaled(square, 0.044715 * factor), emit.constant(factor)))
    du = emit.add(emit.scaled(square, 3 * 0.044715 * factor), emit.constant(factor))
    t = emit.op("Tanh", u)
    slope = emit.multiply(x, du, _one_minus_square(t, emit))
    return emit.scaled(emit.add(emit.add(t, emit.constant(1)), slope), 0.5)


def _one_minus_square(value: str, emit: Emitter) -> str:
    return emit.subtract(emit.constant(1), emit.multiply(value, value))


@rule("Softmax")
def softmax(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """For a gradient g: y (g - Σ g y)."""
    y = node.outputs[0]
    total = emit.sum(emit.multiply(gradient, y), _softmax_axes(node, emit))
    return [emit.multiply(emit.subtract(gradient, total), y)]


@rule("LogSoftmax")
def log_softmax(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """For a gradient g: g - exp(y) Σ g."""
    total = emit.sum(gradient, _softmax_axes(node, emit))
    return [emit.subtract(gradient, emit.multiply(emit.op("Exp", node.outputs[0]), total))]


def _softmax_axes(node: Node, emit: Emitter) -> list[int]:
    """The axes along which the softmax is 1 in sum: one, or before opset 13 all from one on."""
    rank = emit.rank(node.inputs[0])
    if emit.opset >= 13:
        return [node.attributes.get("axis", -1) % rank]
    return list(range(rank))[node.attributes.get("axis", 1) :]
