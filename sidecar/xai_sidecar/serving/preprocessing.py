"""From a request's pictures to model inputs, off the event loop.

Each picture is a task of the worker threads, whose cost is estimated from the picture's header. It is given up when its
call ends, or when it has taken too much CPU time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from xai_sidecar.config import ServerConfig
from xai_sidecar.engine.trace import joined, mark
from xai_sidecar.errors import OverloadedError, PictureTooLargeError, within
from xai_sidecar.imaging import (
    Header,
    InputSpec,
    Prepared,
    check_model_input,
    decode_for,
    from_pixels,
    prepare,
    prepare_decoded,
    read_header,
    reading_work,
)
from xai_sidecar.serving.requests import EncodedPicture, ModelInput, Picture, Pixels
from xai_sidecar.serving.workers import Checkpoint, Workers, WorkerTask

_QUICK_BYTES = 2 * 2**20
_RETRY_SECONDS = 1.0
_PIXELS_EFFORT = 0.3  # they are only resized


class Preprocessor:
    """Makes model inputs of pictures. To be used on one event loop.

    Args:
        workers: The threads that do it.
        limits: How much is decoded.
    """

    def __init__(self, workers: Workers, limits: ServerConfig) -> None:
        self._workers = workers
        self._limits = limits
        self._pixels = 0

    async def prepare(
        self, images: Collection[Picture], spec: InputSpec, deadline: float = float("inf")
    ) -> list[Prepared]:
        """Makes model inputs of the pictures of a request.

        Args:
            images: The pictures.
            spec: What the net takes.
            deadline: When the caller stops waiting, on the clock of `time.monotonic`.

        Raises:
            SidecarError: With the path of the field at fault within the request.
            OverloadedError: Too many pixels wait to be decoded.
        """
        pictures = list(_pictures(images))
        headers = list(self._headers(pictures))
        inputs = [each for each in pictures if isinstance(each, ModelInput)]
        if len(inputs) == len(pictures) and sum(each.array.nbytes for each in inputs) <= _QUICK_BYTES:
            # Reading them takes less time than waking a thread.
            return [self._read(index, each, spec, _no_checkpoint) for index, each in enumerate(inputs)]
        with self._room(sum(_pixels_to_decode(header) for header in headers)):
            tasks = [
                self._start(
                    partial(self._read, index, picture, spec), reading_work(header, spec) if header else 0.0, deadline
                )
                for index, (picture, header) in enumerate(zip(pictures, headers, strict=True))
            ]
            try:
                return [await _ended(task) for task in tasks]
            finally:
                for task in tasks:
                    task.abandon()

    def _headers(self, pictures: Sequence[Picture]) -> Iterator[Header | None]:
        """The header of each picture, until there are too many pixels."""
        total = 0
        for index, picture in enumerate(pictures):
            with within(f"images[{index}]"):
                header = read_picture_header(picture, self._limits)
                total += _pixels_to_decode(header)
                if total > self._limits.most_request_pixels:
                    raise PictureTooLargeError(
                        f"With this picture, those of the request have {total:,} pixels, of at most "
                        f"{self._limits.most_request_pixels:,}. Send fewer at a time, or scale them down.",
                        field="encoded",
                    )
                yield header

    def _read(self, index: int, picture: Picture, spec: InputSpec, checkpoint: Checkpoint) -> Prepared:
        with within(f"images[{index}]"):
            mark("decode_wait")
            prepared = read_picture(picture, spec, self._limits, checkpoint)
            mark("prepare")
            return prepared

    def _start(self, function: Callable[[Checkpoint], Prepared], work: float, deadline: float) -> WorkerTask[Prepared]:
        task = WorkerTask(function, deadline, self._limits.decode_seconds)
        self._workers.submit(task, work)
        return task

    @contextmanager
    def _room(self, pixels: int) -> Iterator[None]:
        """Reserves room for pixels; where none wait to be decoded, there is room for any request."""
        most = self._limits.queue_pixels
        if self._pixels and self._pixels + pixels > most:
            raise OverloadedError(
                f"{self._pixels:,} pixels wait to be decoded, and {pixels:,} more would be over the {most:,} that the "
                "server takes on. Try again shortly.",
                retry_seconds=_RETRY_SECONDS,
            )
        self._pixels += pixels
        try:
            yield
        finally:
            self._pixels -= pixels


async def _ended(task: WorkerTask[Prepared]) -> Prepared:
    prepared = await asyncio.wrap_future(task.future)
    joined(task.trace, "decode_back")
    return prepared


def _pictures(images: Collection[Picture]) -> Iterator[Picture]:
    """The pictures, each converted by the adapter only now, with the path of what is wrong with one."""
    source = iter(images)
    for index in range(len(images)):
        with within(f"images[{index}]"):
            yield next(source)


def read_picture_header(picture: Picture, limits: ServerConfig) -> Header | None:
    """What is known of a picture before it is decoded, or of pixels; None of a model input.

    Raises:
        SidecarError: With the path of the field at fault within the picture.
    """
    if isinstance(picture, ModelInput):
        return None
    if isinstance(picture, Pixels):
        return Header("pixels", picture.array.nbytes, 1, _PIXELS_EFFORT)
    with within("encoded"):
        return read_header(picture.data, limits.max_pixels)


def read_picture(
    picture: Picture, spec: InputSpec, limits: ServerConfig, checkpoint: Checkpoint = lambda: None
) -> Prepared:
    """One picture as a model input.

    Args:
        picture: The picture.
        spec: What the net takes.
        limits: How large it may be.
        checkpoint: Called between steps of decoding; what it raises ends it.

    Raises:
        SidecarError: With the path of the field at fault within the picture.
    """
    if isinstance(picture, EncodedPicture):
        with within("encoded"):
            decoded = decode_for(picture.data, spec, limits.max_pixels, checkpoint)
            mark("decode")
            checkpoint()  # resizing can take as long
            return prepare_decoded(decoded, spec)
    if isinstance(picture, Pixels):
        with within("pixels"):
            return prepare(from_pixels(picture.array, limits.max_pixels), spec)
    with within("model_input"):
        return check_model_input(picture.array, spec)


def _pixels_to_decode(header: Header | None) -> int:
    return header.pixels if header is not None and header.format != "pixels" else 0


def _no_checkpoint() -> None:
    """Never gives up."""
