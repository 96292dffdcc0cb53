"""Imputing pixels from those around them: what is taken away leaves no trace of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.engine.work import FloatArray

_NEIGHBOURS = ((0, 1, 1 / 6), (1, -1, 1 / 12), (1, 0, 1 / 6), (1, 1, 1 / 12))
"""Down, across, and the weight, of those that come after a pixel; the others are opposite to these."""

BANDED = 2_000_000
"""Unknown pixels times the square of the band's width up to which a banded factorisation is taken: that of any picture
up to 37 x 37 pixels takes a quarter of the time of a sparse one. It keeps Python's lock, for half a millisecond at the
most, and a sparse one does not."""


def imputed(image: FloatArray, known: NDArray[np.bool_]) -> FloatArray:
    """Copies of an image whose unknown pixels are each the weighted mean of their eight neighbours, known or not.

    Direct neighbours weigh 1/6 and diagonal ones 1/12; beyond the edges there are none, and the others weigh so much
    more. Linear imputation of Rong et al.: A Consistent and Efficient Evaluation Strategy for Attribution Methods, ICML
    2022, arXiv:2202.00449, without its noise. The equations are solved exactly, for all channels by one factorisation:
    the matrix is symmetric and diagonally dominant, and needs no pivots.

    Args:
        image: (C, H, W).
        known: (n, H, W), at least one pixel of each copy.

    Returns:
        The copies, (n, C, H, W) float32, unchanged where they are known.

    Raises:
        ValueError: Nothing is known of one.
    """
    if not known.any(axis=(1, 2)).all():
        raise ValueError("of no pixel anything is known")
    if known.shape[1] < known.shape[2]:  # the band is as wide as the rows are long
        return imputed(image.transpose(0, 2, 1), known.transpose(0, 2, 1)).transpose(0, 1, 3, 2)
    result = np.repeat(image[np.newaxis].astype(np.float32), len(known), axis=0)
    for copy, given, equations in zip(result, known, _equations(image, known), strict=True):
        if len(equations.diagonal):
            copy[:, ~given] = (_solved_banded if equations.is_small else _solved_sparse)(equations).T
    return result


@dataclass(frozen=True)
class _Equations:
    """The equations of n unknown pixels, in their order.

    Attributes:
        diagonal: (n,), the sum of the weights of each one's neighbours.
        right: (n, C), the weighted sum of those that are known.
        first: (pairs,), of unknown pixels that are neighbours, the one that comes first.
        second: (pairs,), the other one.
        weights: (pairs,).
    """

    diagonal: NDArray[np.float64]
    right: NDArray[np.float64]
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    weights: NDArray[np.float64]

    @property
    def band(self) -> int:
        """How far apart two unknown pixels are that are neighbours, at the most."""
        return int((self.second - self.first).max(initial=0))

    @property
    def is_small(self) -> bool:
        """Whether a banded factorisation is the quicker one and hardly keeps anybody waiting."""
        return len(self.diagonal) * self.band**2 <= BANDED


def _equations(image: FloatArray, known: NDArray[np.bool_]) -> Iterator[_Equations]:
    """Those of each copy, which are set up for all at once."""
    unknown = _flat(~known).ravel()
    numbers = np.cumsum(unknown) - 1  # of unknown pixels, through all copies
    values = _flat(np.where(known[:, np.newaxis], image.astype(np.float64), 0.0))
    right, weight_sums = np.zeros_like(values), np.zeros((known.shape[1] + 1) * (known.shape[2] + 1))
    inside = _flat(np.ones(known.shape[1:]))
    pairs = []
    for down, across, weight in _NEIGHBOURS:
        step = down * (known.shape[2] + 1) + across
        for sums, of in ((right, values), (weight_sums, inside)):
            sums[..., :-step] += weight * of[..., step:]
            sums[..., step:] += weight * of[..., :-step]
        first = np.flatnonzero(unknown[:-step] & unknown[step:])
        pairs.append((numbers[first], numbers[first + step], weight))
    ends = np.cumsum(np.count_nonzero(~known, axis=(1, 2)))
    starts = np.concatenate([[0], ends[:-1]])
    cuts = [np.searchsorted(first, [starts, ends]) for first, _, _ in pairs]
    for copy, (start, own) in enumerate(zip(starts, unknown.reshape(len(known), -1), strict=True)):
        parts = [(slice(*cut[:, copy]), *pair) for cut, pair in zip(cuts, pairs, strict=True)]
        yield _Equations(
            weight_sums[own],
            right[copy][:, own].T,
            np.concatenate([first[part] for part, first, _, _ in parts]) - start,
            np.concatenate([second[part] for part, _, second, _ in parts]) - start,
            np.concatenate([np.full(part.stop - part.start, weight) for part, _, _, weight in parts]),
        )


def _flat(pixels: NDArray[Any]) -> NDArray[Any]:
    """Pixels (…, H, W) as (…, (H + 1)(W + 1)): zeros after each row and the last one part what is not adjacent."""
    *others, height, width = pixels.shape
    larger = np.zeros((*others, height + 1, width + 1), pixels.dtype)
    larger[..., :height, :width] = pixels
    return larger.reshape(*others, -1)


def _solved_banded(equations: _Equations) -> NDArray[np.float64]:
    """The unknown pixels, (n, C), by a banded Cholesky factorisation."""
    from scipy.linalg.lapack import dpbsv  # importing it takes a tenth of a start

    bands = np.zeros((len(equations.diagonal), equations.band + 1))
    bands[:, 0] = equations.diagonal
    bands[equations.first, equations.second - equations.first] = -equations.weights
    _, solution, info = dpbsv(bands.T, equations.right, lower=1, overwrite_ab=1)
    if info:
        raise ArithmeticError(f"the equations of the imputed pixels could not be solved: dpbsv says {info}")
    return np.asarray(solution)


def _solved_sparse(equations: _Equations) -> NDArray[np.float64]:
    """The unknown pixels, (n, C), by a sparse LU factorisation."""
    from scipy.sparse import csc_matrix  # importing it takes a tenth of a start
    from scipy.sparse.linalg import splu

    count, first, second = len(equations.diagonal), equations.first, equations.second
    places = np.arange(count)
    values = np.concatenate([equations.diagonal, -equations.weights, -equations.weights])
    rows, columns = np.concatenate([places, first, second]), np.concatenate([places, second, first])
    matrix = csc_matrix((values, (rows, columns)), (count, count))
    factors = splu(matrix, "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return np.asarray(factors.solve(equations.right))
