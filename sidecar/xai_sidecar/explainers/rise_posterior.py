"""What RISE's regression takes from the masks alone, whatever their scores: see `rise_estimate`."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.explainers.masks import MaskGrid

Matrix = NDArray[np.float64]

_KNOTS_PER_CELL = 1.7
_MOST_KNOTS = 16
"""Knots of β per side at the most; the cost of the regression grows with their sixth power."""

LENGTHS = (0.5, 0.75, 1.0, 1.5, 2.5)
"""Lengths of the prior that are tried, in cells."""

RIDGES = np.logspace(-2, 6, 33)
"""Ratios of the noise's to the prior's variance that are tried."""

_NEGLIGIBLE = 1e-6
"""Variances of the prior below this, of 1 for a slope, are left out: where it is smooth, they are most of them, and the
time that the eigenvalues take grows with the third power of how many there are."""


@dataclass(frozen=True)
class Posterior:
    """What a regression with a prior of one length takes from the masks alone.

    Attributes:
        values: (kept,), the eigenvalues of the masks' products in terms of the prior's root.
        basis: (knots, kept), the root times the eigenvectors.
        overlap: (knots, knots), the sums over pixels of the products of what two slopes do to them.
    """

    values: Matrix
    basis: Matrix
    overlap: Matrix

    @functools.cached_property
    def inverses(self) -> Matrix:
        """(kept, ridges), 1 over the sums of values and ridges."""
        return np.asarray(1 / (self.values[:, None] + RIDGES))

    @functools.cached_property
    def determinants(self) -> Matrix:
        """(ridges,), the logarithms of the determinants of the scores' covariance, over their noise."""
        return np.asarray(np.log1p(self.values[:, None] / RIDGES).sum(axis=0))

    @functools.cached_property
    def spreads(self) -> Matrix:
        """(kept,), the sum over pixels of the square of what each column of the basis does to them."""
        return np.asarray(np.einsum("ik,ik->k", self.basis, self.overlap @ self.basis))


@functools.lru_cache(maxsize=4)
def posteriors(height: int, width: int, side: int, gram: bytes) -> tuple[Posterior, ...]:
    """Those of each of `LENGTHS`, of a grid and the products of its masks' features, (knots, knots) float64."""
    rows, columns = axis_of(height, side), axis_of(width, side)
    knots = rows.knots * columns.knots
    products = np.frombuffer(gram).reshape(knots, knots)
    overlap = np.kron(rows.overlap, columns.overlap)
    found = []
    for down, across in zip(rows.prior_roots, columns.prior_roots, strict=True):
        kept = np.outer((down**2).sum(axis=0), (across**2).sum(axis=0)).ravel() > _NEGLIGIBLE
        half = _kron_times(down.T, across.T, products)[kept]
        values, vectors = np.linalg.eigh(_kron_times(down.T, across.T, half.T)[kept])
        whole = np.zeros((len(kept), len(values)))
        whole[kept] = vectors
        found.append(Posterior(np.maximum(values, 0), _kron_times(down, across, whole), overlap))
    return tuple(found)


def _kron_times(first: Matrix, second: Matrix, matrix: Matrix) -> Matrix:
    """The product of the Kronecker product of two matrices with a third one, in a sixth of its operations."""
    inner = second @ matrix.reshape(first.shape[1], second.shape[1], -1)
    return np.asarray((first @ inner.reshape(first.shape[1], -1)).reshape(-1, matrix.shape[1]))


def _root(covariance: Matrix) -> Matrix:
    """A root of a covariance, (n, kept), without the directions in which there is next to none."""
    variances, directions = np.linalg.eigh(covariance)
    kept = variances > _NEGLIGIBLE
    return np.asarray(directions[:, kept] * np.sqrt(variances[kept]))


@dataclass(frozen=True)
class Axis:
    """Matrices of the regression that depend on one axis alone.

    Attributes:
        tents: (shifts, side, knots): β at each cell's centre is Σ tents · slopes.
        windows: (shifts, pixels, side): how much each pixel takes of each cell.
        pixels: (pixels, knots): the mean over all shifts of windows · tents.
        weight: Σ over pixels of the mean over all shifts of Σ windows².
        distances: (knots, knots) between knots, in cells.
    """

    tents: Matrix
    windows: Matrix
    pixels: Matrix
    weight: float
    distances: Matrix

    @property
    def knots(self) -> int:
        """How many knots β has along it."""
        return len(self.distances)

    @functools.cached_property
    def overlap(self) -> Matrix:
        """(knots, knots), the sums over pixels of the products of what two slopes do to them along this axis."""
        return np.asarray(self.pixels.T @ self.pixels)

    @functools.cached_property
    def prior_roots(self) -> tuple[Matrix, ...]:
        """For each of `LENGTHS` a root of the prior covariance of the slopes along this axis, (knots, kept).

        Its columns are the covariance's eigenvectors, each as long as the root of its eigenvalue.
        """
        return tuple(_root(np.exp(-0.5 * (self.distances / length) ** 2)) for length in LENGTHS)


@functools.lru_cache(maxsize=8)
def axis_of(length: int, side: int) -> Axis:
    """The axis of so many pixels and cells."""
    grid = MaskGrid(length, length, side, 0.5)
    windows = grid.windows()[0].astype(np.float64)
    pitch = (side + 1) * math.ceil(length / side) / side
    centres = (np.arange(side) + 0.5) * pitch - 0.5 - np.arange(len(windows))[:, None]  # (shifts, side)
    knots = np.linspace(centres.min(), centres.max(), min(_MOST_KNOTS, math.ceil(_KNOTS_PER_CELL * side)))
    spacing = knots[1] - knots[0]
    tents = np.maximum(0, 1 - np.abs(centres[..., None] - knots) / spacing)
    return Axis(
        tents=tents,
        windows=windows,
        pixels=np.einsum("shk,ska->ha", windows, tents) / len(windows),
        weight=float((windows**2).sum() / len(windows)),
        distances=np.abs(knots[:, None] - knots) / pitch,
    )
