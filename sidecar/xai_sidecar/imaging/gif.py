"""GIF files: reads the size, removes extension blocks that the first frame does not depend on."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from xai_sidecar.imaging.files import Header, Stripped, broken

_MOST_BLOCKS = 1 << 14
"""Most blocks before the first frame, at 4 MB in all."""

_EXTENSION, _IMAGE, _CONTROL = 0x21, 0x2C, 0xF9
_DECODING_COST = 2.0


@dataclass(frozen=True)
class _FirstFrame:
    """Where the first frame is.

    Attributes:
        header_bytes: Size of the header, the screen descriptor and the global colour table.
        control: The last graphic control extension before it, which has the transparency.
        offset: First byte of the image descriptor.
    """

    header_bytes: int
    control: bytes
    offset: int


def gif_header(data: bytes) -> Header:
    """Reads the size: that of the screen, or of the first frame where that is larger.

    Raises:
        PictureError: There is no frame, or too many blocks before it.
    """
    frame = _first_frame(data)
    width, height = struct.unpack_from("<HH", data, 6)
    left, top, across, down = struct.unpack_from("<HHHH", data, frame.offset + 1)
    return Header("GIF", max(width, left + across), max(height, top + down), _DECODING_COST)


def strip_gif(data: bytes) -> Stripped:
    """Removes comments and other extensions before the first frame.

    Raises:
        PictureError: There is no frame, or too many blocks before it.
    """
    frame = _first_frame(data)
    return Stripped(data[: frame.header_bytes] + frame.control + data[frame.offset :])


def _first_frame(data: bytes) -> _FirstFrame:
    """Finds the first frame; raises a PictureError as `strip_gif` does."""
    header_bytes = offset = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    control = b""
    in_extension = False
    for _ in range(_MOST_BLOCKS):
        if offset + 10 > len(data):
            raise broken("GIF", "it has no frame")
        if in_extension:
            in_extension = data[offset] != 0
            offset += 1 + data[offset]
        elif data[offset] == _IMAGE:
            return _FirstFrame(header_bytes, control, offset)
        elif data[offset] == _EXTENSION:
            if data[offset + 1] == _CONTROL and data[offset + 2] == 4:
                control = data[offset : offset + 7] + b"\0"
            offset += 2
            in_extension = True
        else:
            offset += 1  # what is left of a broken extension
    raise broken("GIF", "there is too much before its first frame")
