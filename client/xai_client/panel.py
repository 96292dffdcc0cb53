"""Several pictures side by side, each with what it shows and what its colours mean."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from xai_client.colours import ColourScale
from xai_client.errors import ArgumentError

DEFAULT_WIDTH: Final = 320

_SMALLEST_WIDTH: Final = 96
_MOST_COLUMNS: Final = 4
_PAPER: Final = (255, 255, 255)
_INK: Final = (24, 24, 27)
_PALE_INK: Final = (95, 95, 105)
_UNDRAWABLE: Final = "\U0010ffff"


@dataclass(frozen=True)
class Tile:
    """One picture of a panel.

    Attributes:
        image: RGB, of any size; it is made as wide as the others.
        title: What it shows, in a word or two.
        lines: What else there is to say of it, a line each.
        scale: What its colours mean; None for a picture without a map.
    """

    image: Image.Image
    title: str
    lines: Sequence[str] = ()
    scale: ColourScale | None = None


def panel(tiles: Sequence[Tile], columns: int | None = None, width: int = DEFAULT_WIDTH) -> Image.Image:
    """Lays tiles side by side, row by row, on white.

    Args:
        tiles: At least one.
        columns: Tiles in a row. Default: all up to four; of more, rows as equal as can be.
        width: Width of a tile in pixels, at least 96.

    Returns:
        RGB.

    Raises:
        ArgumentError: An argument is out of its range.
    """
    if not tiles:
        raise ArgumentError("there is nothing to show: no explanation", field="explanations")
    if width < _SMALLEST_WIDTH:
        raise ArgumentError(f"width must be at least {_SMALLEST_WIDTH} pixels, not {width!r}", field="width")
    if columns is not None and columns < 1:
        raise ArgumentError(f"columns must be at least 1, not {columns!r}", field="columns")
    across = min(len(tiles), columns or math.ceil(len(tiles) / math.ceil(len(tiles) / _MOST_COLUMNS)))
    gap = width // 20
    made = [_tile(tile, width) for tile in tiles]
    rows = [made[start : start + across] for start in range(0, len(made), across)]
    heights = [max(each.height for each in row) for row in rows]
    size = across * (width + gap) + gap, sum(heights) + gap * (len(rows) + 1)
    sheet = Image.new("RGB", size, _PAPER)
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for place, each in enumerate(row):
            sheet.paste(each, (gap + place * (width + gap), top))
        top += height + gap
    return sheet


def with_legend(image: Image.Image, tile: Tile) -> Image.Image:
    """A picture in its own size, with what a tile of it says below."""
    return _with_caption(image, tile, max(image.width, _SMALLEST_WIDTH) // 40)


def drawable(text: str, instead: str) -> str:
    """A text, without its accents, or what stands for it where the font, Pillow's own, has no signs for it."""
    bare = "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
    font = _font(20)
    missing = font.getmask(_UNDRAWABLE)
    nothing = bytes(missing), missing.size
    masks = (font.getmask(sign) for sign in set(bare) - {" "})
    return instead if any((bytes(mask), mask.size) == nothing for mask in masks) else bare


def _tile(tile: Tile, width: int) -> Image.Image:
    height = max(1, round(tile.image.height * width / tile.image.width))
    return _with_caption(tile.image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0), tile, 0)


def _with_caption(image: Image.Image, tile: Tile, margin: int) -> Image.Image:
    width = max(image.width, _SMALLEST_WIDTH)
    below = _caption(tile, width - 2 * margin)
    sheet = Image.new("RGB", (width, image.height + below.height + margin), _PAPER)
    sheet.paste(image, (0, 0))
    sheet.paste(below, (margin, image.height))
    return sheet


def _caption(tile: Tile, width: int) -> Image.Image:
    """Title, lines and legend, one below the other."""
    title, small = width / 16, width / 22
    space, step = round(small * 0.5), round(small * 1.35)
    height = space + round(title * 1.4) + step * len(tile.lines) + space
    bar = round(small) if tile.scale is not None else 0
    sheet = Image.new("RGB", (width, height + (bar + space + step if bar else 0)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    top = space
    for text, size, ink in ((tile.title, title, _INK), *((line, small, _PALE_INK) for line in tile.lines)):
        pen.text((0, top), _cut(text, size, width), fill=ink, font=_font(size))
        top += round(title * 1.4) if ink == _INK else step
    if tile.scale is not None:
        sheet.paste(_bar(tile.scale, width, bar), (0, top + space))
        _numbers(pen, tile.scale, top + space + bar, width, small)
    return sheet


def _bar(scale: ColourScale, width: int, height: int) -> Image.Image:
    return Image.fromarray(np.repeat(scale.shown(width)[np.newaxis], height, axis=0))


def _numbers(pen: ImageDraw.ImageDraw, scale: ColourScale, top: int, width: int, size: float) -> None:
    """What the ends of a scale stand for, and its middle."""
    font = _font(size)
    for text, place, anchor in zip(scale.marks(), (0, width / 2, width), ("la", "ma", "ra"), strict=True):
        pen.text((place, top + size * 0.25), text, fill=_PALE_INK, font=font, anchor=anchor)


def _cut(text: str, size: float, width: int) -> str:
    """As much of a text as there is room for."""
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    kept = next((end for end in range(len(text) - 1, 0, -1) if font.getlength(text[:end] + "...") <= width), 0)
    return text[:kept] + "..."


@cache
def _font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ArgumentError("this installation of Pillow has no FreeType, which texts on pictures need")
    return font
