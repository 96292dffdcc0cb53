"""Rules of normalization: of batches, layers, groups and instances.

All but the first have one formula. With x̂ = (x - mean) / σ and h the gradient by x̂, the gradient by x is
(h - mean(h) - x̂ · mean(h · x̂)) / σ; where no mean is taken off x, none is taken off h.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.reductions import divided_or_zero
from xai_sidecar.backends.graph.rules.registry import Gradients, NotDerivableError, rule, rule_of_outputs

_TRAINED = 14
"""Version from which an attribute says that a BatchNormalization is in training; before, its outputs do."""


@rule("BatchNormalization")
def batch(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """In inference a channel's values are multiplied by a number, which is worked out now if it can be."""
    training = node.attributes.get("training_mode", 0) if emit.opset >= _TRAINED else any(node.outputs[1:])
    if training:
        raise NotDerivableError.of(node, "normalizes by the batch (training_mode). Export the model for inference.")
    epsilon = node.attributes.get("epsilon", 1e-5)
    scale, variance = (emit.value(node.inputs[place]) for place in (1, 4))
    rank = emit.rank(node.inputs[0])
    if scale is not None and variance is not None:
        factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
        return [emit.multiply(gradient, emit.constant(factor.reshape(-1, *[1] * (rank - 2))))]
    deviation = emit.op("Sqrt", emit.add(node.inputs[4], emit.constant(epsilon)))
    factor = emit.divide(node.inputs[1], deviation)
    return [emit.multiply(gradient, _by_channel(factor, rank, emit))]


def _by_channel(value: str, rank: int, emit: Emitter) -> str:
    """A number for each channel, (channels,), so that it is broadcast to (n, channels, …)."""
    return emit.unsqueezed(value, range(1, rank - 1))


@rule("LayerNormalization")
def layer(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The formula above over the last axes."""
    return [_layer(node, node.inputs[0], emit.multiply(gradient, node.inputs[1]), emit)]


def _last_axes(node: Node, emit: Emitter) -> list[int]:
    rank = emit.rank(node.inputs[0])
    return list(range(node.attributes.get("axis", -1) % rank, rank))


def _layer(node: Node, x: str, gradient: str, emit: Emitter, centred: bool = True) -> str:
    axes = _last_axes(node, emit)
    epsilon = node.attributes.get("epsilon", 1e-5)
    normal, inverse = normalized(x, axes, epsilon, emit, centred)
    return by_normalized(gradient, normal, inverse, axes, emit, centred)


def normalized(x: str, axes: Sequence[int], epsilon: float, emit: Emitter, centred: bool = True) -> tuple[str, str]:
    """Values over axes with mean 0 and variance 1, and one over their standard deviation.

    Args:
        x: The values.
        axes: The axes.
        epsilon: What is added to the variance.
        emit: Writes.
        centred: Whether their mean is taken off.
    """
    if centred:
        x = emit.subtract(x, emit.mean(x, axes))
    variance = emit.mean(emit.multiply(x, x), axes)
    inverse = emit.op("Reciprocal", emit.op("Sqrt", emit.add(variance, emit.constant(epsilon))))
    return emit.multiply(x, inverse), inverse


def by_normalized(
    gradient: str, normal: str, inverse: str, axes: Sequence[int], emit: Emitter, centred: bool = True
) -> str:
    """The formula above.

    Args:
        gradient: The gradient by the normalized values.
        normal: The normalized values.
        inverse: One over their standard deviation.
        axes: The axes over which they were normalized.
        emit: Writes.
        centred: Whether their mean was taken off.
    """
    along = emit.multiply(normal, emit.mean(emit.multiply(gradient, normal), axes))
    if centred:
        along = emit.add(along, emit.mean(gradient, axes))
    return emit.multiply(emit.subtract(gradient, along), inverse)


@rule("RMSNormalization", "SimplifiedLayerNormalization", "com.microsoft.SimplifiedLayerNormalization")
def root_mean_square(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The formula above over the last axes, without means."""
    return [_layer(node, node.inputs[0], emit.multiply(gradient, node.inputs[1]), emit, centred=False)]


@rule_of_outputs("com.microsoft.SkipLayerNormalization", "com.microsoft.SkipSimplifiedLayerNormalization")
def skip_layer(node: Node, gradients: Gradients, emit: Emitter) -> Gradients:
    """Normalizes the sum of two values, which is its fourth output, too: both have the gradient of the sum."""
    gradient, *statistics = gradients[:3]
    if any(statistics):
        return ()
    by_sum = gradients[3] if len(gradients) > 3 else None
    if gradient:
        scaled = emit.multiply(gradient, node.inputs[2])
        by_normalization = _layer(node, _skip_sum(node, emit), scaled, emit, "Simplified" not in node.kind)
        by_sum = emit.add(by_sum, by_normalization) if by_sum else by_normalization
    if by_sum is None:
        return ()
    return [emit.unbroadcast(by_sum, name, node.outputs[0]) for name in node.inputs[:2]]


def _skip_sum(node: Node, emit: Emitter) -> str:
    """What is normalized: an output, if it is one."""
    if len(node.outputs) > 3 and node.outputs[3]:
        return node.outputs[3]
    total = emit.add(*node.inputs[:2])
    bias = node.input(3 if "Simplified" in node.kind else 4)
    return emit.add(total, bias) if bias else total


@rule("InstanceNormalization")
def instance(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The formula above over the picture."""
    x, rank = node.inputs[0], emit.rank(node.inputs[0])
    axes = range(2, rank)
    normal, inverse = normalized(x, axes, node.attributes.get("epsilon", 1e-5), emit)
    gradient = emit.multiply(gradient, _by_channel(node.inputs[1], rank, emit))
    return [by_normalized(gradient, normal, inverse, axes, emit)]


@rule("GroupNormalization")
def group(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The formula above over groups of channels, which become an axis; there is a scale for each, until opset 21."""
    x, groups = node.inputs[0], node.attributes["num_groups"]
    batch_axis, channels, pixels = _by_pixels(node, emit)
    scale = emit.op("Reshape", node.inputs[1], emit.integers([groups, -1, 1]))
    target = (batch_axis, groups, channels // groups, pixels)
    normal, inverse = normalized(emit.reshaped(x, target), (2, 3), node.attributes.get("epsilon", 1e-5), emit)
    scaled = emit.multiply(emit.reshaped(gradient, target), scale)
    return [emit.reshaped_like(by_normalized(scaled, normal, inverse, (2, 3), emit), x)]


@rule("MeanVarianceNormalization")
def mean_variance(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The formula above, but that it is the deviation to which a little is added: 1e-9, as ONNX defines it."""
    x, normal = node.inputs[0], node.outputs[0]
    axes = [axis % emit.rank(x) for axis in node.attributes.get("axes", (0, 2, 3))]
    centred = emit.subtract(x, emit.mean(x, axes))
    deviation = emit.op("Sqrt", emit.mean(emit.multiply(centred, centred), axes))
    along = divided_or_zero(emit.mean(emit.multiply(gradient, normal), axes), deviation, emit)
    straight = emit.divide(emit.subtract(gradient, emit.mean(gradient, axes)), emit.add(deviation, emit.constant(1e-9)))
    return [emit.subtract(straight, emit.multiply(normal, along))]


@rule("LpNormalization")
def norm(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """(g - d · sum(g · y)) / norm with d the norm's derivative; 0 where the norm is 0."""
    x, y, power = node.inputs[0], node.outputs[0], node.attributes.get("p", 2)
    axes = [node.attributes.get("axis", -1) % emit.rank(x)]
    length = emit.sum(emit.op("Abs", x), axes) if power == 1 else emit.op("Sqrt", emit.sum(emit.multiply(x, x), axes))
    direction = emit.op("Sign", x) if power == 1 else y
    along = emit.multiply(direction, emit.sum(emit.multiply(gradient, y), axes))
    return [divided_or_zero(emit.subtract(gradient, along), length, emit)]


@rule("LRN")
def local_response(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """With y = x · s ** -β, s = bias + α · mean(x²) over channels nearby: g · s ** -β - 2αβ · x · mean(g · y / s)."""
    x, y, size = node.inputs[0], node.outputs[0], node.attributes["size"]
    alpha, beta, bias = (node.attributes.get(name, value) for name, value in _LRN.items())
    before, after = (size - 1) // 2, size // 2
    powers = emit.scaled(_nearby(node, emit.multiply(x, x), (before, after), emit), alpha)
    sums = emit.add(powers, emit.constant(bias))
    straight = emit.multiply(gradient, emit.op("Pow", sums, emit.constant(-beta)))
    across = _nearby(node, emit.divide(emit.multiply(gradient, y), sums), (after, before), emit)
    return [emit.subtract(straight, emit.multiply(x, emit.scaled(across, 2 * alpha * beta)))]


_LRN = {"alpha": 0.0001, "beta": 0.75, "bias": 1.0}
"""Attributes of an LRN left out."""


def _nearby(node: Node, value: str, window: tuple[int, int], emit: Emitter) -> str:
    """The mean over a window of channels, with 0 beyond the ends: pooling with channels for the rows of a picture."""
    batch_axis, channels, pixels = _by_pixels(node, emit)
    before, after = window
    rows = emit.reshaped(value, (batch_axis, 1, channels, pixels))
    kernel, pads = (before + after + 1, 1), (before, 0, after, 0)
    pooled = emit.op("AveragePool", rows, kernel_shape=kernel, pads=pads, count_include_pad=1)
    return emit.reshaped_like(pooled, node.inputs[0])


def _by_pixels(node: Node, emit: Emitter) -> tuple[int | None, int, int]:
    """The batch, channels and pixels of an input, of which only the first may be free."""
    batch_axis, *others = emit.shape(node.inputs[0])
    channels, *picture = [axis for axis in others if axis is not None]
    if None in others:
        raise NotDerivableError.of(node, "has an input in which other axes than the first go by the batch size.")
    return batch_axis, channels, int(np.prod(picture))
