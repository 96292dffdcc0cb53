"""A chart of scores as an SVG file: a bar for each map with its standard error, those of controls in grey."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _ROW, _LEFT, _TOP = 640, 30, 150, 44
_FONT = 'font-family="sans-serif" font-size="13"'
_COLOURS = {False: "#2b6cb0", True: "#a0aec0"}


class Bar(NamedTuple):
    """The score of one map.

    Attributes:
        name: The explainer's or control's.
        mean: Over pictures.
        error: Standard error of the mean.
        is_control: Whether the map knows nothing of the model.
    """

    name: str
    mean: float
    error: float
    is_control: bool


def chart(title: str, bars: Sequence[Bar]) -> str:
    """The chart as SVG, the bars in the order given."""
    low = min(0.0, *(each.mean - 2 * each.error for each in bars))
    high = max(each.mean + 2 * each.error for each in bars)
    scale = (_WIDTH - _LEFT - 20) / (high - low)

    def place(value: float) -> float:
        return round(_LEFT + (value - low) * scale, 1)

    parts = [f'<text x="10" y="22" {_FONT} font-weight="bold">{escape(title)}</text>']
    for number, each in enumerate(bars):
        middle = _TOP + _ROW * number + _ROW / 2
        start, end = sorted((place(0), place(each.mean)))
        ends = place(each.mean - 2 * each.error), place(each.mean + 2 * each.error)
        parts += [
            f'<text x="{_LEFT - 8}" y="{middle + 4}" text-anchor="end" {_FONT}>{escape(each.name)}</text>',
            f'<rect x="{start}" y="{middle - 9}" width="{max(1.0, end - start):.1f}" height="18" '
            f'fill="{_COLOURS[each.is_control]}"/>',
            f'<line x1="{ends[0]}" y1="{middle}" x2="{ends[1]}" y2="{middle}" stroke="#1a202c"/>',
        ]
    bottom = _TOP + _ROW * len(bars)
    parts.append(f'<line x1="{place(0)}" y1="{_TOP}" x2="{place(0)}" y2="{bottom}" stroke="#1a202c"/>')
    size = f'width="{_WIDTH}" height="{bottom + 12}"'
    blank = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', blank, *parts, "</svg>", ""])
