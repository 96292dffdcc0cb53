"""TIFF files: reads the size and the orientation, removes tags and directories that the first page does not need."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from xai_sidecar.imaging.files import MOST_CHUNKS, Header, Stripped, broken

_MOST_ENTRIES = 1024
_WIDTH, _HEIGHT, _BITS, _ORIENTATION, _MAX_SAMPLE_VALUE = 256, 257, 258, 274, 281

_PIXEL_TAGS = {
    *(254, 255, _WIDTH, _HEIGHT, _BITS, 259, 262, 266, 273, 277, 278, 279, 284),  # sizes and offsets
    *(292, 293, 317, 320, 322, 323, 324, 325, 332, 338, 339),  # fax options, predictor, palette, tiles, samples
    *(347, 512, 513, 514, 519, 520, 521, 529, 530, 531, 532),  # JPEG's tables, YCbCr
}
_CHUNK_LISTS = {273, 279, 324, 325}  # offsets and sizes of strips and tiles

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE = {1: "B", 3: "H", 4: "I", 16: "Q"}
_DECODING_COST = 2.5


@dataclass(frozen=True)
class _Layout:
    """The number formats of a file.

    Attributes:
        order: Byte order, as `struct` has it.
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
        """Where the offset of the first directory is stored."""
        return 8 if self.big else 4


class _Entry(NamedTuple):
    """An entry of a directory: `length` values of a type, or their offset where they do not fit in `value`."""

    tag: int
    kind: int
    length: int
    value: bytes

    @property
    def size(self) -> int:
        return _SIZES[self.kind] * self.length


def tiff_header(data: bytes) -> Header:
    """Reads the size from the first directory.

    Raises:
        PictureError: It has none.
    """
    layout = _layout(data)
    found = _numbers(data, layout)
    width, height = found.get(_WIDTH), found.get(_HEIGHT)
    if not width or not height:
        raise broken("TIFF", "it does not say how large it is")
    return Header("TIFF", width, height, _DECODING_COST)


def strip_tiff(data: bytes) -> Stripped:
    """Appends a directory of the tags that pixels depend on, and makes it the first and only one.

    Raises:
        PictureError: There are too many entries, strips or tiles.
    """
    layout = _layout(data)
    found = _numbers(data, layout)
    kept: dict[int, _Entry] = {}
    for entry in _entries(data, layout):
        if entry.tag in _PIXEL_TAGS:
            kept.setdefault(entry.tag, entry)
    if any(tag in kept and kept[tag].length > MOST_CHUNKS for tag in _CHUNK_LISTS):
        raise broken("TIFF", f"it has more than {MOST_CHUNKS:,} strips or tiles")
    body = bytearray(data)
    body += bytes(len(body) % 2)
    struct.pack_into(layout.offset, body, layout.pointer, len(body))
    body += struct.pack(layout.count, len(kept))
    for entry in sorted(kept.values(), key=lambda entry: entry.tag):
        body += struct.pack(layout.entry, entry.tag, entry.kind, entry.length, entry.value)
    body += struct.pack(layout.offset, 0)
    return Stripped(bytes(body), found.get(_ORIENTATION) or 1, _white_level(found))


def _white_level(found: dict[int, int | None]) -> int | None:
    """The value that is white, if MaxSampleValue or a BitsPerSample between 8 and 16 says so."""
    declared, bits = found.get(_MAX_SAMPLE_VALUE), found.get(_BITS) or 0
    if declared and 0 < declared < 65_536:
        return declared
    return (1 << bits) - 1 if 8 < bits < 16 else None


def _layout(data: bytes) -> _Layout:
    layout = _Layout("<" if data[:1] == b"I" else ">", 0x2B in data[2:4])
    if len(data) < (16 if layout.big else 8):
        raise broken("TIFF", "it ends within its header")
    return layout


def _entries(data: bytes, layout: _Layout) -> Iterator[_Entry]:
    """Yields the entries of the first directory whose values lie within the file; no decoder can read the others."""
    try:
        (offset,) = struct.unpack_from(layout.offset, data, layout.pointer)
        (count,) = struct.unpack_from(layout.count, data, offset)
    except struct.error:
        raise broken("TIFF", "it ends before its directory") from None
    if count > _MOST_ENTRIES:
        raise broken("TIFF", f"its directory has more than {_MOST_ENTRIES:,} entries")
    offset += struct.calcsize(layout.count)
    step = struct.calcsize(layout.entry)
    for start in range(offset, min(offset + count * step, len(data) - step + 1), step):
        entry = _Entry(*struct.unpack_from(layout.entry, data, start))
        if entry.kind in _SIZES and _is_complete(entry, data, layout):
            yield entry


def _is_complete(entry: _Entry, data: bytes, layout: _Layout) -> bool:
    """Whether an entry's values lie within the file."""
    if entry.size <= len(entry.value):
        return True
    (offset,) = struct.unpack(layout.offset, entry.value)
    return bool(offset + entry.size <= len(data))


def _numbers(data: bytes, layout: _Layout) -> dict[int, int | None]:
    """The first number of each tag; where a tag is repeated, that of its first entry."""
    found: dict[int, int | None] = {}
    for entry in _entries(data, layout):
        found.setdefault(entry.tag, _number(entry, data, layout))
    return found


def _number(entry: _Entry, data: bytes, layout: _Layout) -> int | None:
    """The first number of an entry; None where its values are no whole numbers."""
    code = _WHOLE.get(entry.kind)
    if code is None or not entry.length:
        return None
    offset = 0
    source = entry.value
    if entry.size > len(entry.value):
        (offset,) = struct.unpack(layout.offset, entry.value)
        source = data
    return int(struct.unpack_from(f"{layout.order}{code}", source, offset)[0])
