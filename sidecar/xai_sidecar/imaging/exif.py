"""Reads the orientation from a picture's EXIF or XMP metadata."""

from __future__ import annotations

import re
import struct

_ORIENTATION_TAG = 0x0112
_SHORT, _LONG = 3, 4

_MOST_ENTRIES = 1024
"""Most entries that are read of a directory; cameras write some thirty."""

_XMP = re.compile(rb"""tiff:Orientation(?:=["']|>)([1-8])""")


def orientation(exif: bytes, xmp: bytes = b"") -> int:
    """The orientation by EXIF, or where that has none, by XMP.

    Args:
        exif: A TIFF header and a directory, with or without "Exif" and two zeros before them.
        xmp: An XMP packet.

    Returns:
        1 to 8, as EXIF numbers it. 1, upright, where neither has a valid one: corrupt metadata are no reason to refuse
        the pixels.
    """
    found = _from_exif(exif.removeprefix(b"Exif\0\0"))
    if found is None:
        match = _XMP.search(xmp)
        found = int(match[1]) if match else 1
    return found if 1 <= found <= 8 else 1


def _from_exif(exif: bytes) -> int | None:
    """The value of the orientation tag; None where it is missing or cut off."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return None
    try:
        (offset,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, offset)
        for number in range(min(count, _MOST_ENTRIES)):
            entry = offset + 2 + 12 * number
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == _ORIENTATION_TAG and kind in (_SHORT, _LONG):
                (value,) = struct.unpack_from(f"{order}{'H' if kind == _SHORT else 'I'}", exif, entry + 8)
                return int(value)
    except struct.error:
        pass
    return None
