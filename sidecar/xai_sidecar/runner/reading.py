"""Reads the pictures of a data set ahead of the device, on other threads, in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xai_sidecar.cpus import usable_cpus
from xai_sidecar.engine.work import Array
from xai_sidecar.errors import InvalidRequestError
from xai_sidecar.evaluator.thumbnails import input_png, thumbnail_jpeg
from xai_sidecar.imaging import InputSpec, Prepared, check_model_input, from_pixels, prepare, read
from xai_sidecar.picture_units import PictureUnits
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
        kept: What those see of it who look at the run; None for nothing.
    """

    item: DataItem
    prepared: Prepared | None
    problem: str = ""
    kept: KeptPictures | None = None


class KeptPictures(NamedTuple):
    """What those see of a picture who look at a run.

    Attributes:
        thumbnail: The whole picture, small, as a JPEG file.
        png: What the model saw, as a PNG file; empty where it has neither 1 nor 3 channels.
    """

    thumbnail: bytes
    png: bytes


def read_ahead(
    items: Iterable[DataItem | None], spec: InputSpec, count: int, kept: PictureUnits | None = None
) -> Iterator[ReadItem | None]:
    """Reads pictures, up to so many before they are wanted.

    Args:
        items: The pictures; None where there is none at the moment, and may be one later.
        spec: How they are prepared.
        count: How many at a time.
        kept: Units of the pictures that those see who look at the run; None where they see none.

    Yields:
        The pictures, in their order; None where there is none at the moment.
    """
    pool = ThreadPoolExecutor(usable_cpus(), "reading")
    waiting: deque[Future[ReadItem]] = deque()
    try:
        for item in items:
            if item is not None:
                waiting.append(pool.submit(read_item, item, spec, kept))
                if len(waiting) < count:
                    continue
            yield waiting.popleft().result() if waiting else None
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def read_item(item: DataItem, spec: InputSpec, kept: PictureUnits | None = None) -> ReadItem:
    """Reads a picture; see `read_ahead`."""
    try:
        content = item.content.read_bytes() if isinstance(item.content, Path) else item.content
        prepared = _prepared(content, spec)
        return ReadItem(item, prepared, kept=_kept(content, prepared, kept) if kept else None)
    except (InvalidRequestError, OSError) as error:
        return ReadItem(item, None, error.message if isinstance(error, InvalidRequestError) else unopened(error))


def unopened(error: OSError) -> str:
    """Why a file could not be read, in a sentence."""
    return f"It cannot be opened: {error.strerror}."


def _prepared(content: bytes | Array, spec: InputSpec) -> Prepared:
    if isinstance(content, bytes):
        return read(content, spec, MOST_PIXELS)
    if content.dtype == np.uint8:
        return prepare(from_pixels(_with_channels(content), MOST_PIXELS), spec)
    return check_model_input(content, spec)


def _kept(content: bytes | Array, prepared: Prepared, units: PictureUnits) -> KeptPictures:
    png = input_png(prepared.array, units)
    if isinstance(content, bytes):
        return KeptPictures(thumbnail_jpeg(content, MOST_PIXELS), png)
    if content.dtype == np.uint8:
        return KeptPictures(thumbnail_jpeg(_with_channels(content), MOST_PIXELS), png)
    return KeptPictures(thumbnail_jpeg(png, MOST_PIXELS) if png else b"", png)


def _with_channels(pixels: Array) -> Array:
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
