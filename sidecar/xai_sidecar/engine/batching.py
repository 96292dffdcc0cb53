"""Putting the rows of a launch together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from xai_sidecar.engine.scheduler import Part
from xai_sidecar.engine.work import Array, Kind


def rows_of(part: Part) -> tuple[Array, ...]:
    """The input rows of a part of a job's piece, array by array."""
    return tuple(rows[part.start : part.stop] for rows in part.piece.owner.work.rows)


def joined(column: tuple[Array, ...]) -> Array:
    """The arrays one below the other."""
    return np.concatenate(column) if len(column) > 1 else column[0]


def padded(column: tuple[Array, ...], size: int) -> Array:
    """The arrays one below the other; the last row repeats to fill up."""
    rows = joined(column)
    missing = size - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows


def fitting(part: Part, costs: Mapping[int, float]) -> int:
    """The smallest batch size that holds a part."""
    return min(size for size in costs if size >= part.stop - part.start)


Run = Callable[[Kind, tuple[Array, ...]], tuple[Array, ...]]


def in_batches(run: Run, size: int) -> Run:
    """A backend's `run` for any number of rows, as `drive` wants it, by launches of one size."""

    def run_all(kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        done = []
        for start in range(0, len(rows[0]), size):
            part = tuple(padded((array[start : start + size],), size) for array in rows)
            count = min(size, len(rows[0]) - start)
            done.append(tuple(output[:count] for output in run(kind, part)))
        return tuple(joined(column) for column in zip(*done, strict=True))

    return run_all
