"""Rules of pools that take averages."""

from __future__ import annotations

import math

import numpy as np

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.convolutions import transposed
from xai_sidecar.backends.graph.rules.reductions import repeated, shared
from xai_sidecar.backends.graph.rules.registry import Gradients, NotDerivableError, rule
from xai_sidecar.backends.graph.rules.windows import FIRST_SPATIAL, Windows, automatic, windows_of_pool
from xai_sidecar.engine.work import Array


@rule("AveragePool")
def average(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Each element gets its share of the gradients of the windows that it is in."""
    windows = windows_of_pool(node, emit)
    divisors = _divisors(node, windows)
    if divisors.min() == divisors.max():
        return [_spread(node, gradient, windows, 1 / divisors.flat[0], emit)]
    return [_spread(node, emit.divide(gradient, emit.constant(divisors)), windows, 1.0, emit)]


@rule("GlobalAveragePool")
def global_average(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Each element gets its share of the gradient of the average."""
    name, output = node.inputs[0], node.outputs[0]
    axes = list(range(FIRST_SPATIAL, emit.rank(name)))
    return [repeated(shared(gradient, name, output, axes, emit), name, axes, emit)]


def _divisors(node: Node, windows: list[Windows]) -> Array:
    """What the sum of each window is divided by, (1, 1, …): the number of its elements that count."""
    given = node.attributes.get("pads") or (0,) * 2 * len(windows)
    after = [max(each.after, 0) for each in windows] if automatic(node) else given[len(windows) :]
    divisors = np.ones((1, 1))
    for each, border in zip(windows, after, strict=True):
        before = each.before
        if not node.attributes.get("count_include_pad", 0):
            before = border = 0
        places = (np.arange(each.count) * each.stride - each.before)[:, None] + np.arange(each.size) * each.dilation
        # What ceil_mode has windows reach beyond the border never counts.
        counting = (-before <= places) & (places < each.length + border)
        divisors = divisors[..., None] * np.maximum(counting.sum(axis=1), 1)
    return divisors


def _spread(node: Node, gradient: str, windows: list[Windows], weight: float, emit: Emitter) -> str:
    """Each element's sum of the gradients of the windows that it is in, times a weight."""
    if all(each.stride == each.dilation == 1 and max(each.before, each.after) < each.size for each in windows):
        return emit.op(
            "AveragePool",
            emit.scaled(gradient, weight * math.prod(each.size for each in windows)),
            kernel_shape=tuple(each.size for each in windows),
            pads=(
                *(each.size - 1 - each.before for each in windows),
                *(each.size - 1 - each.after for each in windows),
            ),
            count_include_pad=1,
        )
    channels = emit.shape(node.inputs[0])[1]
    if channels is None:
        raise NotDerivableError.of(node, "has a number of channels that goes by the batch size.")
    kernels = np.full((channels, 1, *(each.size for each in windows)), weight)
    return transposed(gradient, emit.constant(kernels), windows, channels, emit)
