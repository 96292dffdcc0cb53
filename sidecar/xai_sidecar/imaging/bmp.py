"""BMP files: reads the size, bounds the cost of run-length encoding."""

from __future__ import annotations

import struct

from xai_sidecar.errors import PictureTooLargeError
from xai_sidecar.imaging.files import Header, Stripped, broken

_RUN_LENGTHS = (1, 2)
_MOST_RUN_LENGTH_PIXELS = 1 << 20
_DECODING_COST, _RUN_LENGTH_COST = 0.5, 20.0


def bmp_header(data: bytes) -> Header:
    """Reads the size, and whether the pixels are run-length encoded.

    Raises:
        PictureError: The file ends within its header.
    """
    if len(data) < 34:
        raise broken("BMP", "it ends within its header")
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return Header("BMP", width, height, _DECODING_COST)
    width, height = struct.unpack_from("<ii", data, 18)
    (compression,) = struct.unpack_from("<I", data, 30)
    decoding_cost = _RUN_LENGTH_COST if compression in _RUN_LENGTHS else _DECODING_COST
    return Header("BMP", abs(width), abs(height), decoding_cost)


def strip_bmp(data: bytes) -> Stripped:
    """Leaves the file as it is; a BMP has little but pixels.

    Raises:
        PictureTooLargeError: Too many pixels are run-length encoded, which are slow to decode.
    """
    header = bmp_header(data)
    runs = header.decoding_cost == _RUN_LENGTH_COST
    # No encoder writes more than two bytes a pixel; runs of length zero would keep the decoder busy.
    if runs and (header.pixels > _MOST_RUN_LENGTH_PIXELS or len(data) > 2 * header.pixels + 65_536):
        raise PictureTooLargeError(
            f"The BMP picture, {header.width} x {header.height} in {len(data):,} bytes, has run lengths, which are "
            f"decoded of at most {_MOST_RUN_LENGTH_PIXELS:,} pixels and two bytes for each. Save it without "
            "compression, or as PNG."
        )
    return Stripped(data)
