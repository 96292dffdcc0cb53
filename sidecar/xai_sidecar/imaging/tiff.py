"""TIFF files: size, orientation, the tags of the first directory that pixels need."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from xai_sidecar.imaging.files import MOST_PARTS, Header, Stripped, broken

_MOST_ENTRIES = 1024
_WIDTH, _HEIGHT, _BITS, _ORIENTATION, _BRIGHTEST = 256, 257, 258, 274, 281

_NEEDED = {
    *(254, 255, _WIDTH, _HEIGHT, _BITS, 259, 262, 266, 273, 277, 278, 279, 284),  # sizes and offsets
    *(292, 293, 317, 320, 322, 323, 324, 325, 332, 338, 339),  # fax options, predictor, palette, tiles, samples
    *(347, 512, 513, 514, 519, 520, 521, 529, 530, 531, 532),  # JPEG's tables, YCbCr
}
_LISTS = {273, 279, 324, 325}  # where strips and tiles are

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE = {1: "B", 3: "H", 4: "I", 16: "Q"}
_EFFORT = 2.5


@dataclass(frozen=True)
class _Layout:
    """How a file writes its numbers.

    Attributes:
        order: Of the bytes, as `struct` has it.
        big: Whether it is a BigTIFF, with offsets of eight bytes.
    """

    order: str
    big: bool

    @property
    def offset(self) -> str:
        return f"{self.order}{'Q' if self.big else 'I'}"

    @property
    def count(self) -> str:
        return f"{self.order}{'Q' if self.big else 'H'}"

    @property
    def entry(self) -> str:
        return f"{self.order}HH{'Q8s' if self.big else 'I4s'}"

    @property
    def pointer(self) -> int:
        """Where the file says where its first directory is."""
        return 8 if self.big else 4


class _Entry(NamedTuple):
    tag: int
    kind: int
    length: int
    value: bytes  # or where it is, if it is longer

    @property
    def size(self) -> int:
        return _SIZES[self.kind] * self.length


def tiff_header(data: bytes) -> Header:
    """The size.

    Raises:
        PictureError: There is none.
    """
    layout = _layout(data)
    found = _numbers(data, layout)
    width, height = found.get(_WIDTH), found.get(_HEIGHT)
    if not width or not height:
        raise broken("TIFF", "it does not say how large it is")
    return Header("TIFF", width, height, _EFFORT)


def strip_tiff(data: bytes) -> Stripped:
    """With a first directory of nothing but what pixels need, and none after it.

    Raises:
        PictureError: There are too many entries, strips or tiles.
    """
    layout = _layout(data)
    found = _numbers(data, layout)
    kept: dict[int, _Entry] = {}
    for entry in _entries(data, layout):
        if entry.tag in _NEEDED:
            kept.setdefault(entry.tag, entry)
    if any(tag in kept and kept[tag].length > MOST_PARTS for tag in _LISTS):
        raise broken("TIFF", f"it has more than {MOST_PARTS:,} strips or tiles")
    body = bytearray(data)
    body += bytes(len(body) % 2)
    struct.pack_into(layout.offset, body, layout.pointer, len(body))
    body += struct.pack(layout.count, len(kept))
    for entry in sorted(kept.values(), key=lambda entry: entry.tag):
        body += struct.pack(layout.entry, entry.tag, entry.kind, entry.length, entry.value)
    body += struct.pack(layout.offset, 0)
    return Stripped(bytes(body), found.get(_ORIENTATION) or 1, _brightest(found))


def _brightest(found: dict[int, int | None]) -> int | None:
    """What is white, where the file has said so."""
    told, bits = found.get(_BRIGHTEST), found.get(_BITS) or 0
    if told and 0 < told < 65_536:
        return told
    return (1 << bits) - 1 if 8 < bits < 16 else None


def _layout(data: bytes) -> _Layout:
    layout = _Layout("<" if data[:1] == b"I" else ">", 0x2B in data[2:4])
    if len(data) < (16 if layout.big else 8):
        raise broken("TIFF", "it ends within its header")
    return layout


def _entries(data: bytes, layout: _Layout) -> Iterator[_Entry]:
    """The entries of the first directory whose values are there; the others cannot matter or cannot be read."""
    try:
        (place,) = struct.unpack_from(layout.offset, data, layout.pointer)
        (count,) = struct.unpack_from(layout.count, data, place)
    except struct.error:
        raise broken("TIFF", "it ends before its directory") from None
    if count > _MOST_ENTRIES:
        raise broken("TIFF", f"its directory has more than {_MOST_ENTRIES:,} entries")
    place += struct.calcsize(layout.count)
    step = struct.calcsize(layout.entry)
    for start in range(place, min(place + count * step, len(data) - step + 1), step):
        entry = _Entry(*struct.unpack_from(layout.entry, data, start))
        if entry.kind in _SIZES and _is_there(entry, data, layout):
            yield entry


def _is_there(entry: _Entry, data: bytes, layout: _Layout) -> bool:
    if entry.size <= len(entry.value):
        return True
    (place,) = struct.unpack(layout.offset, entry.value)
    return bool(place + entry.size <= len(data))


def _numbers(data: bytes, layout: _Layout) -> dict[int, int | None]:
    """The first number of each tag; of repeated ones, that of the first."""
    found: dict[int, int | None] = {}
    for entry in _entries(data, layout):
        found.setdefault(entry.tag, _number(entry, data, layout))
    return found


def _number(entry: _Entry, data: bytes, layout: _Layout) -> int | None:
    """The first number of an entry, if it is whole."""
    code = _WHOLE.get(entry.kind)
    if code is None or not entry.length:
        return None
    place = 0
    source = entry.value
    if entry.size > len(entry.value):
        (place,) = struct.unpack(layout.offset, entry.value)
        source = data
    return int(struct.unpack_from(f"{layout.order}{code}", source, place)[0])
