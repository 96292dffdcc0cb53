"""Decodes pictures and encodes answers off the event loop: the cheap never waits for the dear.

What a picture takes is known from its header, about. Small ones, which is most, and answers have threads of their own;
large ones have others, as urgent as they came, plus some time for what each takes: a small one overtakes a large one,
but not for ever. A task is one picture. It is given up when its call ends, or when it has taken too long.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from xai_proto import explanation_pb2 as pb
from xai_sidecar.config import ServerConfig
from xai_sidecar.errors import OverloadedError, PictureTooLargeError, within
from xai_sidecar.imaging import Header, InputSpec, Prepared
from xai_sidecar.rpc.pictures import header_of, read_image
from xai_sidecar.serving.workers import Look, Task, WorkerPool

T = TypeVar("T")

_CHEAP_THREADS = 2
"""As many as keep a small machine's device fed."""

_MOST_DEAR_THREADS = 4
"""Each may have a picture of `server.max_pixels` in memory."""

_CHEAP_WORK = 4e6
"""Pixels of a baseline JPEG that are decoded in about 20 ms."""

_PATIENCE = 10 / 200e6
"""Seconds of urgency that a pixel costs: ten times what it takes."""

_QUICK_BYTES = 2 * 2**20
_RETRY_SECONDS = 1.0


class Codec:
    """Threads that decode and encode. To be used on one event loop.

    Args:
        limits: How much is decoded.
    """

    def __init__(self, limits: ServerConfig) -> None:
        self._limits = limits
        self._cheap = WorkerPool(_CHEAP_THREADS, "codec")
        self._dear = WorkerPool(max(1, min(_MOST_DEAR_THREADS, len(os.sched_getaffinity(0)) // 2)), "decoder")
        self._pixels = 0

    async def run(self, function: Callable[[], T]) -> T:
        """Has something cheap done, such as encoding an answer."""
        task = Task(lambda look: function())
        self._cheap.submit(task, time.monotonic())
        try:
            return await asyncio.wrap_future(task.future)
        finally:
            task.abandon()

    async def prepare(
        self, images: Sequence[pb.Image], spec: InputSpec, deadline: float = float("inf")
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
        headers = list(self._headers(images))
        ready = all(image.HasField("model_input") for image in images)
        if ready and sum(image.ByteSize() for image in images) <= _QUICK_BYTES:
            # They are read sooner than a thread wakes up.
            return [self._read(index, image, spec, _nothing) for index, image in enumerate(images)]
        with self._room(sum(header.pixels for header in headers if header and header.format != "pixels")):
            tasks = [
                self._begun(partial(self._read, index, image, spec), header, deadline)
                for index, (image, header) in enumerate(zip(images, headers, strict=True))
            ]
            try:
                return [await asyncio.wrap_future(task.future) for task in tasks]
            finally:
                for task in tasks:
                    task.abandon()

    def close(self) -> None:
        """Ends the threads; what waits is not done."""
        self._cheap.close()
        self._dear.close()

    def _headers(self, images: Sequence[pb.Image]) -> Iterator[Header | None]:
        """Of each picture, as long as there are not too many pixels."""
        total = 0
        for index, image in enumerate(images):
            with within(f"images[{index}]"):
                header = header_of(image, self._limits)
                total += header.pixels if header and header.format != "pixels" else 0
                if total > self._limits.most_request_pixels:
                    raise PictureTooLargeError(
                        f"With this picture, those of the request have {total:,} pixels, of at most "
                        f"{self._limits.most_request_pixels:,}. Send fewer at a time, or scale them down.",
                        field="encoded",
                    )
                yield header

    def _read(self, index: int, image: pb.Image, spec: InputSpec, look: Look) -> Prepared:
        with within(f"images[{index}]"):
            return read_image(image, spec, self._limits, look)

    def _begun(self, read: Callable[[Look], Prepared], header: Header | None, deadline: float) -> Task[Prepared]:
        work = header.work if header else 0.0
        task = Task(read, deadline, self._limits.decode_seconds)
        lane = self._cheap if work <= _CHEAP_WORK else self._dear
        lane.submit(task, time.monotonic() + _PATIENCE * work)
        return task

    @contextmanager
    def _room(self, pixels: int) -> Iterator[None]:
        """Takes room for pixels; a codec with nothing to do takes any request."""
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


def _nothing() -> None:
    """Goes on."""
