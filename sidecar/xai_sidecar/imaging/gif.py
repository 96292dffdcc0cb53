"""GIF files: size, and what the first frame needs."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from xai_sidecar.imaging.files import Header, Stripped, broken

_MOST_BLOCKS = 1 << 14
"""Blocks of comments and the like before the first frame, 4 MB of them."""

_EXTENSION, _IMAGE, _CONTROL = 0x21, 0x2C, 0xF9
_EFFORT = 2.0


@dataclass(frozen=True)
class _FirstFrame:
    head: int  # where what comes before the blocks ends
    control: bytes  # the last graphic control extension, which has the transparency
    place: int  # of the image descriptor


def gif_header(data: bytes) -> Header:
    """The size: of the screen, or of the first frame where that is larger.

    Raises:
        PictureError: There is no frame, or too much before it.
    """
    frame = _first_frame(data)
    width, height = struct.unpack_from("<HH", data, 6)
    left, top, across, down = struct.unpack_from("<HHHH", data, frame.place + 1)
    return Header("GIF", max(width, left + across), max(height, top + down), _EFFORT)


def strip_gif(data: bytes) -> Stripped:
    """Without comments and other extensions.

    Raises:
        PictureError: There is no frame, or too much before it.
    """
    frame = _first_frame(data)
    return Stripped(data[: frame.head] + frame.control + data[frame.place :])


def _first_frame(data: bytes) -> _FirstFrame:
    head = place = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    control = b""
    inside = False  # the blocks of an extension
    for _ in range(_MOST_BLOCKS):
        if place + 10 > len(data):
            raise broken("GIF", "it has no frame")
        if inside:
            inside = data[place] != 0
            place += 1 + data[place]
        elif data[place] == _IMAGE:
            return _FirstFrame(head, control, place)
        elif data[place] == _EXTENSION:
            if data[place + 1] == _CONTROL and data[place + 2] == 4:
                control = data[place : place + 7] + b"\0"
            place += 2
            inside = True
        else:
            place += 1  # what is left of a broken extension
    raise broken("GIF", "there is too much before its first frame")
