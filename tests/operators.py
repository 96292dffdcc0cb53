"""Operators that the onnx package's evaluator lacks or gets wrong, by NumPy: it takes these instead.

What is wrong there: Pad refuses negative pads; GatherElements refuses negative axes and more than 32 elements; Erf, and
Gelu with it, computes in single precision; Mean does not broadcast; Softmax and LogSoftmax take one axis before opset
13, too; BatchNormalization before version 14 normalizes by the batch; LRN takes as many channels as there are rows;
LpNormalization forgets the absolute value. Normalizations that are functions of others compute in single precision.
"""

import math

import numpy as np
from onnx.reference.op_run import OpRun
from window_operators import WINDOW_OPERATORS


class Pad(OpRun):
    """All modes; negative pads cut off first."""

    def _run(self, data, pads=None, constant_value=None, axes=None, mode=None):
        axes = range(data.ndim) if axes is None else axes
        widths = np.zeros((data.ndim, 2), int)
        widths[list(axes)] = pads.reshape(2, -1).T
        for axis, (before, after) in enumerate(widths):
            cut = slice(max(-before, 0), data.shape[axis] - max(-after, 0))
            data = data[(slice(None),) * axis + (cut,)]
        fill = {"constant_values": 0 if constant_value is None else constant_value} if mode == "constant" else {}
        return (np.pad(data, np.maximum(widths, 0), mode, **fill),)


class GatherElements(OpRun):
    def _run(self, data, indices, axis=None):
        return (np.take_along_axis(data, indices, axis or 0),)


class Erf(OpRun):
    def _run(self, x):
        return (erf(x),)


def erf(x):
    return np.vectorize(math.erf, otypes=[x.dtype])(x)


class Mean(OpRun):
    def _run(self, *values):
        return (sum(values) / len(values),)


class Softmax(OpRun):
    """Before opset 13 all axes from the given one on are one axis."""

    def _run(self, x, axis=None):
        return (np.exp(self.log_softmax(x)),)

    def log_softmax(self, x):
        # What the evaluator gives as an attribute that is left out is the newest version's.
        axis = next((each.i for each in self.onnx_node.attribute), None)
        if self.run_params["opsets"][""] >= 13:
            axes = -1 if axis is None else axis
        else:
            axes = tuple(range(x.ndim)[1 if axis is None else axis :])
        shifted = x - x.max(axes, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axes, keepdims=True))


class LogSoftmax(Softmax):
    def _run(self, x, axis=None):
        return (self.log_softmax(x),)


class Gelu(OpRun):
    def _run(self, x, approximate=None):
        return (gelu_by_tanh(x) if approximate == "tanh" else gelu(x),)


def gelu(x):
    return x * (1 + erf(x / math.sqrt(2))) / 2


def gelu_by_tanh(x):
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


class FusedGelu(OpRun):
    """ONNX Runtime's own, with a bias or without; the evaluator adds an attribute that ONNX's has."""

    op_domain = "com.microsoft"

    def _run(self, x, bias=0.0, approximate=None):
        return (gelu(x + bias),)


class FastGelu(FusedGelu):
    def _run(self, x, bias=0.0):
        return (gelu_by_tanh(x + bias),)


class QuickGelu(FusedGelu):
    def _run(self, x, alpha=None):
        return (x / (1 + np.exp(-(1.702 if alpha is None else alpha) * x)),)


def renamed(operator, name):
    """An evaluator goes by the names of classes; two domains have some in common."""
    return type(name, (operator,), {})


class BatchNormalization(OpRun):
    def _run(self, x, scale, bias, mean, variance, epsilon=None, **_):
        channel = (-1, *[1] * (x.ndim - 2))
        factor = (scale / np.sqrt(variance + epsilon)).reshape(channel)
        y = (x - mean.reshape(channel)) * factor + bias.reshape(channel)
        return (y, mean, variance, mean, variance)[: len(self.output)]


def normalized(x, axes, epsilon):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


class GroupNormalization(OpRun):
    """With a scale for each group, as in version 18, or for each channel."""

    def _run(self, x, scale, bias, epsilon=None, num_groups=None, **_):
        groups = x.reshape(len(x), num_groups, x.shape[1] // num_groups, -1)
        scale, bias = (value.reshape(num_groups, -1, 1) for value in (scale, bias))
        return ((normalized(groups, (2, 3), epsilon) * scale + bias).reshape(x.shape),)


class MeanVarianceNormalization(OpRun):
    def _run(self, x, axes=None):
        axes = tuple(axes or (0, 2, 3))
        return ((x - x.mean(axes, keepdims=True)) / (x.std(axes, keepdims=True) + 1e-9),)


class LRN(OpRun):
    def _run(self, x, alpha=None, beta=None, bias=None, size=None):
        y = np.empty_like(x)
        for channel in range(x.shape[1]):
            nearby = x[:, max(0, channel - (size - 1) // 2) : channel + size // 2 + 1]
            y[:, channel] = x[:, channel] / (bias + alpha / size * np.sum(nearby**2, axis=1)) ** beta
        return (y,)


class LpNormalization(OpRun):
    def _run(self, x, axis=None, p=None):
        norm = np.linalg.norm(x, p or 2, -1 if axis is None else axis, keepdims=True)
        return (np.divide(x, norm, out=np.zeros_like(x), where=norm != 0),)


class SimplifiedLayerNormalization(OpRun):
    def _run(self, x, scale, axis=-1, epsilon=1e-5, **_):
        axes = tuple(range(axis % x.ndim, x.ndim))
        return (x / np.sqrt(np.mean(x**2, axes, keepdims=True) + epsilon) * scale,)


class RMSNormalization(SimplifiedLayerNormalization):
    pass


class SkipLayerNormalization(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, skip, scale, shift=None, bias=None, epsilon=1e-12):
        total = x + skip + (0 if bias is None else bias)
        y = normalized(total, -1, epsilon) * scale + (0 if shift is None else shift)
        return (y, total, total, total)[: len(self.output)]


class SkipSimplifiedLayerNormalization(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, skip, scale, bias=None, epsilon=1e-5):
        total = x + skip + (0 if bias is None else bias)
        y = total / np.sqrt(np.mean(total**2, -1, keepdims=True) + epsilon) * scale
        return (y, total, total, total)[: len(self.output)]


OPERATORS = [
    *WINDOW_OPERATORS,
    Pad,
    GatherElements,
    Erf,
    Mean,
    Softmax,
    LogSoftmax,
    Gelu,
    renamed(FusedGelu, "Gelu"),
    renamed(FusedGelu, "BiasGelu"),
    FastGelu,
    QuickGelu,
    BatchNormalization,
    GroupNormalization,
    MeanVarianceNormalization,
    LRN,
    LpNormalization,
    SimplifiedLayerNormalization,
    RMSNormalization,
    SkipLayerNormalization,
    SkipSimplifiedLayerNormalization,
]
