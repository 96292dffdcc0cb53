"""Charts, in the colours of the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from nicegui import ui

from xai_client import QualityHistory

PALETTE: Final = (
    "#3b6fd8",
    "#d9722e",
    "#2a9d6f",
    "#b0469a",
    "#8a7a1e",
    "#5b8fa8",
    "#c4454d",
    "#7a62c9",
    "#6f7a86",
    "#9a9a9a",
)
# Middle greys, which read on light and on dark.
INK: Final = "#7d8794"
GAP: Final = "-"
"""What ECharts draws nothing for."""
_LINE: Final = "rgba(125,135,148,0.28)"


class _Drawn(ui.echart, component="components/chart.js"):
    """NiceGUI's chart, of which a page waits for none: NiceGUI's own has ECharts read before anything is shown."""


class Chart:
    """A chart that can be shown anew.

    Args:
        options: Of ECharts.
        click: Called where a point is clicked.
        classes: CSS classes.
        label: What it shows, for those who cannot see it.
    """

    def __init__(
        self,
        options: dict[str, Any],
        click: Callable[[Any], Any] | None = None,
        classes: str = "chart",
        label: str = "",
    ) -> None:
        self._made = _Drawn(_dressed(options), on_point_click=click).classes(f"chart {classes}")
        self._made.props(f'role="img" aria-label="{label}"')

    def show(self, options: dict[str, Any]) -> None:
        """Shows other data."""
        self._made.options.clear()
        self._made.options.update(_dressed(options))
        self._made.update()


def _dressed(options: dict[str, Any]) -> dict[str, Any]:
    common = {
        "color": list(PALETTE),
        "textStyle": {"fontFamily": "Roboto, system-ui, sans-serif", "color": INK},
        "animationDuration": 200,
        "animationDurationUpdate": 200,
        "grid": {"left": 8, "right": 16, "top": 34, "bottom": 8, "containLabel": True},
        "tooltip": {"trigger": "axis", "confine": True},
        "legend": {
            "top": 0,
            "left": 0,
            "textStyle": {"color": INK},
            "itemWidth": 14,
            "itemHeight": 8,
            "type": "scroll",
        },
    }
    return {**common, **options} if options else {"series": []}


def axis(kind: str = "value", name: str = "", **more: Any) -> dict[str, Any]:
    """An axis in the looks of the page."""
    return {
        "type": kind,
        "name": name,
        "nameLocation": "middle",
        "nameGap": 26,
        "nameTextStyle": {"color": INK},
        "axisLabel": {"color": INK, "hideOverlap": True},
        "axisLine": {"lineStyle": {"color": _LINE}},
        "splitLine": {"lineStyle": {"color": _LINE}},
        **more,
    }


def time_axis(past: QualityHistory) -> dict[str, Any]:
    """An axis over the time of a history."""
    return axis("time", min=1000 * past.time_of(0), max=1000 * past.time_of(past.bin_count))


def bars(name: str, values: Sequence[float | str]) -> dict[str, Any]:
    """Bars of a series; also a 0 can be seen, unlike a `GAP`."""
    return {"name": name, "type": "bar", "barMaxWidth": 10, "barMinHeight": 2, "data": list(values)}


def level(height: float, style: str, **more: Any) -> dict[str, Any]:
    """A line across at a height; `more` is of its style."""
    return {
        "silent": True,
        "symbol": "none",
        "lineStyle": {"type": style, **more},
        "label": {"show": False},
        "data": [{"yAxis": height}],
    }


def curve_options(
    lines: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str, mark: float | None = None
) -> dict[str, Any]:
    """Curves over a share from 0 to 1.

    Args:
        lines: Points by name.
        across: Name of the horizontal axis.
        up: Name of the vertical one.
        mark: Height of a line across.
    """
    series: list[dict[str, Any]] = [
        {"name": name, "type": "line", "data": [list(point) for point in points], "symbolSize": 6, "showSymbol": True}
        for name, points in lines.items()
    ]
    if mark is not None and series:
        series[0]["markLine"] = level(mark, "dashed", color=INK)
    return {
        "xAxis": axis(name=across, min=0, max=1),
        "yAxis": axis(name=up, min=0, max=1, nameGap=34),
        "series": series,
        "grid": {"left": 24, "right": 16, "top": 34, "bottom": 24, "containLabel": True},
    }
