"""Rules of powers, roots, exponentials and other functions of single elements."""

from __future__ import annotations

import math

import numpy as np

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.registry import Gradients, rule


@rule("Exp")
def exponential(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The output itself."""
    return [emit.multiply(gradient, node.outputs[0])]


@rule("Log")
def logarithm(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """1 / x."""
    return [emit.divide(gradient, node.inputs[0])]


@rule("Sqrt")
def root(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """1 / (2 y): infinite at 0, as all frameworks have it."""
    return [emit.divide(emit.scaled(gradient, 0.5), node.outputs[0])]


@rule("Reciprocal")
def reciprocal(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """-y²."""
    return [emit.op("Neg", emit.multiply(gradient, node.outputs[0], node.outputs[0]))]


@rule("Abs")
def absolute(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The sign; 0 at 0."""
    return [emit.multiply(gradient, emit.op("Sign", node.inputs[0]))]


@rule("Sin")
def sine(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The cosine."""
    return [emit.multiply(gradient, emit.op("Cos", node.inputs[0]))]


@rule("Cos")
def cosine(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Minus the sine."""
    return [emit.op("Neg", emit.multiply(gradient, emit.op("Sin", node.inputs[0])))]


@rule("Erf")
def error_function(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """2 / √π · exp(-x²)."""
    x = node.inputs[0]
    bell = emit.op("Exp", emit.op("Neg", emit.multiply(x, x)))
    return [emit.multiply(emit.scaled(gradient, 2 / math.sqrt(math.pi)), bell)]


@rule("Pow")
def power(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """For y = x^e: e · x^(e - 1) by the base x, and y · log x by the exponent e."""
    base, exponent = node.inputs
    by_base = _by_base(node, gradient, emit) if emit.is_active(base) else None
    by_exponent = emit.multiply(gradient, _log_slope(node, emit)) if emit.is_active(exponent) else None
    return [
        by_base and emit.unbroadcast(by_base, base, node.outputs[0]),
        by_exponent and emit.unbroadcast(by_exponent, exponent, node.outputs[0]),
    ]


def _by_base(node: Node, gradient: str, emit: Emitter) -> str | None:
    base, exponent = node.inputs
    value = emit.value(exponent)
    if value is not None and value.size == 1:
        return _by_base_of(float(value.item()), base, node.outputs[0], gradient, emit)
    if emit.type(exponent) != emit.dtype:
        exponent = emit.cast(exponent, emit.dtype)
    less = emit.op("Pow", base, emit.subtract(exponent, emit.constant(1)))
    # 0 where the exponent is, also at a base of 0, where the power is infinite.
    slope = emit.where(emit.op("Equal", exponent, emit.constant(0)), emit.constant(0), emit.multiply(exponent, less))
    return emit.multiply(gradient, slope)


def _by_base_of(exponent: float, x: str, y: str, gradient: str, emit: Emitter) -> str | None:
    """For one exponent, the usual ones without a power, which is slow and in some engines inexact."""
    if exponent == 0:
        return None
    scaled = emit.scaled(gradient, exponent)
    if exponent in (1, 2, 3):
        return emit.multiply(scaled, *[x] * int(exponent - 1))
    if exponent == 0.5:
        return emit.divide(scaled, y)
    if exponent in (-0.5, -1):
        return emit.multiply(scaled, *[y] * (2 if exponent == -1 else 3))
    return emit.multiply(scaled, emit.op("Pow", x, emit.constant(exponent - 1)))


def _log_slope(node: Node, emit: Emitter) -> str:
    """The slope y · log x; 0 where the base x is 0 and the exponent is not negative, as PyTorch has it."""
    base, exponent = node.inputs
    value = emit.value(base)
    if value is not None and (value > 0).all():
        return emit.multiply(node.outputs[0], emit.constant(np.log(value)))
    zero = emit.constant(0)
    negative = emit.op("Less", exponent, emit.constant(0, emit.type(exponent)))
    is_zero = emit.op("And", emit.op("Equal", base, zero), emit.op("Not", negative))
    return emit.where(is_zero, zero, emit.multiply(node.outputs[0], emit.op("Log", base)))
