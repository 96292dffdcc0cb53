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


def read_ahead(items: Iterable[DataItem], spec: InputSpec, count: int) -> Iterator[ReadItem]:
    """Reads pictures, up to so many before they are wanted.

    Args:
        items: The pictures.
        spec: How they are prepared.
        count: How many at a time.
    """
    pool = ThreadPoolExecutor(usable_cpus(), "reading")
    waiting: deque[Future[ReadItem]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(read_item, item, spec))
            if len(waiting) >= count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def read_item(item: DataItem, spec: InputSpec) -> ReadItem:
    """Reads a picture."""
    try:
        return ReadItem(item, _prepared(item, spec))
    except (InvalidRequestError, OSError) as error:
        why = error.message if isinstance(error, InvalidRequestError) else f"It cannot be opened: {error.strerror}."
        return ReadItem(item, None, why)


def _prepared(item: DataItem, spec: InputSpec) -> Prepared:
    content = item.content
    if isinstance(content, Path):
        return read(content.read_bytes(), spec, MOST_PIXELS)
    if content.dtype == np.uint8:
        pixels = content if content.ndim == 3 else content[..., np.newaxis]
        return prepare(from_pixels(pixels, MOST_PIXELS), spec)
    return check_model_input(content, spec)
