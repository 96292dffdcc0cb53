"""From a picture's file to a model input, at no larger a scale than the input needs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from xai_sidecar.imaging.decoding import decode_reduced
from xai_sidecar.imaging.files import Header
from xai_sidecar.imaging.geometry import Decoded
from xai_sidecar.imaging.preparing import InputSpec, Prepared, prepare_decoded, reduction

_REDUCED_COST = 0.5
"""Time to decode a JPEG at a half or less of its sides, over that at full scale: what is left is mostly unpacking."""


def decode_for(data: bytes, spec: InputSpec, max_pixels: int, look: Callable[[], None] = lambda: None) -> Decoded:
    """Decodes a picture's file for a model input, at a reduced scale where that takes less time and is enough.

    It is enough where each side keeps at least four times the pixels that are wanted, unless `spec.exact_decoding`.

    Args:
        data: The encoded picture.
        spec: The net's input.
        max_pixels: The most pixels, width times height, that are decoded.
        look: Called between steps; an exception that it raises ends it.

    Raises:
        PictureError: See `decode`.
        PictureTooLargeError: See `decode`.
    """
    return decode_reduced(data, max_pixels, partial(reduction, spec=spec), look)


def read(data: bytes, spec: InputSpec, max_pixels: int) -> Prepared:
    """Reads a picture's file as a model input; see `decode_for`.

    Picture size and region are those of the picture at full scale.
    """
    return prepare_decoded(decode_for(data, spec, max_pixels), spec)


def reading_work(header: Header, spec: InputSpec) -> float:
    """Approximate work of `read`, in pixels of a baseline JPEG.

    Args:
        header: The file's.
        spec: The net's input.
    """
    scale = reduction((header.width, header.height), spec)
    reduced = any(1 < factor <= scale for factor in header.scales)
    return header.work * (_REDUCED_COST if reduced else 1.0)
