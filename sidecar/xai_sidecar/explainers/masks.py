"""RISE's random masks: a coarse grid of kept and covered cells, enlarged bilinearly and shifted by part of a cell."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from xai_sidecar.engine.work import FloatArray, IntArray
from xai_sidecar.explainers.resize import bilinear_weights

BLOCK = 32
"""Masks drawn at a time, each block from a random stream of its own: mask i is the same however many are drawn."""

_CHUNK_BYTES = 2**21
"""Masks at full size that one computation holds at a time. Many computations may run at once."""


FIRST_MAP = 8
"""Masks before there is a map to hand out: a rough one, so that even a short budget buys one."""


def masks_at_a_time(pixel_count: int) -> int:
    """How many masks of some pixels a computation asks for in one piece of work."""
    return max(1, _CHUNK_BYTES // (4 * pixel_count))


@dataclass(frozen=True)
class CoarseMasks:
    """Some masks in the form in which they are drawn.

    Attributes:
        cells: (n, side, side) float32, 1 for kept and 0 for covered.
        shifts: (n, 2) int32, rows and columns in pixels that the enlarged grid is shifted by.
    """

    cells: FloatArray
    shifts: IntArray

    def __len__(self) -> int:
        return len(self.cells)


@dataclass(frozen=True)
class MaskGrid:
    """The masks of one size; Petsiuk et al.: RISE, arXiv:1806.07421, section 3.2.

    A grid of `side` x `side` cells, each kept with probability `keep_probability`, is enlarged bilinearly to
    (side + 1) cells of ⌈height / side⌉ x ⌈width / side⌉ pixels and cropped at a shift drawn from 0 up to, but
    excluding, one cell. The expectation of every pixel is `keep_probability`, since bilinear weights add up to 1.

    Attributes:
        height: Rows of the masks.
        width: Columns of the masks.
        side: Cells per side.
        keep_probability: Of a cell.
    """

    height: int
    width: int
    side: int
    keep_probability: float

    @property
    def cell(self) -> tuple[int, int]:
        """Rows and columns of a cell in pixels, which are also the numbers of different shifts."""
        return math.ceil(self.height / self.side), math.ceil(self.width / self.side)

    def draw(self, seed: int, count: int, chunk: int = BLOCK) -> Iterator[CoarseMasks]:
        """Draws masks, some at a time.

        Args:
            seed: Equal seeds give equal masks, and the first masks are the same whatever the count and the chunk.
            count: How many in all.
            chunk: How many at a time, at most; never more than `BLOCK`.
        """
        for block in range(math.ceil(count / BLOCK)):
            generator = np.random.Generator(np.random.Philox(key=np.array([seed, block], np.uint64)))
            cells = generator.random((BLOCK, self.side, self.side)) < self.keep_probability
            shifts = generator.integers(0, self.cell, (BLOCK, 2))
            wanted = min(BLOCK, count - block * BLOCK)
            for start in range(0, wanted, chunk):
                taken = slice(start, min(start + chunk, wanted))
                yield CoarseMasks(cells[taken].astype(np.float32), shifts[taken].astype(np.int32))

    def enlarge(self, masks: CoarseMasks) -> FloatArray:
        """The masks at full size, (n, height, width) float32 in [0, 1]."""
        rows, columns = self.windows()
        above = rows[masks.shifts[:, 0]] @ masks.cells
        return np.asarray(above @ columns[masks.shifts[:, 1]].transpose(0, 2, 1), np.float32)

    def windows(self) -> tuple[FloatArray, FloatArray]:
        """For every shift the (height, side) and (width, side) matrices that enlarge and crop one axis."""
        return _windows(self.height, self.side), _windows(self.width, self.side)


@functools.lru_cache(maxsize=32)
def _windows(length: int, side: int) -> FloatArray:
    """(shifts, length, side) float32: how much each pixel takes of each cell, for every shift of one axis."""
    cell = math.ceil(length / side)
    enlarged = bilinear_weights(side, (side + 1) * cell)
    return np.lib.stride_tricks.sliding_window_view(enlarged, length, axis=0)[:cell].transpose(0, 2, 1)
