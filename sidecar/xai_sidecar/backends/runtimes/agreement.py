"""Whether a program computes what the reference does: nothing serves that was not compared.

Arrays are compared row by row, so that a row with its neighbour's result is noticed. A row is off by the norm of the
difference over the norm of what was expected: rounding, of which every number has some, hardly shows in it, while a
wrong number does. NaN and infinities have to be where the reference has them; the rest of the row is compared as ever.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xai_sidecar.backends.runtimes.program import Program
from xai_sidecar.engine.work import Array

LOGIT_TOLERANCE = 1e-3
"""How far a row of logits may be off. Rounding in float32 makes some 1e-6, winograd's way of convolution 1e-5; a graph
with another net's weights is off by its whole size."""

GRADIENT_TOLERANCE = 2e-2
"""The same for gradients, features and layers' outputs, where rounding may switch a ReLU on or off."""


def disagreement(
    outputs: Sequence[Array],
    expected: Sequence[Array],
    tolerances: Sequence[float],
    names: Sequence[str] = (),
    reference: str = "the reference",
) -> str | None:
    """Compares what a program returned with what was expected.

    Args:
        outputs: The program's arrays, (n, …) each.
        expected: The reference's, of the same shapes.
        tolerances: How far a row of each may be off.
        names: What the arrays are called; by default by their place.
        reference: What the expected ones come from.

    Returns:
        None if they agree; else the predicate of a sentence: which array differs, in which row, and how far.
    """
    if len(outputs) != len(expected):
        return f"gave {len(outputs)} arrays, not {len(expected)}"
    for place, (output, right, tolerance) in enumerate(zip(outputs, expected, tolerances, strict=True)):
        name = names[place] if names else f"output {place + 1}"
        if output.shape != right.shape:
            return f"gave shape {output.shape}, not {right.shape}, for {name}"
        found = _first_difference(_by_rows(output), _by_rows(right), tolerance)
        if found is not None:
            row, how = found
            return f"differs from {reference} {how}, in row {row} of {name}"
    return None


def relative_errors(output: Array, expected: Array) -> Array:
    """Norm of the difference over norm of what was expected, for each row, (n,) float64.

    It is 0 where both are 0, and NaN where either is not finite.
    """
    found, right = _by_rows(output), _by_rows(expected)
    with np.errstate(invalid="ignore", divide="ignore"):  # infinities among the numbers, and rows of zeros
        difference, size = np.linalg.norm(found - right, axis=1), np.linalg.norm(right, axis=1)
        return np.where(difference == 0, 0.0, difference / size)


def passes_nan(program: Program, rows: tuple[Array, ...]) -> bool:
    """Whether a row of NaN comes out as NaN, in all outputs of floating-point numbers.

    Engines whose ReLU or Clip is a maximum take NaN for the bound, and answer as if nothing were wrong.

    Args:
        program: Runs as many rows as there are.
        rows: Some good inputs; those of floating-point numbers have NaN in the first row instead.
    """
    spoilt = tuple(_first_row_nan(array) for array in rows)
    return all(bool(np.isnan(output[0]).all()) for output in program(spoilt) if output.dtype.kind == "f")


def _first_row_nan(array: Array) -> Array:
    if array.dtype.kind != "f":
        return array
    spoilt = array.copy()
    spoilt[0] = np.nan
    return spoilt


def _by_rows(array: Array) -> Array:
    return array.reshape(len(array), -1).astype(np.float64)


def _first_difference(output: Array, expected: Array, tolerance: float) -> tuple[int, str] | None:
    """The first row that is off, and how far; both arrays are (n, numbers) float64."""
    finite = np.isfinite(expected)
    places = (np.isfinite(output) == finite).all(axis=1) & _same(output, expected, ~finite)
    errors = relative_errors(np.where(finite, output, 0), np.where(finite, expected, 0))
    wrong = ~(places & (errors <= tolerance))  # not "errors > tolerance", which NaN is not
    if not wrong.any():
        return None
    row = int(np.argmax(wrong))
    if not places[row]:
        return row, "in where it has NaN or infinity"
    return row, f"by {errors[row] / tolerance:.3g} times what rounding explains"


def _same(output: Array, expected: Array, where: Array) -> Array:
    """For each row, whether NaN and infinities of either sign are the same there."""
    same = (output == expected) | (np.isnan(output) & np.isnan(expected))
    return np.asarray((same | ~where).all(axis=1))
