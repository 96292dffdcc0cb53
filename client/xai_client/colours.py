"""Colour scales for saliency maps, and how the values of a map are laid on them.

The scale of maps that are not signed, "heat", and that of signed ones, "diverging", are perceptually even: they go in
equal steps through OKLab (Björn Ottosson: A perceptual color space for image processing, 2020), and more is brighter,
or, on both sides of zero alike, stronger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]

LEVELS: Final = 256
MIDDLE: Final = 127
"""Index of zero in the table of a signed map; 0 stands for minus the highest value, 254 for the highest."""

# Negative values this small beside the largest are the noise of an estimate around zero.
_NOISE: Final = 0.01
_TOP_PERCENTILE: Final = 99.5
_FINE: Final = 2000

# (lightness, chroma, hue in degrees) in OKLab's polar form; equal steps between them are made by length.
_HEAT: Final = (
    (0.30, 0.10, 290),
    (0.42, 0.16, 320),
    (0.55, 0.19, 360),
    (0.66, 0.18, 390),
    (0.78, 0.155, 420),
    (0.90, 0.15, 455),
)
_AGAINST: Final = ((0.50, 0.17, 257), (0.72, 0.11, 250), (0.96, 0.0, 250))
_FOR: Final = ((0.96, 0.0, 30), (0.72, 0.13, 32), (0.50, 0.19, 28))

# (R, G, B) of 0 to 255, at equal distances from the lowest value to the highest.
_TURBO: Final = (
    (48, 18, 59),
    (70, 107, 227),
    (40, 187, 235),
    (49, 242, 153),
    (162, 252, 60),
    (237, 208, 58),
    (251, 128, 34),
    (210, 49, 5),
    (122, 4, 3),
)
_INFERNO: Final = (
    (0, 0, 4),
    (31, 12, 72),
    (85, 15, 109),
    (136, 34, 106),
    (186, 54, 85),
    (227, 89, 51),
    (249, 140, 10),
    (249, 201, 50),
    (252, 255, 164),
)

SIGNED: Final = "diverging"
PLAIN: Final = "heat"
COLORMAPS: Final = (PLAIN, SIGNED, "inferno", "turbo")


@dataclass(frozen=True)
class ColourScale:
    """What values are which colours.

    Attributes:
        low: The value of no colour; 0 where the scale is signed.
        high: The value of the full colour, above `low`; or `low` itself if there is nothing to show.
        signed: Whether -`high` has the full colour of the other side.
        colormap: One of `COLORMAPS`.
    """

    low: float
    high: float
    signed: bool
    colormap: str

    def levels(self, values: FloatArray) -> FloatArray:
        """Values as parts of the scale: in [0, 1] or, where it is signed, [-1, 1]."""
        span = self.high - self.low
        if span <= 0.0:
            return np.zeros(values.shape, np.float32)
        parts = (values.astype(np.float64) - self.low) / span
        return np.clip(parts, -1.0 if self.signed else 0.0, 1.0).astype(np.float32)

    def indices(self, levels: FloatArray) -> NDArray[np.uint8]:
        """Parts of the scale as indices into `colours` and `opacity`."""
        return to_bytes(MIDDLE * (1 + levels)) if self.signed else to_bytes(levels * (LEVELS - 1))

    def colours(self) -> NDArray[np.uint8]:
        """The colour of each level, (256, 3)."""
        return _table(self.colormap, self.signed)

    def opacity(self, alpha: float) -> NDArray[np.uint8]:
        """The opacity of each level, (256,), up to `alpha` of 255."""
        return to_bytes(255 * alpha * self.strength())

    def shown(self, count: int) -> NDArray[np.uint8]:
        """The colours from the lowest value that is shown to the highest, in steps, (count, 3)."""
        levels = np.linspace(0, 2 * MIDDLE if self.signed else LEVELS - 1, count).round().astype(int)
        shown: NDArray[np.uint8] = self.colours()[levels]
        return shown

    def marks(self) -> tuple[str, str, str]:
        """What the lowest value that is shown stands for, the one in the middle, and the highest, in words."""
        if self.signed:
            return f"{-self.high:.2g} against", "0", f"for {self.high:.2g}"
        return f"{self.low:.2g}", f"{(self.low + self.high) / 2:.2g}", f"{self.high:.2g}"

    def strength(self) -> NDArray[np.float64]:
        """How opaque each level is, (256,), 0 to 1. It grows fast at first, so that weak areas show."""
        index = np.arange(LEVELS)
        strength = np.abs(index - MIDDLE) / MIDDLE if self.signed else index / (LEVELS - 1)
        curve: NDArray[np.float64] = np.minimum(1.0, strength) ** 0.75
        return curve


class Extent:
    """What of a map its scale depends on. Each part is worked out when it is first wanted, and then kept.

    Args:
        saliency: The map, of any shape; finite.
    """

    def __init__(self, saliency: FloatArray) -> None:
        self._values = saliency

    @cached_property
    def lowest(self) -> float:
        """The lowest value."""
        return float(self._values.min())

    @cached_property
    def highest(self) -> float:
        """The highest value."""
        return float(self._values.max())

    @cached_property
    def top(self) -> float:
        """The value that 99.5 % of the pixels stay below, or the highest where that is the lowest."""
        return _top(self._values.astype(np.float64))

    @cached_property
    def top_size(self) -> float:
        """The same of the values without their signs."""
        return _top(np.abs(self._values.astype(np.float64)))


def scale_of(
    saliency: FloatArray | Extent, beside: Sequence[FloatArray | Extent] = (), colormap: str | None = None
) -> ColourScale:
    """The scale of a map that may be compared with others: as much more is as much stronger in each of them.

    Each has no colour at its own lowest value, or zero where they are signed: that of RISE, say, is the mean
    probability of its class. The full colour is the value that 99.5 % of a map's pixels stay below, of the map for
    which that is farthest: a few outliers, as gradients have, must not make all the rest invisible. Maps with negative
    values of more than 1 % of the highest are signed, and if one is, all are.

    Args:
        saliency: The map, of any shape; finite. Its `Extent` where it takes part in many scales.
        beside: Those it may be compared with.
        colormap: One of `COLORMAPS`; None to choose by whether the maps are signed. Of a signed map, all but
            "diverging" show the positive part only.
    """
    extents = [each if isinstance(each, Extent) else Extent(each) for each in (saliency, *beside)]
    lowest = min(each.lowest for each in extents)
    has_negative = lowest < 0 and -lowest > _NOISE * max(0.0, *(each.top for each in extents))
    if colormap == SIGNED or (colormap is None and has_negative):
        return ColourScale(0.0, max(each.top_size for each in extents), True, SIGNED)
    lows = [0.0 if has_negative else each.lowest for each in extents]
    span = max(each.top - low for each, low in zip(extents, lows, strict=True))
    return ColourScale(lows[0], lows[0] + max(0.0, span), False, colormap or PLAIN)


def to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers from 0 to 255, rounded."""
    rounded: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded


def _top(values: NDArray[np.float64]) -> float:
    top = float(np.percentile(values, _TOP_PERCENTILE))
    return top if top > values.min() else float(values.max())


@cache
def _table(colormap: str, signed: bool) -> NDArray[np.uint8]:
    positions = np.arange(LEVELS) / (2 * MIDDLE if signed else LEVELS - 1)
    if colormap == PLAIN:
        return to_bytes(255 * _even(_HEAT, positions))
    if colormap == SIGNED:
        sides = _even(_AGAINST, 2 * positions), _even(_FOR, 2 * positions - 1)
        return to_bytes(255 * np.where(positions[:, np.newaxis] < 0.5, *sides))
    anchors = np.array({"turbo": _TURBO, "inferno": _INFERNO}[colormap], np.float64)
    places = np.linspace(0, 1, len(anchors))
    return to_bytes(np.stack([np.interp(positions, places, anchors[:, channel]) for channel in range(3)], axis=1))


def _even(stops: Sequence[tuple[float, float, float]], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours in [0, 1] at some positions of [0, 1] on a path, by its length in OKLab."""
    path = np.array(stops, np.float64)
    fine = np.linspace(0, len(stops) - 1, _FINE)

    def along(places: NDArray[np.float64]) -> NDArray[np.float64]:
        lightness, chroma, hue = (np.interp(places, np.arange(len(stops)), path[:, part]) for part in range(3))
        return np.stack([lightness, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))], axis=1)

    length = np.concatenate([[0.0], np.linalg.norm(np.diff(along(fine), axis=0), axis=1).cumsum()])
    return _srgb(along(np.interp(np.clip(positions, 0, 1) * length[-1], length, fine)))


def _srgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """OKLab, (n, 3), as sRGB in [0, 1]; the matrices are those of its definition."""
    to_cones = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(((lab @ to_cones.T) ** 3) @ to_linear.T, 0, 1)
    curved: NDArray[np.float64] = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return curved
