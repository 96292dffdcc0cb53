"""What the processes say to each other: batches and what came of them, over connections of `multiprocessing`."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from xai_sidecar.engine.background import Columns
from xai_sidecar.engine.batching import padded
from xai_sidecar.engine.work import Array, Kind

_PROTOCOL = 5


@dataclass(frozen=True)
class Asked:
    """A batch.

    Attributes:
        kind: Of its rows.
        size: Batch size.
        columns: For each array of a batch the shapes of its parts (see `Background.run`), and the numbers of what they
            are in `arrays`.
        arrays: The parts, each once, with a length of 1 along each axis along which it repeats.
    """

    kind: Kind
    size: int
    columns: tuple[tuple[tuple[tuple[int, ...], int], ...], ...]
    arrays: tuple[Array, ...]

    @property
    def rows(self) -> tuple[Array, ...]:
        """The rows of the batch."""
        return tuple(
            padded(tuple(np.broadcast_to(self.arrays[number], shape) for shape, number in column), self.size)
            for column in self.columns
        )


@dataclass(frozen=True)
class Answered:
    """What came of a batch.

    Attributes:
        rows: Its results; empty if it failed.
        error: Why it failed, in a line; empty if it did not.
        cpu_seconds: What the process has used until then.
    """

    rows: tuple[Array, ...]
    error: str
    cpu_seconds: float


@dataclass(frozen=True)
class Warmed:
    """A kind of work, ready or refused.

    Attributes:
        kind: It.
        costs: Seconds of a batch by batch size; empty if it is refused.
        refused: Why it is; empty if it is not.
    """

    kind: Kind
    costs: dict[int, float]
    refused: str


def asked(kind: Kind, size: int, columns: Columns) -> Asked:
    """A batch as it is sent. Masks share a picture, and metrics of several maps the same one: it is sent once.

    Args:
        kind: Of its rows.
        size: Batch size.
        columns: For each array its parts.
    """
    numbers: dict[object, int] = {}
    arrays: list[Array] = []

    def number(once: Array) -> int:
        # What was made of arrays that are all there has the same place only if it is the same.
        place = once.__array_interface__["data"][0], once.shape, once.strides, once.dtype.str
        if place not in numbers:
            numbers[place] = len(arrays)
            arrays.append(once)
        return numbers[place]

    found = tuple(tuple((part.shape, number(_once(part))) for part in column) for column in columns)
    return Asked(kind, size, found, tuple(arrays))


def _once(array: Array) -> Array:
    """An array with a length of 1 along each axis along which it repeats."""
    repeats = zip(array.shape, array.strides, strict=True)
    return array[tuple(slice(0, 1) if length > 1 and not stride else slice(None) for length, stride in repeats)]


def send(connection: Connection, message: Any) -> None:
    """Sends a message.

    Raises:
        OSError: The other process has ended.
    """
    connection.send_bytes(pickle.dumps(message, _PROTOCOL))


def receive(connection: Connection) -> Any:
    """Waits for a message. It is from a process of our own, or it would not be unpickled.

    Raises:
        EOFError, OSError: The other process has ended.
    """
    return pickle.loads(connection.recv_bytes())  # noqa: S301 - see above
