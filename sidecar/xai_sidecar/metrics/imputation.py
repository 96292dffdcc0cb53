"""Imputing pixels from those around them: what is taken away leaves no trace of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.engine.work import FloatArray

_NEIGHBOURS = ((0, 1, 1 / 6), (1, -1, 1 / 12), (1, 0, 1 / 6), (1, 1, 1 / 12))
"""Down, across, and the weight, of those that come after a pixel; the others are opposite to these."""

_WEIGHTS = np.array([[weight] for _, _, weight in _NEIGHBOURS])

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
    result.transpose(1, 0, 2, 3)[:, ~known] = np.concatenate([_solved(each) for each in _equations(image, known)]).T
    return result


@dataclass(frozen=True)
class _Equations:
    """The equations of n unknown pixels, in their order.

    Attributes:
        diagonal: (n,), the sum of the weights of each one's neighbours.
        right: (n, C), the weighted sum of those that are known.
        offsets: (neighbours, n), how many unknown pixels further each of `_NEIGHBOURS` is; 0 where it is known.
    """

    diagonal: NDArray[np.float64]
    right: NDArray[np.float64]
    offsets: NDArray[np.intp]

    @cached_property
    def band(self) -> int:
        """How far apart two unknown pixels are that are neighbours, at the most."""
        return int(self.offsets.max(initial=0))

    @property
    def is_small(self) -> bool:
        """Whether a banded factorisation is the quicker one and hardly keeps anybody waiting."""
        return len(self.diagonal) * self.band**2 <= BANDED


def _equations(image: FloatArray, known: NDArray[np.bool_]) -> Iterator[_Equations]:
    """Those of each copy, which are set up for all at once."""
    unknown = _flat(~known).ravel()
    values = _flat(np.where(known, image.astype(np.float64)[:, np.newaxis], 0.0))
    right, weight_sums = np.zeros_like(values), np.zeros((known.shape[1] + 1) * (known.shape[2] + 1))
    inside = _flat(np.ones(known.shape[1:]))
    places = np.flatnonzero(unknown)
    numbers = np.cumsum(unknown)  # of unknown pixels, through all copies
    offsets = np.empty((len(_NEIGHBOURS), len(places)), np.intp)
    for (down, across, weight), offset in zip(_NEIGHBOURS, offsets, strict=True):
        step = down * (known.shape[2] + 1) + across
        for sums, of in ((right, weight * values), (weight_sums, weight * inside)):
            sums[..., :-step] += of[..., step:]
            sums[..., step:] += of[..., :-step]
        there = places + step  # never beyond the end: after the last pixel there is a row of those that are not unknown
        np.multiply(numbers[there] - numbers[places], unknown[there], out=offset)
    rights = right.reshape(len(image), -1)[:, unknown].T
    diagonals = np.broadcast_to(weight_sums, values.shape[1:]).ravel()[unknown]
    ends = np.cumsum(np.count_nonzero(~known, axis=(1, 2)))
    for start, end in itertools.pairwise([0, *ends]):
        yield _Equations(diagonals[start:end], rights[start:end], offsets[:, start:end])


def _flat(pixels: NDArray[Any]) -> NDArray[Any]:
    """Pixels (…, H, W) as (…, (H + 1)(W + 1)): zeros after each row and the last one part what is not adjacent."""
    *others, height, width = pixels.shape
    larger = np.zeros((*others, height + 1, width + 1), pixels.dtype)
    larger[..., :height, :width] = pixels
    return larger.reshape(*others, -1)


def _solved(equations: _Equations) -> NDArray[np.float64]:
    """The unknown pixels, (n, C)."""
    if not len(equations.diagonal):
        return equations.right
    return _solved_banded(equations) if equations.is_small else _solved_sparse(equations)


def _solved_banded(equations: _Equations) -> NDArray[np.float64]:
    """The unknown pixels, (n, C), by a banded Cholesky factorisation."""
    from scipy.linalg.lapack import dpbsv  # importing it takes a tenth of a start

    count = len(equations.diagonal)
    bands = np.zeros((count, equations.band + 1))
    bands[np.arange(count), equations.offsets] = -_WEIGHTS
    bands[:, 0] = equations.diagonal  # where there is no neighbour, too
    _, solution, info = dpbsv(bands.T, equations.right, lower=1, overwrite_ab=1)
    if info:
        raise ArithmeticError(f"the equations of the imputed pixels could not be solved: dpbsv says {info}")
    return np.asarray(solution)


def _solved_sparse(equations: _Equations) -> NDArray[np.float64]:
    """The unknown pixels, (n, C), by a sparse LU factorisation."""
    from scipy.sparse import csc_matrix  # importing it takes a tenth of a start
    from scipy.sparse.linalg import splu

    count = len(equations.diagonal)
    neighbour, first = np.nonzero(equations.offsets)
    second, weights = first + equations.offsets[neighbour, first], _WEIGHTS[neighbour, 0]
    places = np.arange(count)
    values = np.concatenate([equations.diagonal, -weights, -weights])
    rows, columns = np.concatenate([places, first, second]), np.concatenate([places, second, first])
    matrix = csc_matrix((values, (rows, columns)), (count, count))
    factors = splu(matrix, "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return np.asarray(factors.solve(equations.right))
