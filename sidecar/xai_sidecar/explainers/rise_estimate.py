"""RISE's map from fewer masks: a regression that knows what the masks have in common.

RISE's map is, but for a constant, the covariance of the score p with each pixel M(x) of the mask, over the keep
probability q. A mask is a sum of kept cells, M = Σ_k w_k G_k, so the map is made of the covariances of p with single
cells. Where p = μ + Σ_k β(u_k) (G_k - q) + ε, with u_k the place of cell k's centre and ε uncorrelated with every
single cell, Cov(p, G_k) = q (1 - q) β(u_k): only what is linear in the cells matters to the map, and all else is noise.

So β is estimated as a function of the place, by Bayesian linear regression with a smooth Gaussian prior (Rasmussen,
Williams: Gaussian Processes for Machine Learning, 2006, sections 2.1 and 5.4). The prior's length and strength are
those of the greatest marginal likelihood. What the regression leaves over is averaged as RISE does, and added in the
proportion in which it stands out of its noise (James, Stein 1961), so that the limit for many masks is RISE's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from xai_sidecar.engine.work import FloatArray
from xai_sidecar.explainers.masks import CoarseMasks, MaskGrid
from xai_sidecar.explainers.rise_posterior import Matrix, Posterior, axis_of, posteriors

_CELLS_AT_ONCE = 100_000
"""Cells of masks that are added up in one call, which keeps Python's lock from predictions for a third of a ms."""


@dataclass(frozen=True)
class EstimatedMaps:
    """Maps estimated from some masks.

    Attributes:
        maps: (t, H, W) float32.
        standard_errors: (t,) float32, relative as in `Saliency`; infinite for a map without variation.
    """

    maps: FloatArray
    standard_errors: FloatArray


class Estimator(Protocol):
    """Collects masks with their scores, and estimates maps from them."""

    def add(self, masks: CoarseMasks, enlarged: FloatArray, scores: Matrix) -> None:
        """Takes in some masks.

        Args:
            masks: n of them.
            enlarged: The same, (n, H, W) float32.
            scores: (n, t), the weight of each mask in the map of each target.
        """

    def estimate(self) -> EstimatedMaps:
        """The maps estimated from the masks so far, of which there must be at least two."""


class PlainMean:
    """The paper's own estimate, Σ p M / (n q), equation 5.

    Args:
        grid: Where the masks come from.
        target_count: Number of maps.
    """

    def __init__(self, grid: MaskGrid, target_count: int) -> None:
        self._grid = grid
        self._count = 0
        self._sums = np.zeros((target_count, grid.height * grid.width))
        self._squares = np.zeros_like(self._sums)

    def add(self, masks: CoarseMasks, enlarged: FloatArray, scores: Matrix) -> None:
        """See `Estimator.add`."""
        pixels = enlarged.reshape(len(enlarged), -1)
        self._count += len(masks)
        self._sums += scores.T.astype(np.float32) @ pixels
        # What a mask adds to all pixels alike does not change what the map shows.
        self._squares += scores.T**2 @ (pixels - pixels.mean(axis=1, keepdims=True)) ** 2

    def estimate(self) -> EstimatedMaps:
        """See `Estimator.estimate`."""
        means = self._sums / self._count
        deviations = means - means.mean(axis=1, keepdims=True)
        variances = (self._squares / self._count - deviations**2).mean(axis=1) / self._count
        return _estimate(self._grid, means, variances)


class Regression:
    """The estimate of this module's docstring, on the paper's scale. It keeps about a kilobyte of each mask.

    Args:
        grid: Where the masks come from.
        target_count: Number of maps.
    """

    def __init__(self, grid: MaskGrid, target_count: int) -> None:
        self._grid = grid
        self._axes = (axis_of(grid.height, grid.side), axis_of(grid.width, grid.side))
        knots = self._axes[0].knots * self._axes[1].knots
        self._masks: list[CoarseMasks] = []
        self._features: list[FloatArray] = []
        self._scores: list[Matrix] = []
        self._gram = np.zeros((knots, knots))
        self._target_count = target_count

    def add(self, masks: CoarseMasks, enlarged: FloatArray, scores: Matrix) -> None:
        """See `Estimator.add`."""
        cells = masks.cells - np.float32(self._grid.keep_probability)
        rows, columns = (axis.tents[masks.shifts[:, i]] for i, axis in enumerate(self._axes))
        features = (rows.transpose(0, 2, 1) @ cells @ columns).reshape(len(cells), -1)
        self._gram += features.T @ features
        self._features.append(features.astype(np.float32))
        self._masks.append(CoarseMasks(masks.cells.astype(np.uint8), masks.shifts.astype(np.int16)))
        self._scores.append(scores)

    def estimate(self) -> EstimatedMaps:
        """See `Estimator.estimate`."""
        grid = self._grid
        scores = np.concatenate(self._scores)
        means, spreads = scores.mean(axis=0), scores.std(axis=0)
        covariances = np.zeros((self._target_count, grid.height, grid.width))
        variances = np.zeros(self._target_count)
        varied = spreads > 0  # not so where the scores are NaN; then the mean makes the map so, too
        if varied.any():
            covariances[varied], variances[varied] = self._fit((scores - means)[:, varied] / spreads[varied])
        products = grid.keep_probability * means[:, None, None] + spreads[:, None, None] * covariances
        return _estimate(grid, products.reshape(self._target_count, -1), variances * spreads**2)

    def _fit(self, scores: Matrix) -> tuple[Matrix, Matrix]:
        """The covariances of scores with the mask's pixels, and the variances of these.

        Args:
            scores: (n, t), of mean 0 and variance 1.

        Returns:
            The covariances, (t, H, W), and the mean over the pixels of their variances, (t,).
        """
        features = np.concatenate(self._features)
        products = features.T.astype(np.float64) @ scores
        # RISE and RISEPlus of a picture, or RISE of its noisy copies, have the same masks.
        grid = self._grid
        known = posteriors(grid.height, grid.width, grid.side, self._gram.tobytes())
        fits = [self._fit_with(each, scores, products) for each in known]
        best = np.argmax([[fit.evidence for fit in row] for row in fits], axis=0)
        chosen = [fits[row][target] for target, row in enumerate(best)]
        residuals = scores - features @ np.stack([fit.slopes for fit in chosen], axis=1)
        means = self._mean_products(residuals)
        found = [self._shrunk(fit, residuals[:, t], means[t]) for t, fit in enumerate(chosen)]
        return np.stack([covariance for covariance, _ in found]), np.array([variance for _, variance in found])

    def _fit_with(self, posterior: Posterior, scores: Matrix, products: Matrix) -> list[_Fit]:
        """For each target the best ridge with a prior of one length.

        Args:
            posterior: What is the same whatever the scores.
            scores: (n, t).
            products: (knots, t), of features and scores.
        """
        count = len(scores)
        along = posterior.basis.T @ products  # (kept, t)
        explained = along.T**2 @ posterior.inverses
        noises = np.maximum((scores**2).sum(axis=0)[:, None] - explained, 1e-12) / count
        evidences = -0.5 * (count * np.log(noises) + posterior.determinants)
        best = evidences.argmax(axis=1)
        return [_Fit(evidences[t, r], noises[t, r], posterior, int(r), along[:, t]) for t, r in enumerate(best)]

    def _shrunk(self, fit: _Fit, residuals: Matrix, rest: Matrix) -> tuple[Matrix, float]:
        """One target's covariance with the pixels, (H, W), and its variance: the fit plus the shrunk rest.

        Args:
            fit: The regression.
            residuals: (n,), the residuals of the scores.
            rest: (H, W), the covariance of the residuals with the pixels.
        """
        q = self._grid.keep_probability
        rows, columns = self._axes
        smooth = q * (1 - q) * rows.pixels @ fit.slopes.reshape(rows.knots, columns.knots) @ columns.pixels.T
        noise = np.mean(residuals**2) * q * (1 - q) * rows.weight * columns.weight / len(residuals)
        share = max(0.0, 1 - noise / max((rest**2).sum(), 1e-300))
        total = fit.noise * (q * (1 - q)) ** 2 * fit.spread + share * noise
        return smooth + share * rest, float(total / rest.size)

    def _mean_products(self, scores: Matrix) -> Matrix:
        """The means of scores (n, t) times masks less q, (t, H, W); equal shifts are added up before enlarging."""
        cells = np.concatenate([masks.cells for masks in self._masks]) - np.float32(self._grid.keep_probability)
        shifts = np.concatenate([masks.shifts for masks in self._masks]).astype(np.intp)
        rows, columns = (axis.windows for axis in self._axes)
        keys = shifts[:, 0] * len(columns) + shifts[:, 1]
        order = np.argsort(keys, kind="stable")
        at_once = max(1, _CELLS_AT_ONCE // cells[0].size)
        means = []
        for target in scores.T:
            sums = np.zeros((len(rows) * len(columns), *cells.shape[1:]))
            for start in range(0, len(order), at_once):
                added = order[start : start + at_once]
                present, starts = np.unique(keys[added], return_index=True)
                sums[present] += np.add.reduceat(cells[added] * target[added, None, None], starts)
            sums = sums.reshape(len(rows), len(columns), *cells.shape[1:])
            across = np.tensordot(sums, columns, ([1, 3], [0, 2]))  # (shifts, side, W)
            means.append(np.tensordot(rows, across, ([0, 2], [0, 1])) / len(target))
        return np.stack(means)


def _estimate(grid: MaskGrid, means: Matrix, variances: Matrix) -> EstimatedMaps:
    """Maps and errors from the means of p M, (t, H W), and the mean over the pixels of their variances, (t,)."""
    spreads = means.std(axis=1)
    errors = np.full(len(means), np.inf)
    np.divide(np.sqrt(np.maximum(variances, 0)), spreads, out=errors, where=spreads > 0)
    maps = (means / grid.keep_probability).reshape(-1, grid.height, grid.width)
    return EstimatedMaps(maps.astype(np.float32), errors.astype(np.float32))


@dataclass(frozen=True)
class _Fit:
    """A regression with one prior; the covariance of its slopes is noise · basis diag(inverses) basisᵀ.

    Attributes:
        evidence: The logarithm of its marginal likelihood, but for what is the same of all.
        noise: The variance of the scores' noise.
        posterior: What it takes from the masks.
        ridge: The place of its ridge among `RIDGES`.
        along: (kept,), the products of the features and the scores in terms of the basis.
    """

    evidence: float
    noise: float
    posterior: Posterior
    ridge: int
    along: Matrix

    @property
    def slopes(self) -> Matrix:
        """(knots,), β at the knots."""
        return np.asarray(self.posterior.basis @ (self.along * self.posterior.inverses[:, self.ridge]))

    @property
    def spread(self) -> float:
        """The sum over pixels of the variance of what the slopes do to them, over that of the noise."""
        return float(self.posterior.spreads @ self.posterior.inverses[:, self.ridge])
