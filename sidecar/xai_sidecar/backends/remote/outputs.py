"""Logits of what a model on another server gives."""

from __future__ import annotations

from typing import Literal

import numpy as np

from xai_sidecar.engine.work import Array, FloatArray
from xai_sidecar.errors import DeviceError

Gives = Literal["logits", "probabilities"]

_LEAST = np.finfo(np.float32).tiny
"""What stands for a probability of 0, whose logarithm is none."""

_MOST = 1 - np.finfo(np.float32).epsneg
"""What stands for a probability of 1 that has a complement."""

_TOLERANCE = 1e-3
"""Rounding error allowed of a probability, or of a sum of them."""


def rows_of(output: Array, name: str, columns: int | None = None) -> FloatArray:
    """An output as (rows, columns) float32; further axes have to be of length 1.

    Raises:
        DeviceError: It has another shape.
    """
    if output.ndim >= 2 and output.size == len(output) * max(output.shape[1:]):
        flat = np.asarray(output, np.float32).reshape(len(output), -1)
        if columns is None or flat.shape[1] == columns:
            return flat
    wanted = f"({len(output) if output.ndim else 'rows'}, {'columns' if columns is None else columns})"
    raise DeviceError(
        f"The output {name!r} of the model's server has the shape {output.shape}, where {wanted} was expected."
    )


def kind_of(values: FloatArray, activation: str) -> Gives:
    """Whether outputs for made-up inputs, (n, classes), are logits or probabilities."""
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1 or not np.ptp(values, axis=0).any():
        return "logits"
    if activation == "sigmoid":
        return "probabilities"
    return "probabilities" if _sum_to_one(values) and values.shape[1] > 1 else "logits"


def logits(values: FloatArray, gives: Gives, activation: str) -> FloatArray:
    """Logits, (n, classes) float32, of an output; what is not finite stays so.

    Of probabilities that a softmax gave they are the logarithms, which differ from the net's own by a number that is
    the same for all classes of a row: the softmax of both is the same. Of those of a sigmoid they are the log-odds.

    Args:
        values: The output, (n, classes).
        gives: What it is.
        activation: "softmax" or "sigmoid".

    Raises:
        DeviceError: They are no probabilities, and should be.
    """
    if gives == "logits":
        return values
    finite = values[np.isfinite(values).all(axis=1)]
    wrong = finite.size and (finite.min() < -_TOLERANCE or finite.max() > 1 + _TOLERANCE)
    if wrong or (activation == "softmax" and not _sum_to_one(finite)):
        raise DeviceError(
            "The model's server gave other values than probabilities. Set model.upstream.gives, and model.activation, "
            "to what it gives."
        )
    wide = np.asarray(values, np.float64)
    if activation == "sigmoid":
        inside = np.clip(wide, _LEAST, _MOST)
        return np.asarray(np.log(inside) - np.log1p(-inside), np.float32)
    return np.asarray(np.log(np.maximum(wide, _LEAST)), np.float32)


def _sum_to_one(values: FloatArray) -> bool:
    return bool((np.abs(values.sum(axis=1) - 1) <= _TOLERANCE).all())
