"""Convolutions and pools by NumPy, from ONNX's specification; quick, since differences take thousands of rows.

The onnx package's evaluator is wrong in ConvTranspose with groups, or with pads beside output_shape; in pools with
ceil_mode, whose extra elements it puts before the input, too; in pools with dilations and automatic borders; and in
GlobalMaxPool of other than two spatial axes.
"""

from itertools import product

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from onnx.reference.op_run import OpRun


def halves(total, auto_pad):
    small, large = total // 2, total - total // 2
    return (small, large) if auto_pad == "SAME_UPPER" else (large, small)


class Windows:
    """The windows of a convolution or a pool, from its attributes."""

    def __init__(self, lengths, sizes, strides, dilations, pads, auto_pad, ceil_mode=0):
        axes = range(len(sizes))
        self.sizes, self.lengths = sizes, lengths
        self.strides, self.dilations = strides or [1] * len(sizes), dilations or [1] * len(sizes)
        extents = [(sizes[axis] - 1) * self.dilations[axis] + 1 for axis in axes]
        self.borders = [(0, 0)] * len(sizes)
        if auto_pad in (None, "NOTSET"):
            self.borders = [(pads[axis], pads[axis + len(sizes)]) for axis in axes] if pads else self.borders
        elif auto_pad != "VALID":
            reached = [
                (-(-lengths[axis] // self.strides[axis]) - 1) * self.strides[axis] + extents[axis] for axis in axes
            ]
            self.borders = [halves(max(reached[axis] - lengths[axis], 0), auto_pad) for axis in axes]
        room = [lengths[axis] + sum(self.borders[axis]) - extents[axis] for axis in axes]
        self.counts = [length // stride + 1 for length, stride in zip(room, self.strides, strict=True)]
        if ceil_mode:
            # A window that begins after the input and what comes before it is none.
            starts = [(-(-room[axis] // self.strides[axis])) * self.strides[axis] for axis in axes]
            begun = [starts[axis] < lengths[axis] + self.borders[axis][0] for axis in axes]
            self.counts = [starts[axis] // self.strides[axis] + begun[axis] for axis in axes]
        self.reach = [(self.counts[axis] - 1) * self.strides[axis] + extents[axis] for axis in axes]

    def of(self, x, fill):
        """(n, channels, windows of each axis, elements of each axis)."""
        rank = len(self.sizes)
        after = [self.reach[axis] - self.borders[axis][0] - self.lengths[axis] for axis in range(rank)]
        before = [border for border, _ in self.borders]
        x = np.pad(x, [(0, 0), (0, 0), *zip(before, np.maximum(after, 0), strict=True)], constant_values=fill)
        x = x[(..., *map(slice, self.reach))]
        extents = [(size - 1) * dilation + 1 for size, dilation in zip(self.sizes, self.dilations, strict=True)]
        steps = [slice(None, None, step) for step in (*self.strides, *self.dilations)]
        return sliding_window_view(x, extents, tuple(range(2, x.ndim)))[(..., *steps)]


class MaxPool(OpRun):
    def _run(
        self, x, auto_pad=None, ceil_mode=None, dilations=None, kernel_shape=None, pads=None, storage_order=None,
        strides=None,
    ):  # fmt: skip
        windows = Windows(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
        return (windows.of(x, -np.inf).max(axis=tuple(range(x.ndim, 2 * x.ndim - 2))),)


class AveragePool(OpRun):
    def _run(
        self, x, auto_pad=None, ceil_mode=None, count_include_pad=None, dilations=None, kernel_shape=None, pads=None,
        strides=None,
    ):  # fmt: skip
        windows = Windows(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
        elements = tuple(range(x.ndim, 2 * x.ndim - 2))
        counting = np.ones((1, 1, *x.shape[2:]))
        if count_include_pad:
            # The border counts, but not what ceil_mode has windows reach beyond it.
            wide = np.pad(counting, [(0, 0), (0, 0), *windows.borders], constant_values=1)
            windows_of_wide = Windows(wide.shape[2:], kernel_shape, strides, dilations, None, None, ceil_mode)
            windows_of_wide.reach, windows_of_wide.counts = windows.reach, windows.counts
            counts = windows_of_wide.of(wide, 0).sum(elements)
        else:
            counts = windows.of(counting, 0).sum(elements)
        return ((windows.of(x, 0).sum(elements) / counts).astype(x.dtype),)


class GlobalMaxPool(OpRun):
    def _run(self, x):
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class Conv(OpRun):
    def _run(self, x, w, b=None, auto_pad=None, dilations=None, group=None, kernel_shape=None, pads=None, strides=None):
        rank, group = x.ndim - 2, group or 1
        values = Windows(x.shape[2:], w.shape[2:], strides, dilations, pads, auto_pad).of(x, 0)
        # One row for each window, of its elements; matrix products are many times quicker than a sum over indices.
        counts = values.shape[2 : 2 + rank]
        values = values.reshape(x.shape[0], group, w.shape[1], *values.shape[2:])
        values = np.moveaxis(values, 2, 2 + rank).reshape(x.shape[0], group, np.prod(counts), -1)
        y = w.reshape(group, -1, values.shape[-1]) @ values.swapaxes(2, 3)
        y = y.reshape(x.shape[0], w.shape[0], *counts)
        return (y if b is None else y + b.reshape(-1, *[1] * rank),)


class ConvTranspose(OpRun):
    def _run(
        self, x, w, b=None, auto_pad=None, dilations=None, group=None, kernel_shape=None, output_padding=None,
        output_shape=None, pads=None, strides=None,
    ):  # fmt: skip
        axes = range(x.ndim - 2)
        group = group or 1
        strides, dilations = strides or [1] * len(axes), dilations or [1] * len(axes)
        extra = output_padding or [0] * len(axes)
        sizes, lengths = w.shape[2:], x.shape[2:]
        whole = [(lengths[a] - 1) * strides[a] + (sizes[a] - 1) * dilations[a] + 1 + extra[a] for a in axes]
        borders = [(0, 0)] * len(axes)
        if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            output_shape = output_shape or [length * stride for length, stride in zip(lengths, strides, strict=True)]
            borders = [halves(whole[a] - output_shape[a], auto_pad) for a in axes]
        elif pads and auto_pad != "VALID":
            borders = [(pads[a], pads[a + len(axes)]) for a in axes]
        y = np.zeros((x.shape[0], group, w.shape[1], *whole), x.dtype)
        inputs = x.reshape(x.shape[0], group, -1, *lengths)
        kernels = w.reshape(group, -1, w.shape[1], *sizes)
        for place in product(*map(range, sizes)):
            starts = [place[a] * dilations[a] for a in axes]
            ends = [starts[a] + (lengths[a] - 1) * strides[a] + 1 for a in axes]
            reached = (..., *(slice(*each) for each in zip(starts, ends, strides, strict=True)))
            part = kernels[(..., *place)].swapaxes(1, 2) @ inputs.reshape(*inputs.shape[:3], -1)
            y[reached] += part.reshape(*part.shape[:3], *lengths)
        y = y.reshape(x.shape[0], -1, *whole)
        y = np.pad(y, [(0, 0), (0, 0), *((max(-before, 0), max(-after, 0)) for before, after in borders)])
        y = y[(..., *(slice(max(borders[a][0], 0), y.shape[2 + a] - max(borders[a][1], 0)) for a in axes))]
        return (y if b is None else y + b.reshape(-1, *[1] * len(axes)),)


WINDOW_OPERATORS = [Conv, ConvTranspose, MaxPool, AveragePool, GlobalMaxPool]
