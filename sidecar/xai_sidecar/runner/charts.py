"""Charts of a report, as SVG that stands in the page: a radar of explainers by metrics, and bars by class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#2457c5", "#c2571a", "#1f8a5b", "#9a3ea8", "#8a6d0f", "#4b7d9b", "#b3324a", "#5c5c66")
"""Of explainers, in their order; told apart by people who do not see all colours, by their lightness."""

_RADIUS = 110
_WIDTH, _HEIGHT = 440, 300
_BAR, _GAP, _LABELS, _BARS = 9, 8, 150, 300


def radar(values: Mapping[str, Mapping[str, float]], axes: Sequence[str]) -> str:
    """A radar of values from 0 in the middle to 1 outside.

    Args:
        values: By line and axis; an axis that a line lacks is left out of it.
        axes: The axes, at least three.
    """
    centre_x, centre_y = _WIDTH / 2, _HEIGHT / 2
    angles = [2 * math.pi * place / len(axes) - math.pi / 2 for place in range(len(axes))]

    def point(value: float, angle: float) -> str:
        return f"{centre_x + _RADIUS * value * math.cos(angle):.1f},{centre_y + _RADIUS * value * math.sin(angle):.1f}"

    parts = [
        f'<polygon class="grid" points="{" ".join(point(level, angle) for angle in angles)}"/>'
        for level in (0.25, 0.5, 0.75, 1)
    ]
    for axis, angle in zip(axes, angles, strict=True):
        x, y = centre_x + (_RADIUS + 14) * math.cos(angle), centre_y + (_RADIUS + 14) * math.sin(angle)
        anchor = "middle" if abs(math.cos(angle)) < 0.2 else ("start" if math.cos(angle) > 0 else "end")
        parts.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">{escape(axis)}</text>')
    for colour, (name, line) in zip(_repeated(len(values)), values.items(), strict=True):
        points = " ".join(point(line[axis], angle) for axis, angle in zip(axes, angles, strict=True) if axis in line)
        parts.append(
            f'<polygon points="{points}" fill="none" stroke="{colour}" stroke-width="2">'
            f"<title>{escape(name)}</title></polygon>"
        )
    return _svg(_WIDTH, _HEIGHT, parts)


def bars(values: Mapping[str, Mapping[str, float]], low: float, high: float) -> str:
    """Bars in groups: a group for each class, a bar for each explainer.

    Args:
        values: By class and explainer.
        low: The least value that there can be; bars begin at 0 or at this, whatever is more.
        high: The greatest.
    """
    names = list(dict.fromkeys(name for line in values.values() for name in line))
    start = max(0.0, low)
    parts, top = [], 4
    for label, line in values.items():
        height = _BAR * len(line)
        parts.append(
            f'<text x="{_LABELS - 8}" y="{top + height / 2 + 4:.1f}" text-anchor="end">{escape(_short(label))}</text>'
        )
        for name, value in line.items():
            width = max(0.0, (value - start) / (high - start)) * _BARS
            colour = COLOURS[names.index(name) % len(COLOURS)]
            parts.append(
                f'<rect x="{_LABELS}" y="{top}" width="{width:.1f}" height="{_BAR - 1}" fill="{colour}">'
                f"<title>{escape(label)}, {escape(name)}: {value:.3f}</title></rect>"
            )
            top += _BAR
        top += _GAP
    return _svg(_LABELS + _BARS + 10, top, parts)


def legend(names: Sequence[str]) -> str:
    """The colours of explainers."""
    colours = zip(names, _repeated(len(names)), strict=True)
    return "".join(
        f'<span class="key"><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in colours
    )


def _repeated(count: int) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(count)]


def _short(label: str, most: int = 24) -> str:
    return label if len(label) <= most else f"{label[: most - 1]}…"


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img">{"".join(parts)}</svg>'
