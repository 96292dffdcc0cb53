"""Finds the position on the picture of each token of a transformer's layer, by changing the picture.

A class token may be the first, the last or in the middle, there may be several, and tokens may go down the columns. So
parts of the picture are changed, and the responses of the tokens are measured. The cells of the grid are identified by
the bits of their row and their column: for each bit, the cells that have it are changed, and then all the others. A
token of the picture responds more when its own cell is changed; other tokens respond to both alike, or to neither. That
is done in the first layer with that number of tokens, before attention mixes them. Whether later layers keep the order
is another question; see `displacement`.
"""

from __future__ import annotations

import numpy as np

from xai_sidecar.backends.spatial.watched import Watch, contrast, sides, with_changed
from xai_sidecar.engine.work import Array

_SURE = 0.1
"""Least difference of a token's responses to its own cells and to the others, as a share of their sum."""


class UnplacedError(Exception):
    """The tokens have no positions on the picture; the message says why."""


def place_tokens(watch: Watch, layer: str, example: Array, grid: tuple[int, int], layout: str) -> tuple[int, ...]:
    """Finds the index of the token of each cell of the grid, row by row.

    Args:
        watch: Makes the net be watched.
        layer: The first layer with tokens of that number.
        example: One input as the net takes it, (1, …) float32.
        grid: Rows and columns of the cells that the picture is divided into.
        layout: "nchw" or "nhwc", the axes of the input.

    Raises:
        UnplacedError: There is not one token for each cell.
    """
    responses = _Responses(watch, layer, example, grid, layout)
    # A shift turns the lowest bits round, and a flip the highest ones.
    leanings = [(axis, bit, responses.leaning(axis, bit)) for axis in (0, 1) for bit in _ends(grid[axis])]
    if responses.count == grid[0] * grid[1] and all(
        _agreement(leaning, axis, bit, grid).min() > _SURE for axis, bit, leaning in leanings
    ):
        return tuple(range(responses.count))  # as many tokens as cells, and each lies where it would by counting
    return _order(responses.all_bits(), grid)


class _Responses:
    """The responses of a layer's tokens to changes in parts of an input. Arguments as of `place_tokens`."""

    def __init__(self, watch: Watch, layer: str, example: Array, grid: tuple[int, int], layout: str) -> None:
        self._watched = watch([layer])
        self._layer = layer
        self._example = example
        self._grid = grid
        self._layout = layout
        self._other = np.random.default_rng(1).standard_normal(example.shape).astype(np.float32)
        self._before = self._run(example)
        self.count = self._before.shape[1]

    def leaning(self, axis: int, bit: int) -> Array:
        """Whether tokens respond more to cells with a bit of their row, axis 0, or column, axis 1, or to the others.

        Returns:
            (tokens,), from 1, only to cells with the bit, to -1, only to those without.
        """
        cells = _having(axis, bit, self._grid)
        return contrast(self._answers(cells), self._answers(~cells))

    def all_bits(self) -> list[Array]:
        """The same for every bit of the row and of the column: (bits, tokens) each."""
        return [np.stack([self.leaning(axis, bit) for bit in range(_bit_count(self._grid[axis]))]) for axis in (0, 1)]

    def _run(self, inputs: Array) -> Array:
        return self._watched.run(inputs, self._layer)[self._layer]

    def _answers(self, cells: Array) -> Array:
        """How much each token changes with the input in some cells, (tokens,)."""
        return np.asarray(np.linalg.norm((self._run(self._changed(cells)) - self._before)[0], axis=-1))

    def _changed(self, cells: Array) -> Array:
        height, width = sides(self._example, self._layout)
        rows, columns = self._grid
        pixels = cells.repeat(height // rows, axis=0).repeat(width // columns, axis=1)
        return with_changed(self._example, self._other, pixels, self._layout)


def _having(axis: int, bit: int, grid: tuple[int, int]) -> Array:
    """The cells that have a bit of their row or column set, (rows, columns) bool."""
    return np.asarray((np.indices(grid)[axis] >> bit) % 2 == 1)


def _bit_count(side: int) -> int:
    return (side - 1).bit_length()


def _ends(side: int) -> list[int]:
    """The lowest and the highest bit of a row or column."""
    return sorted({0, _bit_count(side) - 1})


def _order(leanings: list[Array], grid: tuple[int, int]) -> tuple[int, ...]:
    """The token of each cell, by the result of `all_bits`."""
    rows, columns = grid
    sureness = np.abs(np.concatenate(leanings)).min(axis=0)
    row, column = (_number(bits) for bits in leanings)
    found: dict[tuple[int, int], int] = {}
    for token in np.argsort(-sureness, kind="stable"):
        cell = int(row[token]), int(column[token])
        if sureness[token] < _SURE or len(found) == rows * columns:
            break
        if cell in found:
            raise UnplacedError(f"the tokens {found[cell]} and {token} answer to the same part of the picture")
        found[cell] = int(token)
    cells = [(i, j) for i in range(rows) for j in range(columns)]
    if not all(cell in found for cell in cells):
        raise UnplacedError(
            f"{sum(cell not in found for cell in cells)} of {rows} x {columns} parts of the picture have no token that "
            "answers to them more than to the others"
        )
    return tuple(found[cell] for cell in cells)


def _number(leanings: Array) -> Array:
    """The numbers whose bits are given, lowest first, (bits, n)."""
    weights = 2 ** np.arange(len(leanings))
    return np.asarray(((leanings > 0) * weights[:, None]).sum(axis=0))


def _agreement(leaning: Array, axis: int, bit: int, grid: tuple[int, int]) -> Array:
    """Agreement, from 1 to -1, of the tokens' responses for a bit with the bits of their cells, row by row."""
    return np.asarray(leaning * np.where(_having(axis, bit, grid).ravel(), 1.0, -1.0))
