"""PNG files: size, orientation, the chunks that pixels need."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from xai_sidecar.imaging.exif import orientation
from xai_sidecar.imaging.files import MOST_PARTS, Header, Stripped, broken

_SIGNATURE = 8
_ANCILLARY = 0x20
_XMP = b"XML:com.adobe.xmp\0"
_EFFORT = 2.0


def png_header(data: bytes) -> Header:
    """The size.

    Raises:
        PictureError: The file does not begin with it.
    """
    if len(data) < 26 or data[12:16] != b"IHDR":
        raise broken("PNG", "it does not begin with an IHDR chunk")
    width, height = struct.unpack_from(">II", data, 16)
    return Header("PNG", width, height, _EFFORT)


def strip_png(data: bytes) -> Stripped:
    """Without texts, profiles and animation: the critical chunks and the transparency.

    Raises:
        PictureError: There are too many chunks.
    """
    kept, exif, xmp, significant = [data[:_SIGNATURE]], b"", b"", 0
    for kind, start, stop in _chunks(data):
        if not kind[0] & _ANCILLARY or (kind == b"tRNS" and _is_whole(data, start, stop)):
            kept.append(data[start:stop])
        elif kind == b"eXIf":
            exif = data[start + 8 : stop - 4]
        elif kind == b"sBIT" and stop - start > 12:
            significant = min(data[start + 8 : stop - 4])
        elif kind == b"iTXt" and data.startswith(_XMP, start + 8):
            xmp = data[start + 8 : stop - 4]
        if kind == b"IEND":
            break
    brightest = 65_535 if significant == 16 else None
    return Stripped(b"".join(kept), orientation(exif, xmp), brightest)


def has_deep_colours(data: bytes) -> bool:
    """Whether the colours have 16 bits, of which a decoder may keep the upper eight."""
    return data[24:26] in (b"\x10\x02", b"\x10\x06")


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and stop of each chunk; the last may be cut short."""
    place = _SIGNATURE
    for _ in range(MOST_PARTS):
        if place + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, place)
        yield kind, place, min(place + 12 + length, len(data))
        place += 12 + length
    raise broken("PNG", f"it has more than {MOST_PARTS:,} chunks")


def _is_whole(data: bytes, start: int, stop: int) -> bool:
    crc: int = struct.unpack_from(">I", data, stop - 4)[0]
    return crc == zlib.crc32(data[start + 4 : stop - 4])
