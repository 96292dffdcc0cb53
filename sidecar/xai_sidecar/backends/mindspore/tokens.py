"""Finds the position on the picture of each token of a transformer's layer, by changing the picture.

A class token may be the first, the last or in the middle, there may be several, and tokens may go down the columns. So
parts of the picture are changed, and the responses of the tokens are measured. The cells of the grid are identified by
the bits of their row and their column: for each bit, the cells that have it are changed, and then all the others. A
token of the picture responds more when its own cell is changed; other tokens respond to both alike, or to neither. That
is done in the first layer with that number of tokens, before attention mixes them. Later layers keep the order, which
is checked with the lowest bits: after a shift or a rotation their responses would be reversed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.surgery import shared_copy
from xai_sidecar.engine.work import Array

_SURE = 0.1
"""Least difference of a token's responses to its own cells and to the others, as a share of their sum."""

_CONTRADICTION = -0.05
"""The same on average over the tokens of a later layer, below which they are taken to lie elsewhere."""


class UnplacedError(Exception):
    """The tokens have no positions on the picture; the message says why."""


@dataclass(frozen=True)
class Placement:
    """The positions of the tokens of some layers.

    Attributes:
        order: The index of the token of each cell of the grid, row by row.
        moved: The layers, of those examined, whose tokens lie elsewhere.
    """

    order: tuple[int, ...]
    moved: frozenset[str]


def place_tokens(net: nn.Cell, names: list[str], example: Array, grid: tuple[int, int], layout: str) -> Placement:
    """Finds the positions of the tokens in layers with the same number of them.

    Args:
        net: The net; it is not changed.
        names: The layers, in the order in which they finish.
        example: One input as the net takes it, (1, …) float32.
        grid: Rows and columns of the cells that the picture is divided into.
        layout: "nchw" or "nhwc", the axes of the input.

    Raises:
        UnplacedError: There is not one token for each cell.
    """
    responses = _Responses(net, names, example, grid, layout)
    first, last = names[0], names[-1]
    # A shift turns the lowest bits round, and a flip the highest ones.
    rows = [(0, bit, responses.leaning(0, bit, first)) for bit in _ends(grid[0])]
    columns = [(1, bit, responses.leaning(1, bit, last)) for bit in _ends(grid[1])]
    order = tuple(range(grid[0] * grid[1]))
    plain = len(columns[0][2][first]) == len(order) and all(
        _agreement(leaning[first], axis, bit, grid).min() > _SURE for axis, bit, leaning in (*rows, *columns)
    )
    if not plain:  # else there are as many tokens as cells, and each lies where it would by counting
        order = _order(responses.all_bits(first), grid)
    moved = {
        name
        for axis, bit, leaning in columns
        for name in names
        if _agreement(leaning[name][list(order)], axis, bit, grid).mean() < _CONTRADICTION
    }
    return Placement(order, frozenset(moved))


class _ReachedError(Exception):
    """Ends a pass at the last layer that is needed."""


class _Watched:
    """A copy of a net that records the outputs of layers."""

    def __init__(self, net: nn.Cell, names: Iterable[str]) -> None:
        self._copy = shared_copy(net)
        self._seen: dict[str, Array] = {}
        self._until: str | None = None
        cells = dict(self._copy.cells_and_names())
        for name in names:
            cells[name].register_forward_hook(self._recorder(name))

    def run(self, inputs: Array, until: str | None = None) -> dict[str, Array]:
        """The outputs for an input, of all layers or of those up to one."""
        self._seen, self._until = {}, until
        with contextlib.suppress(_ReachedError):
            self._copy(ms.Tensor(inputs))
        return self._seen

    def _recorder(self, name: str) -> Any:
        def record(cell: nn.Cell, inputs: Any, output: Any) -> None:
            self._seen[name] = output.asnumpy().astype(np.float32)
            if name == self._until:
                raise _ReachedError

        return record


class _Responses:
    """The responses of tokens to changes in parts of an input. Arguments as of `place_tokens`."""

    def __init__(self, net: nn.Cell, names: list[str], example: Array, grid: tuple[int, int], layout: str) -> None:
        self._watched = _Watched(net, names)
        self._example = example
        self._grid = grid
        self._layout = layout
        self._other = np.random.default_rng(1).standard_normal(example.shape).astype(np.float32)
        self._before = self._watched.run(example, names[-1])

    def leaning(self, axis: int, bit: int, until: str) -> dict[str, Array]:
        """Whether tokens respond more to cells with a bit of their row, axis 0, or column, axis 1, or to the others.

        Returns:
            By layer, up to the one named: (tokens,), from 1, only to cells with the bit, to -1, only to those without.
        """
        cells = _having(axis, bit, self._grid)
        having, others = self._answers(cells, until), self._answers(~cells, until)
        return {name: _share(having[name], others[name]) for name in having}

    def all_bits(self, layer: str) -> list[Array]:
        """The same of one layer for every bit of the row and of the column: (bits, tokens) each."""
        return [
            np.stack([self.leaning(axis, bit, layer)[layer] for bit in range(_bit_count(self._grid[axis]))])
            for axis in (0, 1)
        ]

    def _answers(self, cells: Array, until: str) -> dict[str, Array]:
        """How much each token changes with the input in some cells, (tokens,), by layer."""
        after = self._watched.run(self._changed(cells), until)
        return {name: np.linalg.norm((output - self._before[name])[0], axis=-1) for name, output in after.items()}

    def _changed(self, cells: Array) -> Array:
        height, width = self._example.shape[2:] if self._layout == "nchw" else self._example.shape[1:3]
        rows, columns = self._grid
        mask = cells.repeat(height // rows, axis=0).repeat(width // columns, axis=1)
        mask = mask[None, None] if self._layout == "nchw" else mask[None, :, :, None]
        return np.where(mask, self._other, self._example)


def _having(axis: int, bit: int, grid: tuple[int, int]) -> Array:
    """The cells that have a bit of their row or column set, (rows, columns) bool."""
    return np.asarray((np.indices(grid)[axis] >> bit) % 2 == 1)


def _bit_count(side: int) -> int:
    return (side - 1).bit_length()


def _ends(side: int) -> list[int]:
    """The lowest and the highest bit of a row or column."""
    return sorted({0, _bit_count(side) - 1})


def _share(having: Array, others: Array) -> Array:
    total = having + others
    return np.divide(having - others, total, out=np.zeros_like(total), where=total > 0)


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
    """Mean agreement, from 1 to -1, of the tokens' responses for a bit with the bits of their cells, row by row."""
    return np.asarray(leaning * np.where(_having(axis, bit, grid).ravel(), 1.0, -1.0))
