"""Pictures and maps that browsers fetch, kept in memory for as long as there is room."""

from __future__ import annotations

import hashlib
import io
import json
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from xai_client.picture import to_picture
from xai_console.overlay import Grid

_ROOM: Final = 512 * 2**20
_LONGEST_SIDE: Final = 1600


@dataclass(frozen=True)
class Kept:
    """One thing on the shelf.

    Attributes:
        data: What a browser gets.
        media_type: Its type.
    """

    data: bytes
    media_type: str


@dataclass(frozen=True)
class KeptPicture:
    """A picture that browsers can show.

    Attributes:
        url: Of the picture, upright, and smaller where it is large.
        size: Width and height of the upright picture as it was.
    """

    url: str
    size: tuple[int, int]


class _Room:
    """What several shelves keep, by shelf and name; what was not looked at for longest goes first."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: OrderedDict[tuple[bytes, str], Kept] = OrderedDict()
        self._size = 0

    def put(self, key: tuple[bytes, str], kept: Kept) -> None:
        self._kept[key] = kept
        self._size += len(kept.data)
        while self._size > self._room and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped.data)

    def get(self, key: tuple[bytes, str]) -> Kept | None:
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def clear(self, shelf: bytes) -> None:
        for key in [key for key in self._kept if key[0] == shelf]:
            self._size -= len(self._kept.pop(key).data)


class Shelf:
    """Keeps what was put there last, under names that cannot be guessed.

    Args:
        room: Bytes that there is room for.
        beside: Another shelf, whose room it shares; neither finds what the other keeps.
    """

    def __init__(self, room: int = _ROOM, beside: Shelf | None = None) -> None:
        self._room: _Room = _Room(room) if beside is None else beside._room
        self._key = secrets.token_bytes(32)

    def put(self, data: bytes, media_type: str) -> str:
        """Keeps something; returns its name, which is the same for the same content."""
        name = hashlib.blake2b(data, key=self._key, digest_size=16).hexdigest()
        if self.get(name) is None:
            self._room.put((self._key, name), Kept(data, media_type))
        return name

    def get(self, name: str) -> Kept | None:
        """What is kept under a name; None if nothing is, or no more."""
        return self._room.get((self._key, name))

    def clear(self) -> None:
        """Keeps nothing of it any longer."""
        self._room.clear(self._key)

    def grid(self, values: NDArray[Any]) -> Grid:
        """Keeps the values of a map, (rows, columns), as float32."""
        data = np.ascontiguousarray(values, "<f4").tobytes()
        return Grid(url_of(self.put(data, "application/octet-stream")), *values.shape)

    def listing(self, texts: Sequence[str]) -> str:
        """Keeps a list of texts, as JSON; returns where browsers get it."""
        return url_of(self.put(json.dumps(list(texts), ensure_ascii=False).encode(), "application/json"))

    def picture(self, encoded: bytes) -> KeptPicture:
        """Keeps a picture as browsers can show it, whatever file it is of.

        Raises:
            ImageError: It cannot be decoded.
        """
        picture = to_picture(encoded)
        size = picture.size
        picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        buffer = io.BytesIO()
        lossless = encoded[:4] == b"\x89PNG"
        picture.save(buffer, "PNG" if lossless else "JPEG", quality=92, compress_level=1)
        return KeptPicture(url_of(self.put(buffer.getvalue(), "image/png" if lossless else "image/jpeg")), size)


def url_of(name: str) -> str:
    """Where browsers get what is kept under a name."""
    return f"/kept/{name}"
