"""Decoded pixels of any kind as greys or colours of eight bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xai_sidecar.errors import PictureError


def is_dark(opened: Image.Image) -> bool:
    """Whether all values of 16 bits fit in 12."""
    return max(int(band.getextrema()[1]) for band in opened.split()[:3]) <= 15  # type: ignore[arg-type]


def deep_colours(upper: Image.Image, lower: Image.Image, white_level: int | None) -> Image.Image:
    """Colours of 16 bits, scaled as greys are; transparency has its upper bits."""
    values = np.asarray(upper).astype(np.uint32) * 256 + np.asarray(lower)
    scaled = np.array(upper)
    scaled[..., :3] = _scaled(values[..., :3], white_level)
    return Image.fromarray(scaled)


def eight_bits(opened: Image.Image, white_level: int | None) -> Image.Image:
    """A decoded picture as one of mode "L" or "RGB", transparency laid on white; see `decode`.

    Args:
        opened: Of any mode.
        white_level: As of `Stripped`.

    Raises:
        PictureError: Its values cannot be shown.
    """
    if opened.mode.startswith("I;16"):
        return _from_16_bits(opened, white_level)
    if opened.mode in ("I", "F"):
        return _from_32_bits(opened, white_level)
    if opened.has_transparency_data:
        return _on_white(opened)
    if opened.mode in ("L", "RGB"):
        return opened
    return opened.convert("L" if opened.mode == "1" else "RGB")


def _on_white(opened: Image.Image) -> Image.Image:
    grey = opened.mode in ("1", "L", "LA", "La")
    layer = opened.convert("LA" if grey else "RGBA")
    ground = Image.new("L" if grey else "RGB", layer.size, "white")
    ground.paste(layer.convert(ground.mode), mask=layer.getchannel("A"))
    return ground


def _from_16_bits(opened: Image.Image, white_level: int | None) -> Image.Image:
    values = np.asarray(opened)
    grey = _scaled(values, white_level)
    transparent = opened.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _from_32_bits(opened: Image.Image, white_level: int | None) -> Image.Image:
    values = np.asarray(opened)
    low, high = float(values.min()), float(values.max())
    if opened.mode == "F":
        if not (low >= 0.0 and high <= 1.0):
            raise PictureError(
                f"The picture's floats go from {low:g} to {high:g}, where 0 to 1 can be shown. "
                "Scale them or save 8 bits."
            )
        return Image.fromarray(np.rint(values * np.float32(255)).astype(np.uint8))
    if low < 0 or high > 65_535:
        raise PictureError(
            f"The picture's 32-bit values go from {low:.0f} to {high:.0f}, where 0 to 65535 can be shown. "
            "Scale them or save 8 bits."
        )
    return Image.fromarray(_scaled(values, white_level))


def _scaled(values: NDArray[Any], white_level: int | None) -> NDArray[np.uint8]:
    """Values with `white_level` as 255, rounded; where unknown, the fewest of 8, 12 and 16 bits that hold them."""
    highest = int(values.max())
    declared = white_level if white_level is not None and highest <= white_level else None
    white = declared or next(white for white in (255, 4095, 65_535) if highest <= white)
    return ((np.minimum(values, white).astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
