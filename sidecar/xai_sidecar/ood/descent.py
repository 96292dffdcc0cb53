"""Gradient descent on the head of an OoD net: its loss, the derivatives by hand, and a step.

Generalized ODIN, DeConf-C: Hsu et al. 2020, arXiv:2002.11297, section 3.1. With f the features, the logits are h_c / g:

    h_c = cos(f, W_c) = z_c / (|f| |W_c|)        z = W f
    g = sigmoid(a)                               a = gamma * BatchNorm(w · f) + beta,   1 / g = 1 + exp(-a)

and the loss L is the mean cross-entropy of their softmax. From D = dL/dh, each class's row has, with r = 1 / |W_c|,

    dL/dW_c = r Σ_n D_nc f_n / |f_n| - r³ W_c Σ_n D_nc z_nc / |f_n|

so that two matrix products are nearly all of a step, and neither W nor f is scaled first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xai_sidecar.engine.work import FloatArray, IntArray

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
GRADIENT_NORM = 1.0
"""Gradients are clipped to this global norm."""

SMALLEST = 1e-12
"""Added to squared norms, so that none is zero and the root has a finite derivative."""

_BATCH_NORM_EPSILON = 1e-5


@dataclass
class Parameters:
    """What is trained; or something for each of it: the gradient, the momentum.

    Attributes:
        weights: W, (k, features).
        divisor: w, (features,). It has no bias: the batch norm would take it away again.
        gamma: Scale of the batch norm, (1,).
        beta: Shift of the batch norm, (1,).
    """

    weights: FloatArray
    divisor: FloatArray
    gamma: FloatArray
    beta: FloatArray

    @classmethod
    def first(cls, weights: FloatArray, divisor: FloatArray) -> Parameters:
        """The beginning of a training, where the batch norm changes nothing."""
        return cls(weights, divisor, np.ones(1, weights.dtype), np.zeros(1, weights.dtype))

    def arrays(self) -> dict[str, FloatArray]:
        """The arrays by name."""
        return dict(vars(self))


class Descent:
    """Stochastic gradient descent, in the precision of the parameters.

    For each parameter p with gradient d, clipped to the global norm `GRADIENT_NORM`:
    v ← momentum · v + d + weight decay · p, then p ← p − learning rate · v.

    The batch norm uses the batch's own statistics and keeps no running ones: nobody asks for g once the training is
    over.

    Args:
        parameters: Where to begin. They are changed in place.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.moments = Parameters(*map(np.zeros_like, parameters.arrays().values()))

    def step(self, features: FloatArray, labels: IntArray, learning_rate: float) -> tuple[float, float]:
        """Takes a step.

        Args:
            features: (n, features), of the parameters' precision.
            labels: (n,), from 0 to k - 1.
            learning_rate: The step's length.

        Returns:
            The loss before it, and the accuracy on the batch.
        """
        loss, accuracy, gradient = loss_and_gradient(self.parameters, features, labels)
        square = sum(float(np.vdot(array, array)) for array in gradient.arrays().values())
        shrink = min(GRADIENT_NORM / (square + SMALLEST) ** 0.5, 1.0)
        for value, moment, derivative in zip(
            *(each.arrays().values() for each in (self.parameters, self.moments, gradient)), strict=True
        ):
            # In place: W is large, and fresh memory costs more than the arithmetic.
            moment *= MOMENTUM
            derivative *= shrink
            moment += derivative
            moment += np.multiply(value, WEIGHT_DECAY, out=derivative)
            value -= np.multiply(moment, learning_rate, out=derivative)
        return loss, accuracy


def loss_and_gradient(
    parameters: Parameters, features: FloatArray, labels: IntArray
) -> tuple[float, float, Parameters]:
    """The loss on a batch, the accuracy in [0, 1], and the gradient of the loss.

    Args:
        parameters: The parameters.
        features: (n, features), of their precision.
        labels: (n,), from 0 to k - 1.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # callers look at the loss
        products = parameters.weights @ features.T
        row_scale = 1 / np.sqrt(_squares(parameters.weights) + SMALLEST)[:, None]
        feature_scale = 1 / np.sqrt(_squares(features) + SMALLEST)
        cosines = products * row_scale * feature_scale
        divisor = _Divisor(parameters, features)
        loss, accuracy, by_logits = _cross_entropy(cosines * divisor.factor, labels)
        by_divisor, by_gamma, by_beta = divisor.derive((by_logits * cosines).sum(0))
        by_products = by_logits * (divisor.factor * feature_scale)  # but for the rows' scale
        along = np.einsum("kn,kn->k", by_products, products)[:, None] * row_scale**3
        by_weights = (by_products * row_scale) @ features
        by_weights -= along * parameters.weights
    return loss, accuracy, Parameters(by_weights, by_divisor, by_gamma, by_beta)


class _Divisor:
    """The divisor g of a batch.

    Attributes:
        factor: 1 / g, (n,).
    """

    def __init__(self, parameters: Parameters, features: FloatArray) -> None:
        self._gamma = parameters.gamma
        self._features = features
        values = features @ parameters.divisor
        centred = values - values.mean()
        self._scale = 1 / np.sqrt(np.mean(centred * centred) + _BATCH_NORM_EPSILON)
        self._normalised = centred * self._scale
        self.factor = 1 + np.exp(-(parameters.gamma * self._normalised + parameters.beta))

    def derive(self, by_factor: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The derivatives by w, gamma and beta, from those by the factors."""
        by_sum = by_factor * (1 - self.factor)
        by_gamma = by_sum @ self._normalised
        by_normalised = self._gamma * by_sum
        along = np.mean(by_normalised * self._normalised)
        by_values = (by_normalised - by_normalised.mean() - self._normalised * along) * self._scale
        return by_values @ self._features, by_gamma[None], by_sum.sum(keepdims=True)


def _squares(rows: FloatArray) -> FloatArray:
    """Squared norms of rows, (n, m) → (n,)."""
    return np.asarray(np.einsum("ij,ij->i", rows, rows))


def _cross_entropy(logits: FloatArray, labels: IntArray) -> tuple[float, float, FloatArray]:
    """The mean cross-entropy of logits, (k, n), the accuracy, and the derivative of the former by the logits."""
    samples = np.arange(len(labels))
    right = float((logits.argmax(0) == labels).mean())
    logits = logits - logits.max(0)
    at_labels = logits[labels, samples]
    np.exp(logits, out=logits)
    sums = logits.sum(0)
    loss = float(np.mean(np.log(sums) - at_labels))
    logits /= sums
    logits[labels, samples] -= 1
    logits /= len(labels)
    return loss, right, logits
