"""WebP files: reads the size and the orientation, removes chunks that the first frame does not depend on."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from xai_sidecar.imaging.exif import orientation
from xai_sidecar.imaging.files import MOST_CHUNKS, Header, Stripped, broken

_RIFF_HEADER_BYTES = 12
_PIXEL_CHUNKS = {b"ANIM", b"ALPH", b"VP8 ", b"VP8L"}
_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # ICC profile, EXIF, XMP
_DECODING_COST = 2.5


def webp_header(data: bytes) -> Header:
    """Reads the size from the first chunk.

    Raises:
        PictureError: The first chunk has none.
    """
    kind = data[_RIFF_HEADER_BYTES : _RIFF_HEADER_BYTES + 4]
    if len(data) >= 30 and kind == b"VP8X":
        width, height = (int.from_bytes(data[offset : offset + 3], "little") + 1 for offset in (24, 27))
    elif len(data) >= 30 and kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    elif len(data) >= 25 and kind == b"VP8L":
        (sides,) = struct.unpack_from("<I", data, 21)
        width, height = (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1
    else:
        raise broken("WebP", "it does not begin with a picture")
    return Header("WebP", width, height, _DECODING_COST)


def strip_webp(data: bytes) -> Stripped:
    """Removes profiles, metadata and all frames but the first.

    Raises:
        PictureError: There are too many chunks.
    """
    kept: list[bytes] = []
    exif, xmp, frames = b"", b"", 0
    for kind, start, stop in _chunks(data):
        if kind == b"VP8X":
            flags = data[start + 8 : start + 9]
            kept += [data[start : start + 8], bytes(flag & ~_METADATA_FLAGS for flag in flags), data[start + 9 : stop]]
        elif kind in _PIXEL_CHUNKS or (kind == b"ANMF" and not frames):
            frames += kind == b"ANMF"
            kept.append(data[start:stop])
        elif kind == b"EXIF":
            exif = data[start + 8 : stop]
        elif kind == b"XMP ":
            xmp = data[start + 8 : stop]
    body = b"".join(kept)
    return Stripped(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body, orientation(exif, xmp))


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields type, first byte and end of each chunk, padding included; the last one may be truncated."""
    offset, end = _RIFF_HEADER_BYTES, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    for _ in range(MOST_CHUNKS):
        if offset + 8 > end:
            return
        kind, length = struct.unpack_from("<4sI", data, offset)
        yield kind, offset, min(offset + 8 + length + length % 2, len(data))
        offset += 8 + length + length % 2
    raise broken("WebP", f"it has more than {MOST_CHUNKS:,} chunks")
