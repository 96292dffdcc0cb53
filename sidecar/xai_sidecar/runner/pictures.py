"""Model inputs as pictures, where it is not known how pictures became them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from xai_sidecar.engine.work import FloatArray


def stretched(image: FloatArray) -> Image.Image:
    """A model input (C, H, W) as an RGB picture: its lowest value is black, its highest white.

    Of other than three channels only the first is shown.
    """
    channels = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    low, high = float(channels.min()), float(channels.max())
    pixels = np.rint((channels - low) / (high - low or 1.0) * 255)
    return Image.fromarray(pixels.astype(np.uint8).transpose(1, 2, 0))
