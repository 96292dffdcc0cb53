"""JPEG files: reads the size and the orientation, removes segments that no pixel depends on, bounds the scans."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from xai_sidecar.errors import PictureError
from xai_sidecar.imaging.exif import orientation
from xai_sidecar.imaging.files import Header, Stripped, broken

_MOST_SEGMENTS = 4096
"""Most segments before the first scan, and again after it; large colour profiles take some hundred."""

_MOST_STRAY_BYTES = 1 << 16
"""Most bytes between segments, which decoders skip."""

_MOST_SCANS = 100
"""Most scans, as in libtiff. A progressive JPEG has about ten, and each can cost as much as decoding the whole."""

_START_OF_SCAN, _END, _COMMENT, _JFIF, _EXIF, _ADOBE = 0xDA, 0xD9, 0xFE, 0xE0, 0xE1, 0xEE
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}  # without the cosine transform, which is what is computed smaller
_SCALES = (1, 2, 4, 8)
_STANDALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a segment: TEM and the restart markers
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_PROGRESSIVE_COST = 10.0  # and up to fifty with the most scans


class _Segment(NamedTuple):
    """A marker with its segment, `data[start:stop]`."""

    marker: int
    start: int
    stop: int


def jpeg_header(data: bytes) -> Header:
    """Reads the size, and whether the picture is progressive, from the frame header.

    Raises:
        PictureError: There is no frame header before the first scan.
    """
    for segment in _segments(data):
        if segment.marker in _FRAMES and segment.stop - segment.start >= 10:
            height, width = struct.unpack_from(">HH", data, segment.start + 5)
            cost = _PROGRESSIVE_COST if segment.marker in _PROGRESSIVE else 1.0
            return Header("JPEG", width, height, cost, (1,) if segment.marker in _LOSSLESS else _SCALES)
    raise broken("JPEG", "there is no frame header")


def strip_jpeg(data: bytes) -> Stripped:
    """Removes comments, thumbnails and profiles.

    Raises:
        PictureError: There is no scan, or there are too many scans or segments.
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
    """Whether pixels depend on a segment; JFIF's and Adobe's name the colour space."""
    if marker == _JFIF:
        return data.startswith(b"JFIF\0", start + 4)
    return marker == _ADOBE or not (0xE0 <= marker <= 0xEF or marker == _COMMENT)


def _segments(data: bytes) -> Iterator[_Segment]:
    """Yields the segments up to the first scan's header, which is included."""
    offset, stray_bytes = 2, _MOST_STRAY_BYTES
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(data, offset, offset + stray_bytes)
        if found is None or found[1][0] == _END:
            return
        marker, start = found[1][0], found.end() - 2
        stray_bytes -= start - offset
        if marker in _STANDALONE:
            offset = found.end()
            continue
        if start + 4 > len(data):
            return
        offset = start + 2 + max(2, data[start + 2] << 8 | data[start + 3])
        yield _Segment(marker, start, min(offset, len(data)))
        if marker == _START_OF_SCAN:
            return
    raise broken("JPEG", f"there are more than {_MOST_SEGMENTS:,} segments before its pixels")


def _has_several_scans(data: bytes, frame: _Segment, scan: _Segment) -> bool:
    """Whether a decoder expects further scans: it does unless the first has all components of a sequential frame."""
    if frame.marker in _PROGRESSIVE:
        return True
    components = data[frame.start + 9 : frame.start + 10]
    return data[scan.start + 4 : scan.start + 5] != components


def _check_scans(data: bytes, offset: int) -> None:
    """Raises a PictureError where there are too many scans or segments after the first scan's header."""
    scans = 1
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(data, offset)
        if found is None or found[1][0] == _END:
            return
        scans += found[1][0] == _START_OF_SCAN
        if scans > _MOST_SCANS:
            raise PictureError(
                f"The JPEG picture has more than {_MOST_SCANS} scans, each of which takes as long as a picture. "
                "Save it again as a baseline JPEG, or as PNG."
            )
        if found[1][0] in _STANDALONE or found.end() + 2 > len(data):
            offset = found.end()
        else:
            offset = found.end() + max(2, *struct.unpack_from(">H", data, found.end()))
    raise broken("JPEG", f"there are more than {_MOST_SEGMENTS:,} segments among its pixels")
