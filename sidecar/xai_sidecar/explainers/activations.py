"""How logits become probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from xai_sidecar.engine.work import FloatArray

Activation: TypeAlias = Callable[[FloatArray], FloatArray]
"""Logits (…, classes) → probabilities of the same shape."""


def softmax(logits: FloatArray) -> FloatArray:
    """Logits (…, classes) as probabilities that add up to 1 along the last axis, float32."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def sigmoid(logits: FloatArray) -> FloatArray:
    """Logits (…, classes) as probabilities, each on its own, float32."""
    # As a tanh, so that no logit is large enough to overflow.
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64))), np.float32)


ACTIVATIONS: dict[str, Activation] = {"softmax": softmax, "sigmoid": sigmoid}
"""By the name that the config has for them."""
