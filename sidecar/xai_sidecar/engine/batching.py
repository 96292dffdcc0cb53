"""Putting the rows of a batch together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from xai_sidecar.engine.batch import TaskSlice
from xai_sidecar.engine.work import Array, FloatArray, Kind


def rows_of(task_slice: TaskSlice) -> tuple[Array, ...]:
    """The input rows of a slice, array by array."""
    return tuple(rows[task_slice.start : task_slice.stop] for rows in task_slice.task.owner.rows)


def joined(column: tuple[Array, ...]) -> Array:
    """The arrays concatenated along the first axis. Views of one row over and over stay one, see `masked`."""
    first = column[0]
    if len(column) == 1:
        return first
    if first.strides[0] == 0 and all(_same_row(first, each) for each in column[1:]):
        return _repeated(first, sum(map(len, column)))
    return np.concatenate(column)


def padded(column: tuple[Array, ...], size: int) -> Array:
    """The arrays concatenated along the first axis; the last row repeats up to `size` rows."""
    rows = joined(column)
    missing = size - len(rows)
    if missing and rows.strides[0] == 0:
        return _repeated(rows, size)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows


def _same_row(first: Array, other: Array) -> bool:
    """Whether two arrays, the first of which is a row over and over, are of the same row in memory."""
    alike = first.strides == other.strides and first.shape[1:] == other.shape[1:] and first.dtype == other.dtype
    return alike and first.ctypes.data == other.ctypes.data


def _repeated(rows: Array, count: int) -> Array:
    return np.broadcast_to(rows[0], (count, *rows.shape[1:]))


def fitting(row_count: int, costs: Mapping[int, float]) -> int:
    """The smallest batch size that holds so many rows."""
    return min(size for size in costs if size >= row_count)


Run = Callable[[Kind, tuple[Array, ...]], tuple[Array, ...]]


def in_batches(run: Run, size: int) -> Run:
    """A backend's `run` for any number of rows, as `drive` wants it, in batches of one size."""

    def run_all(kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        done = []
        for start in range(0, len(rows[0]), size):
            batch = tuple(padded((array[start : start + size],), size) for array in rows)
            count = min(size, len(rows[0]) - start)
            done.append(tuple(output[:count] for output in run(kind, batch)))
        return tuple(joined(column) for column in zip(*done, strict=True))

    return run_all


def masked(masks: FloatArray, images: FloatArray, fills: FloatArray) -> FloatArray:
    """The inputs that the rows of a `MaskedForward` stand for, (n, C, H, W) float32.

    Args:
        masks: (n, H, W) float32.
        images: (n, C, H, W) float32; a row broadcast to all (stride 0) is computed with once.
        fills: (n, C, H, W) float32.
    """
    images, fills = _once(images), _once(fills)
    if not any(fills.strides):  # one number for all
        fills = fills[:1, :1, :1, :1]
    if fills.size == 1 and not fills.any():
        return masks[:, np.newaxis] * images
    inputs = masks[:, np.newaxis] * (images - fills)
    inputs += fills
    return inputs


def _once(rows: FloatArray) -> FloatArray:
    return rows[:1] if rows.strides[0] == 0 else rows
