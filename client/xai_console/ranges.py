"""What the colours of maps mean, by the way that the viewer chose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from xai_client.colours import PLAIN, SIGNED, ColourScale, Extent, FloatArray, scale_of

RangeMode: TypeAlias = Literal["auto", "full", "symmetric", "positive", "own"]
Sharing: TypeAlias = Literal["map", "explainer", "all"]

RANGE_MODES: Final[tuple[RangeMode, ...]] = ("auto", "full", "symmetric", "positive", "own")
SHARINGS: Final[tuple[Sharing, ...]] = ("explainer", "map", "all")


def scale_by(
    mode: RangeMode,
    values: FloatArray | Extent,
    beside: Sequence[FloatArray | Extent] = (),
    colormap: str | None = None,
    own: tuple[float, float] = (0.0, 1.0),
) -> ColourScale:
    """The scale of a map.

    Args:
        mode: "auto": as the SDK draws maps, without outliers, signed where the map is; "full": from the lowest value to
            the highest; "symmetric": as far below zero as above; "positive": from zero to the highest; "own": `own`.
        values: The map, or what of it its scale depends on.
        beside: Those that share its scale.
        colormap: One of `COLORMAPS`; None to choose by the scale.
        own: The viewer's own lowest and highest value; symmetric ones make a signed scale.
    """
    if mode == "auto":
        return scale_of(values, beside, colormap)
    together = [each if isinstance(each, Extent) else Extent(each) for each in (values, *beside)]
    low, high = min(each.lowest for each in together), max(each.highest for each in together)
    if mode == "own":
        low, high = min(own), max(own)
    if mode == "symmetric" or (mode == "own" and low == -high):
        return ColourScale(0.0, max(abs(low), abs(high)), True, colormap or SIGNED)
    if mode == "positive":
        low, high = 0.0, max(0.0, high)
    return ColourScale(low, high, False, PLAIN if colormap in (None, SIGNED) else colormap)
