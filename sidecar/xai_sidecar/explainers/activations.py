"""How logits become probabilities: in float64, since explainers look at how little those near 0 and 1 change."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.engine.work import FloatArray

Probabilities: TypeAlias = NDArray[np.float64]

Activation: TypeAlias = Callable[[FloatArray], Probabilities]
"""Logits (…, classes) float32 → probabilities of the same shape, float64."""


def softmax(logits: FloatArray) -> Probabilities:
    """Logits (…, classes) as probabilities that add up to 1 along the last axis."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def sigmoid(logits: FloatArray) -> Probabilities:
    """Logits (…, classes) as probabilities, each on its own."""
    # As a logarithm first, so that no logit is large enough to overflow, and none too small to differ from 0.
    with np.errstate(invalid="ignore"):  # NaN stays NaN, and the map's status tells
        return np.asarray(np.exp(-np.logaddexp(0, -logits.astype(np.float64))))


ACTIVATIONS: dict[str, Activation] = {"softmax": softmax, "sigmoid": sigmoid}
"""By the name that the config has for them."""
