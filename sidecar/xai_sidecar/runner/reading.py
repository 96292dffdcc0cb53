"""Reads the pictures of a data set ahead of the device, on other threads, in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xai_sidecar.cpus import usable_cpus
from xai_sidecar.errors import InvalidRequestError
from xai_sidecar.imaging import InputSpec, Prepared, check_model_input, from_pixels, prepare, read
from xai_sidecar.runner.data import DataItem

MOST_PIXELS = 400_000_000
"""Pictures of more pixels than this are not read."""


@dataclass(frozen=True, eq=False)
class ReadItem:
    """A picture that was read, or why it could not be.

    Attributes:
        item: The picture.
        prepared: As the model takes it; None where it could not be read.
        problem: Why not, in a sentence; empty otherwise.
    """

    item: DataItem
    prepared: Prepared | None
    problem: str = ""


def read_ahead(items: Iterable[DataItem | None], spec: InputSpec, count: int) -> Iterator[ReadItem | None]:
    """Reads pictures, up to so many before they are wanted.

    Args:
        items: The pictures; None where there is none at the moment, and may be one later.
        spec: How they are prepared.
        count: How many at a time.

    Yields:
        The pictures, in their order; None where there is none at the moment.
    """
    pool = ThreadPoolExecutor(usable_cpus(), "reading")
    waiting: deque[Future[ReadItem]] = deque()
    try:
        for item in items:
            if item is not None:
                waiting.append(pool.submit(read_item, item, spec))
                if len(waiting) < count:
                    continue
            yield waiting.popleft().result() if waiting else None
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def read_item(item: DataItem, spec: InputSpec) -> ReadItem:
    """Reads a picture."""
    try:
        return ReadItem(item, _prepared(item, spec))
    except (InvalidRequestError, OSError) as error:
        return ReadItem(item, None, error.message if isinstance(error, InvalidRequestError) else unopened(error))


def unopened(error: OSError) -> str:
    """Why a file could not be read, in a sentence."""
    return f"It cannot be opened: {error.strerror}."


def _prepared(item: DataItem, spec: InputSpec) -> Prepared:
    content = item.content
    if isinstance(content, bytes):
        return read(content, spec, MOST_PIXELS)
    if isinstance(content, Path):
        return read(content.read_bytes(), spec, MOST_PIXELS)
    if content.dtype == np.uint8:
        pixels = content if content.ndim == 3 else content[..., np.newaxis]
        return prepare(from_pixels(pixels, MOST_PIXELS), spec)
    return check_model_input(content, spec)
