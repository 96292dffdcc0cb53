"""A saliency map on the picture that it explains.

The map is enlarged as floats, by pixel centres, over exactly the region that the model saw, fractions of pixels
included; only then is it turned into colours. What the model did not see is dimmed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from xai_client.colours import COLORMAPS, ColourScale, FloatArray, scale_of, to_bytes
from xai_client.errors import ArgumentError, PictureSizeError
from xai_client.picture import ImageLike, to_picture

DEFAULT_ALPHA: Final = 0.75
DEFAULT_SATURATION: Final = 0.2

Box: TypeAlias = tuple[float, float, float, float]

# Of maps that are not to be relied on: what is left of their opacity, and how near lines are to each other.
_PALE: Final = 0.5
_SMALLEST_PITCH: Final = 8
_SMALLEST_FONT: Final = 9.0
_LARGEST_FONT: Final = 48.0


class Looks(NamedTuple):
    """How a map is drawn; see `Explanation.overlay`."""

    alpha: float = DEFAULT_ALPHA
    colormap: str | None = None
    saturation: float = DEFAULT_SATURATION
    own_scale: bool = False


class Drawn(NamedTuple):
    """A map on a picture.

    Attributes:
        image: RGB, upright, of the size of the picture.
        scale: What its colours mean.
    """

    image: Image.Image
    scale: ColourScale


def draw(
    image: ImageLike,
    saliency: FloatArray,
    region: Box | None,
    picture_size: tuple[int, int] | None,
    alpha: float = DEFAULT_ALPHA,
    colormap: str | None = None,
    note: str = "",
    *,
    beside: Sequence[FloatArray] = (),
    saturation: float = DEFAULT_SATURATION,
) -> Drawn:
    """Lays `saliency` on `image`; see `Explanation.overlay`.

    Args:
        image: The picture.
        saliency: The map, float32 (H, W), finite.
        region: Left, top, right and bottom of what the map covers, in pixels of the upright picture; None for all.
        picture_size: Width and height that the upright picture must have; None for any.
        alpha: Opacity at the most salient pixel, 0 to 1.
        colormap: One of `COLORMAPS`, or None to choose by the map.
        note: Why the map is not to be relied on, in a word or two; it is then paler, hatched, and says so.
        beside: Maps of the same shape and region with which it shares a scale.
        saturation: What is left of the picture's own colours under the map, 0 to 1.

    Returns:
        The picture, and what its colours mean.

    Raises:
        ArgumentError: An argument is wrong; ImageError and PictureSizeError are kinds of it.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ArgumentError(f"alpha must be from 0 to 1, not {alpha!r}", field="alpha")
    if not 0.0 <= saturation <= 1.0:
        raise ArgumentError(f"saturation must be from 0 to 1, not {saturation!r}", field="saturation")
    if colormap is not None and colormap not in COLORMAPS:
        raise ArgumentError(f"colormap must be one of {', '.join(COLORMAPS)}, not {colormap!r}", field="colormap")
    picture = to_picture(image)
    if picture_size is not None and picture.size != tuple(picture_size):
        raise PictureSizeError(
            f"the picture is {picture.width} x {picture.height} pixels, but the one that was predicted is"
            f" {picture_size[0]} x {picture_size[1]}; pass the picture that was predicted",
            field="image",
        )
    box = (0.0, 0.0, float(picture.width), float(picture.height)) if region is None else region
    columns, rows = _window(box[0], box[2], picture.width), _window(box[1], box[3], picture.height)
    first, *others = (_on_picture(each, box, columns, rows) for each in (saliency, *beside))
    scale = scale_of(first, others, colormap)
    shown = _blend(picture, scale.levels(saliency), box, alpha * _PALE if note else alpha, scale, saturation)
    if note:
        _mark_unreliable(shown, box, note)
    return Drawn(shown, scale)


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


def _blend(
    picture: Image.Image, levels: FloatArray, box: Box, alpha: float, scale: ColourScale, saturation: float
) -> Image.Image:
    columns = _window(box[0], box[2], picture.width)
    rows = _window(box[1], box[3], picture.height)
    shown = _dimmed(picture)
    if columns[0] >= columns[1] or rows[0] >= rows[1]:
        return shown
    corner = (columns[0], rows[0])
    coverage = np.outer(_coverage(rows, box[1], box[3]), _coverage(columns, box[0], box[2])).astype(np.float32)
    seen = ImageEnhance.Color(picture.crop((columns[0], rows[0], columns[1], rows[1]))).enhance(saturation)
    indices = scale.indices(_resize(levels, box, columns, rows))
    colours, opacity = (Image.fromarray(table[indices]) for table in (scale.colours(), scale.opacity(alpha)))
    shown.paste(Image.composite(colours, seen, opacity), corner, Image.fromarray(to_bytes(coverage * 255)))
    return shown


def _on_picture(saliency: FloatArray, box: Box, columns: tuple[int, int], rows: tuple[int, int]) -> FloatArray:
    """The values that lie on the picture: beyond it, where a server shows the whole picture, there is only a border."""
    height, width = saliency.shape
    left, right = _source(columns, box[0], box[2], width)
    top, bottom = _source(rows, box[1], box[3], height)
    across, down = (slice(max(0, math.floor(start)), math.ceil(stop)) for start, stop in ((left, right), (top, bottom)))
    shown = saliency[down, across]
    return shown if shown.size else saliency


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


def _source(window: tuple[int, int], start: float, stop: float, count: int) -> tuple[float, float]:
    scale = count / (stop - start)
    return (window[0] - start) * scale, (window[1] - start) * scale


def _dimmed(picture: Image.Image) -> Image.Image:
    """Grey and of low contrast: apart from the seen part even where the picture is black or white."""
    return picture.convert("L").point(lambda grey: 0.35 * grey + 40).convert("RGB")
