"""A chart of scores as an SVG file: a bar for each map with two standard errors, those of controls in grey."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _ROW, _LEFT, _RIGHT, _TOP = 640, 30, 150, 70, 44
_FONT = 'font-family="sans-serif" font-size="13"'
_SMALL = 'font-family="sans-serif" font-size="11" fill="#4a5568"'
_COLOURS = {False: "#63a4e0", True: "#cbd5e0"}
_INK, _GRID = "#1a202c", "#e2e8f0"
_CAP = 4


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


def chart(title: str, axis: str, bars: Sequence[Bar]) -> str:
    """The chart as SVG, the bars in the order given, above an axis with its name."""
    low = min(0.0, *(each.mean - 2 * each.error for each in bars))
    high = max(each.mean + 2 * each.error for each in bars)
    left = _LEFT + 10
    scale = (_WIDTH - left - _RIGHT) / (high - low)
    bottom = _TOP + _ROW * len(bars)

    def place(value: float) -> float:
        return round(left + (value - low) * scale, 1)

    parts = [_text(10, 22, title, f'{_FONT} font-weight="bold"')]
    for tick in _ticks(low, high):
        parts += [
            _line(place(tick), _TOP, place(tick), bottom, _GRID),
            _text(place(tick), bottom + 15, f"{tick:g}", f'{_SMALL} text-anchor="middle"'),
        ]
    for number, each in enumerate(bars):
        parts += _bar(each, _TOP + _ROW * number + _ROW / 2, place)
    parts.append(_line(place(0), _TOP, place(0), bottom, _INK))
    parts.append(_text(place((low + high) / 2), bottom + 33, axis, f'{_SMALL} text-anchor="middle"'))
    size = f'width="{_WIDTH}" height="{bottom + 44}"'
    blank = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', blank, *parts, "</svg>", ""])


def _bar(one: Bar, middle: float, place: Callable[[float], float]) -> list[str]:
    """A bar with its name before it, its mean behind all bars, and its standard errors on it."""
    start, end = sorted((place(0), place(one.mean)))
    ends = place(one.mean - 2 * one.error), place(one.mean + 2 * one.error)
    return [
        _text(_LEFT - 8, middle + 4, one.name, f'{_FONT} text-anchor="end"'),
        f'<rect x="{start}" y="{middle - 9}" width="{max(1.0, end - start):.1f}" height="18" '
        f'fill="{_COLOURS[one.is_control]}"/>',
        _line(ends[0], middle, ends[1], middle, _INK),
        *(_line(each, middle - _CAP, each, middle + _CAP, _INK) for each in ends),
        _text(_WIDTH - 12, middle + 4, f"{one.mean:+.3f}".replace("-", "−"), f'{_FONT} text-anchor="end"'),
    ]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from the lowest to the highest value, at most eight."""
    steps = (factor * 10**power for power in range(-4, 4) for factor in (1, 2, 5))
    step = next(each for each in steps if (high - low) / each <= 7)
    return [round(number * step, 6) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}"/>'
