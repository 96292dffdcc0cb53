"""Rules of convolutions. Kernels have no gradient here: one that depends on the picture is refused.

The gradient of a convolution is a transposed convolution, which engines do well. Where the stride is 1, the same is a
convolution by flipped kernels, which ONNX Runtime does faster as long as there is one group, or one for each channel.
Where it has few channels and kernels fill the strides (the first layer of most nets), OpenVINO takes two to three times
as long for a transposed convolution as for one at the lower resolution that gives stride² pictures of each channel,
which are then interleaved.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.registry import Gradients, NotDerivableError, rule
from xai_sidecar.backends.graph.rules.windows import FIRST_SPATIAL, Windows, automatic, cut, windows_of
from xai_sidecar.engine.work import Array

_FEW_CHANNELS = 4
"""Channels up to which interleaving is worth while."""

_MOST_WASTE = 1.5
"""All products that interleaving takes over those that are needed: up to here it is worth while."""


@rule("Conv")
def convolution(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient of each output goes back to its window, times the kernel."""
    kernels = node.inputs[1]
    windows = windows_of(node, _sizes(kernels, emit), node.inputs[0], node.outputs[0], emit)
    weights = emit.value(kernels)
    group = node.attributes.get("group", 1)
    if weights is not None:
        gradient, factors = emit.without_factors(gradient, len(weights), weights.ndim)
        if factors is not None:
            weights = (weights * factors.reshape(-1, *[1] * (weights.ndim - 1))).astype(weights.dtype)
            kernels = emit.constant(weights, weights.dtype)
    if weights is not None and _is_flipping_faster(weights, windows, group):
        return [_by_flipped_kernels(gradient, weights, windows, group, emit)]
    if weights is not None and _is_interleaving_faster(weights, windows, group):
        return [_by_interleaving(gradient, weights, windows, emit)]
    return [transposed(gradient, kernels, windows, group, emit)]


def transposed(gradient: str, kernels: str, windows: list[Windows], group: int, emit: Emitter) -> str:
    """The transposed convolution: each element, times a kernel, is added to its window.

    Args:
        gradient: One element for each window and output channel.
        kernels: The kernels, (output channels, input channels / group, …).
        windows: The windows.
        group: Number of groups.
        emit: Writes.
    """
    unreached = tuple(max(-each.after, 0) for each in windows)
    return emit.op(
        "ConvTranspose", gradient, emit.own(kernels), output_padding=unreached, **_attributes(windows, group)
    )


@rule("ConvTranspose")
def transposed_convolution(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Each input gets the gradient of its window, times the kernel: a convolution by the same kernels."""
    windows = _windows_of_transposed(node, emit)
    kernels, group = emit.own(node.inputs[1]), node.attributes.get("group", 1)
    found = emit.op("Conv", gradient, kernels, **_attributes(windows, group))
    for axis, each in enumerate(windows, FIRST_SPATIAL):
        if -each.after >= each.stride:  # more windows than there are inputs have room
            found = emit.sliced(found, axis, 0, each.count)
    return [found]


def _sizes(kernels: str, emit: Emitter) -> list[int]:
    return [length or 0 for length in emit.shape(kernels)[FIRST_SPATIAL:]]


def _attributes(windows: list[Windows], group: int) -> dict[str, Any]:
    return {
        "group": group,
        "kernel_shape": tuple(each.size for each in windows),
        "strides": tuple(each.stride for each in windows),
        "dilations": tuple(each.dilation for each in windows),
        "pads": (*(each.before for each in windows), *(max(each.after, 0) for each in windows)),
    }


def _windows_of_transposed(node: Node, emit: Emitter) -> list[Windows]:
    """The windows that the inputs of a transposed convolution have in its output.

    Raises:
        NotDerivableError: The output is longer than they reach. What fills it up is not the same everywhere.
    """
    how = automatic(node)
    given = replace(node, attributes={**node.attributes, "auto_pad": "NOTSET"})
    windows = windows_of(given, _sizes(node.inputs[1], emit), node.outputs[0], node.inputs[0], emit)
    if not node.attributes.get("output_shape"):
        if how == "VALID":
            return [replace(each, before=0) for each in windows]
        if not how:
            return windows
    extra = node.attributes.get("output_padding") or (0,) * len(windows)
    total = [each.covered + more - each.length for each, more in zip(windows, extra, strict=True)]
    if min(total) < 0:
        raise NotDerivableError.of(node, "has an output that is longer than its kernels reach (output_shape).")
    return [replace(each, before=cut(width, how)) for each, width in zip(windows, total, strict=True)]


def _is_flipping_faster(weights: Array, windows: list[Windows], group: int) -> bool:
    channelwise = weights.shape[1] == 1 and weights.shape[0] == group
    return all(each.stride == 1 and _reaches_in(each) for each in windows) and (group == 1 or channelwise)


def _reaches_in(windows: Windows) -> bool:
    """Whether the first window and the last one have elements of the input."""
    return windows.before < windows.extent and windows.after < windows.extent


def _by_flipped_kernels(gradient: str, weights: Array, windows: list[Windows], group: int, emit: Emitter) -> str:
    flipped = np.flip(_transposed_kernels(weights, group), tuple(range(FIRST_SPATIAL, weights.ndim)))
    # What a window has before the input, the flipped one lacks.
    borders = [
        replace(each, before=each.extent - 1 - each.before, length=each.count, count=each.length) for each in windows
    ]
    return emit.op("Conv", gradient, emit.constant(flipped), **_attributes(borders, group))


def _transposed_kernels(weights: Array, group: int) -> Array:
    """Kernels with input and output channels exchanged, (input channels, output channels / group, …)."""
    outputs, inputs, *sizes = weights.shape
    grouped = weights.reshape(group, outputs // group, inputs, *sizes)
    return grouped.swapaxes(1, 2).reshape(group * inputs, outputs // group, *sizes)


def _is_interleaving_faster(weights: Array, windows: list[Windows], group: int) -> bool:
    if len(windows) != 2 or group != 1 or weights.shape[1] > _FEW_CHANNELS:
        return False
    if not all(each.dilation == 1 and each.stride == windows[0].stride > 1 and _reaches_in(each) for each in windows):
        return False
    return math.prod(each.steps * each.stride / each.size for each in windows) <= _MOST_WASTE


def _by_interleaving(gradient: str, weights: Array, windows: list[Windows], emit: Emitter) -> str:
    """The places within a stride are channels of one convolution, and then lie side by side."""
    outputs, inputs, *sizes = weights.shape
    stride = windows[0].stride
    steps = [each.steps for each in windows]
    filled = np.zeros((outputs, inputs, *(count * stride for count in steps)), weights.dtype)
    filled[:, :, : sizes[0], : sizes[1]] = weights
    split = filled.reshape(outputs, inputs, steps[0], stride, steps[1], stride)[:, :, ::-1, :, ::-1]
    kernels = split.transpose(1, 3, 5, 0, 2, 4).reshape(inputs * stride**2, outputs, *steps)
    # The strides in which the input begins and ends, counted from the first window's first element.
    first = [each.before // stride for each in windows]
    last = [(each.before + each.length - 1) // stride for each in windows]
    before = [each.steps - 1 - number for each, number in zip(windows, first, strict=True)]
    after = [number + 1 - each.count for each, number in zip(windows, last, strict=True)]
    coarse = emit.op("Conv", gradient, emit.constant(kernels), kernel_shape=tuple(steps), pads=(*before, *after))
    fine = emit.op("DepthToSpace", coarse, blocksize=stride, mode="CRD")
    for axis, each in enumerate(windows):
        start = each.before - first[axis] * stride
        if start or (last[axis] + 1) * stride != each.before + each.length:
            fine = emit.sliced(fine, FIRST_SPATIAL + axis, start, start + each.length)
    return fine
