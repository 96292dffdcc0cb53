"""Has programs of engines that take NaN for a number answer NaN where they are given it."""

from __future__ import annotations

import numpy as np

from xai_sidecar.backends.runtimes.program import Program
from xai_sidecar.engine.work import Array


class Guarded:
    """A program whose engine takes NaN for a number: here a row with a non-finite input gives NaN throughout.

    Args:
        program: It. The first axis of all inputs and outputs is the row.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self.inputs = program.inputs
        self.outputs = program.outputs

    def __call__(self, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Runs it; see `Program.__call__`."""
        outputs = self._program(rows)
        spoilt = ~np.all([_finite(array) for array in rows if array.dtype.kind == "f"], axis=0)
        if spoilt.any():
            for output in outputs:
                if output.dtype.kind == "f":
                    output[spoilt] = np.nan
        return outputs


def _finite(array: Array) -> Array:
    """Which rows have finite numbers alone, (n,) bool."""
    return np.asarray(np.isfinite(array).all(axis=tuple(range(1, array.ndim))))
