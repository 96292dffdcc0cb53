"""A saliency map on the picture that it explains.

The map is enlarged as floats, by pixel centres, over exactly the region that the model saw, fractions of pixels
included; only then is it turned into colours. What the model did not see is dimmed.
"""

from __future__ import annotations

import math
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from xai_client.errors import ArgumentError, PictureSizeError
from xai_client.picture import ImageLike, to_picture

DEFAULT_ALPHA: Final = 0.65

Box: TypeAlias = tuple[float, float, float, float]
FloatArray: TypeAlias = NDArray[np.float32]

_LEVELS: Final = 256
_MIDDLE: Final = 127
# Negative values this small beside the largest are the noise of an estimate around zero.
_NOISE: Final = 0.01
_TOP_PERCENTILE: Final = 99.5
# Of maps that are not to be relied on: what is left of their opacity, and how near lines are to each other.
_PALE: Final = 0.5
_SMALLEST_PITCH: Final = 8
_SMALLEST_FONT: Final = 9.0
_LARGEST_FONT: Final = 48.0

# Colours at equal distances from the lowest value to the highest, (R, G, B) of 0 to 255.
_ANCHORS: Final[dict[str, list[tuple[int, int, int]]]] = {
    "turbo": [
        (48, 18, 59),
        (70, 107, 227),
        (40, 187, 235),
        (49, 242, 153),
        (162, 252, 60),
        (237, 208, 58),
        (251, 128, 34),
        (210, 49, 5),
        (122, 4, 3),
    ],
    "inferno": [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ],
    "diverging": [
        (5, 48, 140),
        (33, 102, 214),
        (146, 190, 240),
        (247, 247, 247),
        (244, 165, 130),
        (214, 40, 40),
        (110, 0, 20),
    ],
}
COLORMAPS: Final = tuple(_ANCHORS)


def draw(
    image: ImageLike,
    saliency: FloatArray,
    region: Box | None,
    picture_size: tuple[int, int] | None,
    alpha: float = DEFAULT_ALPHA,
    colormap: str | None = None,
    note: str = "",
) -> Image.Image:
    """Lays `saliency` on `image`; see `Explanation.overlay`.

    Args:
        image: The picture.
        saliency: The map, float32 (H, W), finite.
        region: Left, top, right and bottom of what the map covers, in pixels of the upright picture; None for all.
        picture_size: Width and height that the upright picture must have; None for any.
        alpha: Opacity at the most salient pixel, 0 to 1.
        colormap: One of `COLORMAPS`, or None to choose by the map.
        note: Why the map is not to be relied on, in a word or two; it is then paler, hatched, and says so.

    Returns:
        RGB, upright, of the size of the picture.

    Raises:
        ArgumentError: An argument is wrong; ImageError and PictureSizeError are kinds of it.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ArgumentError(f"alpha must be from 0 to 1, not {alpha!r}", field="alpha")
    if colormap is not None and colormap not in _ANCHORS:
        raise ArgumentError(f"colormap must be one of {', '.join(COLORMAPS)}, not {colormap!r}", field="colormap")
    picture = to_picture(image)
    if picture_size is not None and picture.size != tuple(picture_size):
        raise PictureSizeError(
            f"the picture is {picture.width} x {picture.height} pixels, but the one that was predicted is"
            f" {picture_size[0]} x {picture_size[1]}; pass the picture that was predicted",
            field="image",
        )
    box = (0.0, 0.0, float(picture.width), float(picture.height)) if region is None else region
    shown = _blend(picture, saliency, box, alpha * _PALE if note else alpha, colormap)
    if note:
        _mark_unreliable(shown, box, note)
    return shown


def _mark_unreliable(shown: Image.Image, box: Box, note: str) -> None:
    """Hatches the part that the model saw, and writes a note in its lower left corner, if there is room for it."""
    columns, rows = _window(box[0], box[2], shown.width), _window(box[1], box[3], shown.height)
    width, height = columns[1] - columns[0], rows[1] - rows[0]
    if width <= 0 or height <= 0:
        return
    pitch = max(_SMALLEST_PITCH, min(width, height) // 24)
    stroke = pitch // 8
    phase = np.add.outer(np.arange(pitch), np.arange(pitch)) % pitch // stroke
    for line, grey in ((0, 255), (1, 0)):  # light beside dark, so that one of them shows on anything
        tile = np.where(phase == line, 160, 0).astype(np.uint8)
        hatch = np.tile(tile, (math.ceil(height / pitch), math.ceil(width / pitch)))[:height, :width]
        shown.paste((grey, grey, grey), (columns[0], rows[0]), Image.fromarray(hatch))
    _draw_note(shown, (columns[0], rows[1]), note, width, height)


def _draw_note(shown: Image.Image, corner: tuple[int, int], note: str, width: int, height: int) -> None:
    """Writes white on black above and to the right of a corner, if there is room for it."""
    size = float(np.clip(min(width, height) / 14, _SMALLEST_FONT, _LARGEST_FONT))
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(note)
    margin = math.ceil(size / 4)
    label = (math.ceil(right - left) + 2 * margin, math.ceil(bottom - top) + 2 * margin)
    if label[0] > width or label[1] > height:
        return
    place = (corner[0], corner[1] - label[1])
    pen = ImageDraw.Draw(shown)
    pen.rectangle((*place, place[0] + label[0] - 1, place[1] + label[1] - 1), fill=(0, 0, 0))
    pen.text((place[0] + margin - left, place[1] + margin - top), note, fill=(255, 255, 255), font=font)


def _blend(picture: Image.Image, saliency: FloatArray, box: Box, alpha: float, colormap: str | None) -> Image.Image:
    columns = _window(box[0], box[2], picture.width)
    rows = _window(box[1], box[3], picture.height)
    levels, signed = _normalize(saliency, _on_picture(saliency, box, columns, rows), colormap)
    shown = _dimmed(picture)
    if columns[0] >= columns[1] or rows[0] >= rows[1]:
        return shown
    corner = (columns[0], rows[0])
    coverage = np.outer(_coverage(rows, box[1], box[3]), _coverage(columns, box[0], box[2])).astype(np.float32)
    seen = picture.crop((columns[0], rows[0], columns[1], rows[1]))
    colours, opacity = _tables(colormap or ("diverging" if signed else "turbo"), signed, alpha)
    indices = _indices(_resize(levels, box, columns, rows), signed)
    shaded = Image.composite(Image.fromarray(colours[indices]), seen, Image.fromarray(opacity[indices]))
    shown.paste(shaded, corner, Image.fromarray(_bytes(coverage * 255)))
    return shown


def _on_picture(saliency: FloatArray, box: Box, columns: tuple[int, int], rows: tuple[int, int]) -> FloatArray:
    """The values that lie on the picture: beyond it, where a server shows the whole picture, there is only a border."""
    height, width = saliency.shape
    left, right = _source(columns, box[0], box[2], width)
    top, bottom = _source(rows, box[1], box[3], height)
    across, down = (slice(max(0, math.floor(start)), math.ceil(stop)) for start, stop in ((left, right), (top, bottom)))
    shown = saliency[down, across]
    return shown if shown.size else saliency


def _normalize(saliency: FloatArray, shown: FloatArray, colormap: str | None) -> tuple[FloatArray, bool]:
    """The map in [0, 1], or, where it is signed and may be shown so, in [-1, 1], and which; by what of it is shown."""
    values, scale = saliency.astype(np.float64), shown.astype(np.float64)
    low, high = float(scale.min()), _top(scale)
    has_negative = -low > _NOISE * max(high, 0.0)
    signed = colormap == "diverging" or (colormap is None and has_negative)
    if signed:
        base, span = 0.0, _top(np.abs(scale))
    else:
        base = 0.0 if has_negative else low
        span = high - base
    if span <= 0.0:
        return np.zeros(saliency.shape, np.float32), signed
    return np.clip((values - base) / span, -1.0 if signed else 0.0, 1.0).astype(np.float32), signed


def _top(values: NDArray[np.float64]) -> float:
    """What counts as full strength: a few outliers, as gradients have, must not make all the rest invisible."""
    top = float(np.percentile(values, _TOP_PERCENTILE))
    return top if top > values.min() else float(values.max())


def _window(start: float, stop: float, size: int) -> tuple[int, int]:
    """The pixels that an interval touches."""
    return max(0, math.floor(start)), min(size, math.ceil(stop))


def _coverage(window: tuple[int, int], start: float, stop: float) -> NDArray[np.float64]:
    """How much of each pixel of a window lies in the interval, 0 to 1."""
    left = np.arange(*window, dtype=np.float64)
    shares: NDArray[np.float64] = np.clip(np.minimum(left + 1, stop) - np.maximum(left, start), 0.0, 1.0)
    return shares


def _resize(levels: FloatArray, box: Box, columns: tuple[int, int], rows: tuple[int, int]) -> FloatArray:
    """The map at every pixel of the window."""
    height, width = levels.shape
    left, right = _source(columns, box[0], box[2], width)
    top, bottom = _source(rows, box[1], box[3], height)
    # A window reaches up to a pixel over the region, where the map goes on as at its edge.
    margin = math.ceil(max(0.0, -left, -top, right - width, bottom - height))
    padded = Image.fromarray(np.pad(levels, margin, mode="edge"))
    source = (left + margin, top + margin, right + margin, bottom + margin)
    size = (columns[1] - columns[0], rows[1] - rows[0])
    return np.asarray(padded.resize(size, Image.Resampling.BILINEAR, box=source))


def _indices(levels: FloatArray, signed: bool) -> NDArray[np.uint8]:
    """Levels in [0, 1], or [-1, 1] where signed, as indices into the tables."""
    return _bytes(_MIDDLE * (1 + levels)) if signed else _bytes(levels * (_LEVELS - 1))


def _source(window: tuple[int, int], start: float, stop: float, count: int) -> tuple[float, float]:
    scale = count / (stop - start)
    return (window[0] - start) * scale, (window[1] - start) * scale


def _tables(colormap: str, signed: bool, alpha: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Colour (256, 3) and opacity (256,) of every level. Opacity grows fast at first, so that weak areas show."""
    anchors = np.array(_ANCHORS[colormap], np.float64)
    positions = np.linspace(0, 2 * _MIDDLE if signed else _LEVELS - 1, len(anchors))
    index = np.arange(_LEVELS)
    colours = np.stack([np.interp(index, positions, anchors[:, channel]) for channel in range(3)], axis=1)
    strength = np.abs(index - _MIDDLE) / _MIDDLE if signed else index / (_LEVELS - 1)
    return _bytes(colours), _bytes(255 * alpha * np.minimum(1.0, strength) ** 0.75)


def _dimmed(picture: Image.Image) -> Image.Image:
    """Grey and of low contrast: apart from the seen part even where the picture is black or white."""
    return picture.convert("L").point(lambda grey: 0.35 * grey + 40).convert("RGB")


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
