"""Saliency maps as bytes, in the encodings that every protocol offers."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from xai_sidecar.engine.work import FloatArray
from xai_sidecar.errors import PreconditionError
from xai_sidecar.serving.requests import MapEncoding

_HALF_RANGE = (2.0**-14, 65504.0)
"""Largest magnitudes of maps that half precision carries to its full relative precision."""


def float_bytes(saliency: FloatArray, encoding: MapEncoding) -> bytes:
    """A map's values row by row, little-endian.

    Args:
        saliency: (H, W) float32.
        encoding: FLOAT32 or FLOAT16.

    Raises:
        PreconditionError: Half precision cannot carry the map; `field` is ``encoding``.
    """
    if encoding is MapEncoding.FLOAT32:
        return np.ascontiguousarray(saliency, "<f4").tobytes()
    largest = float(np.abs(saliency).max())
    low, high = _HALF_RANGE
    if largest and not low <= largest <= high:
        raise PreconditionError(
            f"The map's largest value is {largest:.3g}, which half precision cannot carry well. "
            "Ask for the encoding float32, or for the normalization max.",
            field="encoding",
        )
    return np.ascontiguousarray(saliency, "<f2").tobytes()


def png(saliency: FloatArray) -> tuple[bytes, float, float]:
    """A map (H, W) as a PNG file of 8-bit grey, and the values that its black and its white stand for."""
    minimum, maximum = float(saliency.min()), float(saliency.max())
    scale = 255 / (maximum - minimum) if maximum > minimum else 0.0
    grey = np.rint((saliency.astype(np.float64) - minimum) * scale).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG", compress_level=3)
    return file.getvalue(), minimum, maximum
