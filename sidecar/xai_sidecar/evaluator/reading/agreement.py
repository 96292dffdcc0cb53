"""How far explainers agree: the correlation of their maps of the same pictures and classes, as of `drift.tracker`.

The maps are the small copies that the store keeps, averaged to the cells by which maps are compared elsewhere. A copy
has 256 steps between the map's lowest and highest value, which shifts a correlation by a few thousandths at the most.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, select

from xai_sidecar.evaluator.controls import is_control
from xai_sidecar.evaluator.drift.shape import GRID, cells
from xai_sidecar.evaluator.store.tables import explained

MOST_PICTURES: Final = 300
"""Pictures that the agreement in a span of time rests on; of more, as many at equal distances in time."""

_AT_A_TIME: Final = 500
_FLAT: Final = 1e-6
"""Range of a map, as a part of its largest magnitude, up to which it is the same all over but for rounding."""

_COLUMNS: Final = (
    "sample_id",
    "explainer",
    "target",
    *(f"small_{name}" for name in ("height", "width", "minimum", "maximum")),
    "small",
)

Pair: TypeAlias = tuple[str, str]


class Agreement(NamedTuple):
    """How far two explainers agree on some pictures.

    Attributes:
        places: Which of the pictures that were asked about, (n,).
        values: The correlation of both maps of each, (n,), -1 to 1.
    """

    places: NDArray[np.int64]
    values: NDArray[np.float64]


def load_agreement(
    connection: Connection, explainers: Sequence[str], sample_ids: NDArray[np.int64]
) -> dict[Pair, Agreement]:
    """How far each two explainers agree.

    Args:
        connection: In a transaction that reads.
        explainers: Explainers and controls, in the order in which pairs are named; controls agree by chance, and are
            left out.
        sample_ids: The pictures, in the order of time.

    Returns:
        By pair; without those that have no map of the same picture and class.
    """
    names = [each for each in explainers if not is_control(each)]
    chosen = np.unique(np.linspace(0, len(sample_ids) - 1, min(len(sample_ids), MOST_PICTURES)).round().astype(int))
    if len(names) < 2 or not len(chosen):
        return {}
    places = {int(sample_ids[place]): int(place) for place in chosen}
    found: defaultdict[Pair, tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
    for sample_id, maps in _by_picture(connection, names, list(places)):
        for one, two in combinations([name for name in names if name in maps], 2):
            first, second = maps[one], maps[two]
            if first.target == second.target and first.cells.shape == second.cells.shape:
                numbers, values = found[one, two]
                numbers.append(places[sample_id])
                values.append(float(first.cells @ second.cells))
    return {pair: Agreement(np.array(numbers), np.array(values)) for pair, (numbers, values) in found.items()}


class _Coarse(NamedTuple):
    """A map as means of few cells: with mean 0 and norm 1, so that the product of two is their correlation."""

    target: int
    cells: NDArray[np.float64]


def _by_picture(
    connection: Connection, names: Sequence[str], sample_ids: Sequence[int]
) -> Iterator[tuple[int, dict[str, _Coarse]]]:
    """For each picture its maps that can be compared, by explainer."""
    columns = [explained.c[name] for name in _COLUMNS]
    for first in range(0, len(sample_ids), _AT_A_TIME):
        query = select(*columns).where(
            explained.c.sample_id.in_(sample_ids[first : first + _AT_A_TIME]),
            explained.c.explainer.in_(names),
            explained.c.small.is_not(None),
        )
        sizes: defaultdict[tuple[int, int], list[Row[Any]]] = defaultdict(list)
        for row in connection.execute(query):
            if _varies(row):
                sizes[row.small_height, row.small_width].append(row)
        pictures: defaultdict[int, dict[str, _Coarse]] = defaultdict(dict)
        for (height, width), rows in sizes.items():
            for row, coarse in zip(rows, _coarse(rows, height, width), strict=True):
                pictures[row.sample_id][row.explainer] = _Coarse(row.target, coarse)
        yield from pictures.items()


def _varies(row: Row[Any]) -> bool:
    low, high = row.small_minimum, row.small_maximum
    return bool(high - low > _FLAT * max(abs(low), abs(high)))


def _coarse(rows: Sequence[Row[Any]], height: int, width: int) -> NDArray[np.float64]:
    """The cells of small maps of one size, (n, cells). A correlation does not depend on their scale: bytes will do."""
    values = np.frombuffer(b"".join(row.small for row in rows), np.uint8).reshape(len(rows), height, width)
    deviations = cells(values.astype(np.float64), GRID).reshape(len(rows), -1)
    deviations -= deviations.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(deviations, axis=1, keepdims=True)
    return np.divide(deviations, norms, out=np.zeros_like(deviations), where=norms > 0)
