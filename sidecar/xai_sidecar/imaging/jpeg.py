"""JPEG files: size, orientation, scans."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from xai_sidecar.errors import PictureError
from xai_sidecar.imaging.exif import orientation
from xai_sidecar.imaging.files import Header, Stripped, broken

_MOST_SEGMENTS = 4096
"""Segments before the pixels, and again among them; large profiles take some hundred."""

_MOST_STRAY_BYTES = 1 << 16
"""Bytes between segments, which decoders skip."""

_MOST_SCANS = 100
"""As in libtiff. A progressive picture has about ten, and each of them can cost as much as decoding it whole."""

_START_OF_SCAN, _END, _COMMENT, _JFIF, _EXIF, _ADOBE = 0xDA, 0xD9, 0xFE, 0xE0, 0xE1, 0xEE
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a segment
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_PROGRESSIVE_EFFORT = 10.0  # and up to fifty with as many scans as are taken


class _Segment(NamedTuple):
    marker: int
    start: int
    stop: int


def jpeg_header(data: bytes) -> Header:
    """The size, and whether there are several scans.

    Raises:
        PictureError: There is no frame before the pixels.
    """
    for segment in _segments(data):
        if segment.marker in _FRAMES and segment.stop - segment.start >= 10:
            height, width = struct.unpack_from(">HH", data, segment.start + 5)
            return Header("JPEG", width, height, _PROGRESSIVE_EFFORT if segment.marker in _PROGRESSIVE else 1.0)
    raise broken("JPEG", "there is no frame header")


def strip_jpeg(data: bytes) -> Stripped:
    """Without comments, thumbnails and profiles.

    Raises:
        PictureError: There are no pixels, or too many scans or segments.
    """
    kept, exif, xmp, frame = [data[:2]], b"", b"", None
    for segment in _segments(data):
        marker, start, stop = segment
        if marker in _FRAMES:
            frame = segment
        if marker == _START_OF_SCAN:
            if frame is not None and _has_several_scans(data, frame, segment):
                _check_scans(data, stop)
            kept.append(data[start:])
            return Stripped(b"".join(kept), orientation(exif, xmp))
        if marker == _EXIF and data.startswith(b"Exif\0\0", start + 4):
            exif = exif or data[start + 4 : stop]
        elif marker == _EXIF and data.startswith(_XMP, start + 4):
            xmp = xmp or data[start + 4 : stop]
        elif _is_needed(marker, data, start):
            kept.append(data[start:stop])
    raise broken("JPEG", "it ends before its pixels")


def _is_needed(marker: int, data: bytes, start: int) -> bool:
    """Whether the pixels depend on a segment; JFIF's and Adobe's say what the colours are."""
    if marker == _JFIF:
        return data.startswith(b"JFIF\0", start + 4)
    return marker == _ADOBE or not (0xE0 <= marker <= 0xEF or marker == _COMMENT)


def _segments(data: bytes) -> Iterator[_Segment]:
    """The segments up to the first scan's header, that included."""
    place, stray = 2, _MOST_STRAY_BYTES
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(data, place, place + stray)
        if found is None or found[1][0] == _END:
            return
        marker, start = found[1][0], found.end() - 2
        stray -= start - place
        if marker in _ALONE:
            place = found.end()
            continue
        if start + 4 > len(data):
            return
        place = start + 2 + max(2, data[start + 2] << 8 | data[start + 3])
        yield _Segment(marker, start, min(place, len(data)))
        if marker == _START_OF_SCAN:
            return
    raise broken("JPEG", f"there are more than {_MOST_SEGMENTS:,} segments before its pixels")


def _has_several_scans(data: bytes, frame: _Segment, scan: _Segment) -> bool:
    """Whether a decoder will look for more scans: it does unless the first has all components of a plain frame."""
    if frame.marker in _PROGRESSIVE:
        return True
    components = data[frame.start + 9 : frame.start + 10]
    return data[scan.start + 4 : scan.start + 5] != components


def _check_scans(data: bytes, place: int) -> None:
    scans = 1
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(data, place)
        if found is None or found[1][0] == _END:
            return
        scans += found[1][0] == _START_OF_SCAN
        if scans > _MOST_SCANS:
            raise PictureError(
                f"The JPEG picture has more than {_MOST_SCANS} scans, each of which takes as long as a picture. "
                "Save it again as a baseline JPEG, or as PNG."
            )
        if found[1][0] in _ALONE or found.end() + 2 > len(data):
            place = found.end()
        else:
            place = found.end() + max(2, *struct.unpack_from(">H", data, found.end()))
    raise broken("JPEG", f"there are more than {_MOST_SEGMENTS:,} segments among its pixels")
