"""Operators that the onnx package's evaluator lacks or gets wrong, by NumPy: it takes these instead.

What is wrong there: Pad refuses negative pads; GatherElements refuses negative axes and more than 32 elements.
"""

import numpy as np
from onnx.reference.op_run import OpRun


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


OPERATORS = [Pad, GatherElements]
