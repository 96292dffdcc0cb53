"""WebP files: size, orientation, the chunks that the first frame needs."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from xai_sidecar.imaging.exif import orientation
from xai_sidecar.imaging.files import MOST_PARTS, Header, Stripped, broken

_FIRST_CHUNK = 12
_PIXELS = {b"ANIM", b"ALPH", b"VP8 ", b"VP8L"}
_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # ICC profile, EXIF, XMP
_EFFORT = 2.5


def webp_header(data: bytes) -> Header:
    """The size.

    Raises:
        PictureError: The file does not begin with it.
    """
    kind = data[_FIRST_CHUNK : _FIRST_CHUNK + 4]
    if len(data) >= 30 and kind == b"VP8X":
        width, height = (int.from_bytes(data[place : place + 3], "little") + 1 for place in (24, 27))
    elif len(data) >= 30 and kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    elif len(data) >= 25 and kind == b"VP8L":
        (sides,) = struct.unpack_from("<I", data, 21)
        width, height = (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1
    else:
        raise broken("WebP", "it does not begin with a picture")
    return Header("WebP", width, height, _EFFORT)


def strip_webp(data: bytes) -> Stripped:
    """Without profiles, metadata and further frames.

    Raises:
        PictureError: There are too many chunks.
    """
    kept: list[bytes] = []
    exif, xmp, frames = b"", b"", 0
    for kind, start, stop in _chunks(data):
        if kind == b"VP8X":
            flags = data[start + 8 : start + 9]
            kept += [data[start : start + 8], bytes(flag & ~_METADATA_FLAGS for flag in flags), data[start + 9 : stop]]
        elif kind in _PIXELS or (kind == b"ANMF" and not frames):
            frames += kind == b"ANMF"
            kept.append(data[start:stop])
        elif kind == b"EXIF":
            exif = data[start + 8 : stop]
        elif kind == b"XMP ":
            xmp = data[start + 8 : stop]
    body = b"".join(kept)
    return Stripped(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body, orientation(exif, xmp))


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and stop of each chunk, padding included; the last may be cut short."""
    place, end = _FIRST_CHUNK, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    for _ in range(MOST_PARTS):
        if place + 8 > end:
            return
        kind, length = struct.unpack_from("<4sI", data, place)
        yield kind, place, min(place + 8 + length + length % 2, len(data))
        place += 8 + length + length % 2
    raise broken("WebP", f"it has more than {MOST_PARTS:,} chunks")
