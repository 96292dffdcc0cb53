"""Which layers have an output that does not lie on the picture: shifted against it, turned, or in another order.

As many rows and columns as the picture has parts do not say that they are the picture's: a layer may roll, flip or
scan them, and another one behind it may put them back. So a random half of the picture is changed, then the other half,
and it is seen how far each cell of a layer's output leans to the one or the other. With e_j the energy that a change of
the part j adds to a cell, and c_j = ±1 by the half in which j lies, the cell leans by Σ e_j c_j / Σ e_j, since changes
that are independent add up in energy. That is its own part's c, blurred by how far the cell looks. So the leaning of a
layer that lies on the picture is like the halves; like no shift of them, it is that of a layer that looks at all of the
picture alike. A layer is displaced if its leaning is clearly more like the halves shifted or turned; or if it is as
sharp as the halves, the same for other values in the picture, and yet not like them.

The halves are drawn in parts of the size of the cells of each layer at once, so that fine layers and coarse ones can be
judged by the same few passes. Of a hundred cells, and fewer where a layer blurs the halves, one layer in some thousands
is like a shift of them by chance: what seems to be displaced is looked at again, by more halves, and others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from xai_sidecar.backends.spatial.watched import Watch, Watched, contrast, sides, with_changed
from xai_sidecar.engine.work import Array

_FILLS = 2
"""Other values for each half, so that what they have to do with the leaning can be told."""

_CELLS = 48
"""Cells that must be seen for a correlation that hardly comes about by chance; small grids see several halves."""

_MOST_HALVES = 4
"""As many are seen at the most, and of what seems to be displaced."""

_ALIKE = 0.35
"""Correlation with the halves, shifted or turned, from which on a layer may be displaced so."""

_CHANCE = 4.5
"""Of n cells, a correlation has a standard deviation of 1/√n by chance. The largest of some hundred shifts and turns
reaches 3.5 of them; the last layers of a trained net, of 49 cells, must not be refused for that."""

_SUSPECT = 3.5
"""The same for what is looked at again."""

_CLEARLY = 0.5
"""How much of that the correlation with the halves as they are must not reach. Half a cell off, as padding puts the
last layers of many nets, they are alike."""

_LOCAL = 0.1
"""Variance of the leaning that other values in the picture do not change, in that of the halves, below which a layer
looks at so much of the picture that what its leaning is like may be chance."""

_SHARP = 0.5
"""The same from which on a layer is as sharp as the halves."""

_OWN = 0.5
"""How much of a sharp layer's variance its own parts must account for."""


class Laid(Protocol):
    """A layer, and how its output is said to lie on the picture; see `SpatialLayer`."""

    @property
    def name(self) -> str:
        """As the net names it."""

    @property
    def height(self) -> int:
        """Rows."""

    @property
    def width(self) -> int:
        """Columns."""

    def to_nchw(self, output: Array) -> Array:
        """Its output as (n, channels, height, width)."""


def displaced(watch: Watch, layers: Sequence[Laid], example: Array, layout: str) -> frozenset[str]:
    """The names of those layers whose output lies elsewhere on the picture than said.

    Args:
        watch: Makes the net be watched.
        layers: The layers.
        example: An input as the net takes it, (1, …) float32.
        layout: "nchw" or "nhwc", the axes of the input.
    """
    if not layers:
        return frozenset()
    grids, size = [(layer.height, layer.width) for layer in layers], sides(example, layout)
    count = min(_MOST_HALVES, -(-_CELLS // min(map(math.prod, grids))))
    if count < _MOST_HALVES:
        names = _like_elsewhere(watch, layers, _halves(count, grids, size), example, layout, _SUSPECT)
        layers = [layer for layer in layers if layer.name in names]
    if not layers:
        return frozenset()
    return _like_elsewhere(watch, layers, _halves(_MOST_HALVES, grids, size), example, layout, _CHANCE)


def _like_elsewhere(
    watch: Watch, layers: Sequence[Laid], halves: Array, example: Array, layout: str, chance: float
) -> frozenset[str]:
    """The names of those layers that are displaced as far as some halves tell; see `_CHANCE` for what chance does."""
    leanings: dict[str, list[Array]] = {layer.name: [] for layer in layers}
    with np.errstate(over="ignore", invalid="ignore"):  # of a layer whose values are not finite nothing is known
        for found in _leanings(watch(list(leanings)), layers, halves, example, layout):
            for name, cells in found.items():
                leanings[name].append(cells)
    judged = [layer for layer in layers if len(leanings[layer.name]) == _FILLS * len(halves)]
    return frozenset(
        layer.name
        for layer in judged
        if _is_displaced(np.stack(leanings[layer.name]), _on_grid(halves, layer.height, layer.width), chance)
    )


def _halves(count: int, grids: list[tuple[int, int]], size: tuple[int, int]) -> Array:
    """So many halves of the picture in parts like the cells of all grids, and larger ones, (count, height, width) bool.

    Of another count, they have nothing to do with each other.
    """
    rng = np.random.default_rng([2, count])
    coarsest = min(grids, key=math.prod)
    sums = np.zeros((count, *size))
    for rows, columns in sorted({*grids, (-(-coarsest[0] // 2), -(-coarsest[1] // 2))}):
        parts = rng.standard_normal((count, rows, columns))
        sums += parts[:, _cells(size[0], rows)[:, None], _cells(size[1], columns)]
    return sums > 0


def _cells(pixels: int, cells: int) -> Array:
    """The cell of each pixel along one side."""
    return np.arange(pixels) * cells // pixels


def _on_grid(halves: Array, rows: int, columns: int) -> Array:
    """The mean of the halves, as ±1, in the cells of a grid, (halves, rows, columns)."""
    signs = np.where(halves, 1.0, -1.0)
    for axis, cells in ((1, rows), (2, columns)):
        of_pixel = _cells(signs.shape[axis], cells)
        starts = np.searchsorted(of_pixel, np.arange(cells))
        counts = np.bincount(of_pixel, minlength=cells)
        signs = np.add.reduceat(signs, starts, axis=axis) / np.expand_dims(counts, tuple({0, 1, 2} - {axis}))
    return signs


def _leanings(
    watched: Watched, layers: Sequence[Laid], halves: Array, example: Array, layout: str
) -> Iterator[dict[str, Array]]:
    """For each fill and each half, how far the cells of each layer lean to it: from 1 to -1, (rows, columns)."""
    rng = np.random.default_rng(3)
    before = watched.run(example)
    for _ in range(_FILLS):
        other = rng.standard_normal(example.shape).astype(np.float32)
        for half in halves:
            one, rest = (
                _energies(layers, before, watched.run(with_changed(example, other, part, layout)))
                for part in (half, ~half)
            )
            yield {name: contrast(one[name], rest[name]) for name in one if name in rest}


def _energies(layers: Sequence[Laid], before: dict[str, Array], after: dict[str, Array]) -> dict[str, Array]:
    """How much each cell of each layer has changed: the sum of squares over the channels, (rows, columns)."""
    # A layer that is not run for some values is not judged by these.
    seen = [layer for layer in layers if layer.name in before and layer.name in after]
    changes = {layer.name: layer.to_nchw(after[layer.name] - before[layer.name])[0] for layer in seen}
    return {name: np.einsum("chw,chw->hw", change, change, dtype=np.float64) for name, change in changes.items()}


def _is_displaced(leanings: Array, halves: Array, chance: float) -> bool:
    """By the leanings, (fills · halves, rows, columns), and the halves, (halves, rows, columns)."""
    leanings, halves = _centred(leanings), _centred(halves)
    fills = np.split(leanings, _FILLS)
    steady, all_of_it = float(np.mean(fills[0] * fills[1])), float(np.mean(halves**2))
    if steady <= _LOCAL * all_of_it:
        return False
    here, elsewhere = _likeness(leanings, np.concatenate([halves] * _FILLS))
    if elsewhere > max(_ALIKE, chance / math.sqrt(halves.size)) and here < _CLEARLY * elsewhere:
        return True
    own = float(np.mean((fills[0] + fills[1]) / 2 * halves))
    return steady > _SHARP * all_of_it and own < _OWN * steady


def _centred(values: Array) -> Array:
    return np.asarray(values - values.mean(axis=(1, 2), keepdims=True))


def _likeness(leanings: Array, halves: Array) -> tuple[float, float]:
    """The correlation of leanings with the halves as they are, and the largest one with them shifted or turned."""
    size = np.linalg.norm(leanings) * np.linalg.norm(halves)
    if not size:
        return 0.0, 0.0
    spectrum = np.fft.fft2(leanings)
    correlations = [
        np.fft.ifft2((spectrum * np.fft.fft2(turned).conj()).sum(axis=0)).real / size for turned in _turned(halves)
    ]
    here = float(correlations[0][0, 0])
    correlations[0][0, 0] = -1
    return here, max(float(each.max()) for each in correlations)


def _turned(halves: Array) -> Iterator[Array]:
    """The halves as they are, then flipped, and with rows and columns exchanged if there are as many."""
    square = halves.shape[1] == halves.shape[2]
    for each in (halves, halves.swapaxes(1, 2)) if square else (halves,):
        for rows in (1, -1):
            for columns in (1, -1):
                yield each[:, ::rows, ::columns]
