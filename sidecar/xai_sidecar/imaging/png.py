"""PNG files: reads the size and the orientation, removes chunks that no pixel depends on."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from xai_sidecar.imaging.exif import orientation
from xai_sidecar.imaging.files import MOST_CHUNKS, Header, Stripped, broken

_SIGNATURE_BYTES = 8
_ANCILLARY_BIT = 0x20  # in the first letter of a chunk's type
_XMP = b"XML:com.adobe.xmp\0"
_DECODING_COST = 2.0


def png_header(data: bytes) -> Header:
    """Reads the size from the IHDR chunk.

    Raises:
        PictureError: The file does not begin with that chunk.
    """
    if len(data) < 26 or data[12:16] != b"IHDR":
        raise broken("PNG", "it does not begin with an IHDR chunk")
    width, height = struct.unpack_from(">II", data, 16)
    return Header("PNG", width, height, _DECODING_COST)


def strip_png(data: bytes) -> Stripped:
    """Keeps the critical chunks and the transparency; removes texts, profiles and animation.

    Raises:
        PictureError: There are too many chunks.
    """
    kept, exif, xmp, significant_bits = [data[:_SIGNATURE_BYTES]], b"", b"", 0
    for kind, start, stop in _chunks(data):
        if not kind[0] & _ANCILLARY_BIT or (kind == b"tRNS" and _has_valid_crc(data, start, stop)):
            kept.append(data[start:stop])
        elif kind == b"eXIf":
            exif = data[start + 8 : stop - 4]
        elif kind == b"sBIT" and stop - start > 12:
            significant_bits = min(data[start + 8 : stop - 4])
        elif kind == b"iTXt" and data.startswith(_XMP, start + 8):
            xmp = data[start + 8 : stop - 4]
        if kind == b"IEND":
            break
    white_level = 65_535 if significant_bits == 16 else None
    return Stripped(b"".join(kept), orientation(exif, xmp), white_level)


def has_deep_colours(data: bytes) -> bool:
    """Whether there are colours of 16 bits (colour type 2 or 6), of which Pillow keeps the upper eight."""
    return data[24:26] in (b"\x10\x02", b"\x10\x06")


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields type, first byte and end of each chunk; the last one may be truncated."""
    offset = _SIGNATURE_BYTES
    for _ in range(MOST_CHUNKS):
        if offset + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, offset)
        yield kind, offset, min(offset + 12 + length, len(data))
        offset += 12 + length
    raise broken("PNG", f"it has more than {MOST_CHUNKS:,} chunks")


def _has_valid_crc(data: bytes, start: int, stop: int) -> bool:
    crc: int = struct.unpack_from(">I", data, stop - 4)[0]
    return crc == zlib.crc32(data[start + 4 : stop - 4])
