"""BMP files: size, and what run lengths may cost."""

from __future__ import annotations

import struct

from xai_sidecar.errors import PictureTooLargeError
from xai_sidecar.imaging.files import Header, Stripped, broken

_RUN_LENGTHS = (1, 2)
_MOST_RUN_LENGTH_PIXELS = 1 << 20
_EFFORT, _RUN_LENGTH_EFFORT = 0.5, 20.0


def bmp_header(data: bytes) -> Header:
    """The size.

    Raises:
        PictureError: The file does not begin with it.
    """
    if len(data) < 34:
        raise broken("BMP", "it ends within its header")
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return Header("BMP", width, height, _EFFORT)
    width, height = struct.unpack_from("<ii", data, 18)
    (compression,) = struct.unpack_from("<I", data, 30)
    effort = _RUN_LENGTH_EFFORT if compression in _RUN_LENGTHS else _EFFORT
    return Header("BMP", abs(width), abs(height), effort)


def strip_bmp(data: bytes) -> Stripped:
    """The file as it is.

    Raises:
        PictureTooLargeError: It has run lengths, which are decoded slowly, of too many pixels.
    """
    header = bmp_header(data)
    runs = header.effort == _RUN_LENGTH_EFFORT
    # No encoder writes more than two bytes a pixel, but runs of none would keep the decoder going.
    if runs and (header.pixels > _MOST_RUN_LENGTH_PIXELS or len(data) > 2 * header.pixels + 65_536):
        raise PictureTooLargeError(
            f"The BMP picture, {header.width} x {header.height} in {len(data):,} bytes, has run lengths, which are "
            f"decoded of at most {_MOST_RUN_LENGTH_PIXELS:,} pixels and two bytes for each. Save it without "
            "compression, or as PNG."
        )
    return Stripped(data)
