"""Options of the charts about drift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from xai_client import QualityHistory, TrafficFigures
from xai_console.charts import GAP, INK, axis, bars, level, time_axis
from xai_console.page import Page

SHAPES: Final = ("concentration", "centre_x", "centre_y", "border", "agreement")
_MOST_CLASSES: Final = 15
_BAR: Final = 12
"""Pixels, about, from the middle of a bar to that of the one beside it."""


def traffic(page: Page, past: QualityHistory) -> dict[str, Any]:
    """Samples, their mean confidence and their share of outliers over time; shaded: what is too old to be looked at."""
    if not past.traffic:
        return {}
    say = page.say
    at = [(1000 * past.time_of(each.bin), each) for each in past.traffic]
    series: list[dict[str, Any]] = [
        {
            "name": say("drift.samples"),
            "type": "bar",
            "yAxisIndex": 1,
            "barMaxWidth": 12,
            "itemStyle": {"opacity": 0.35},
            "data": [[time, each.sample_count] for time, each in at],
            **_unseen(page, past),
        },
        _line(say("drift.probability"), [(time, each.mean_probability) for time, each in at if each.sample_count]),
        _line(say("drift.outliers"), [(time, each.outlier_share) for time, each in at if each.ood_count]),
    ]
    return {
        "xAxis": time_axis(past),
        "yAxis": [axis(min=0, max=1), axis(name="", splitLine={"show": False})],
        "series": [each for each in series if each["data"]],
    }


def deciles(page: Page, past: QualityHistory) -> dict[str, Any]:
    """How confident predictions are now, and were in the reference window: deciles of the highest probability."""
    windows = {"drift.now": past.current, "drift.reference": past.reference}
    series = [
        _line(page.say(key), [(10 * (place + 1), value) for place, value in enumerate(each.probability_deciles)])
        for key, each in windows.items()
        if each is not None and each.probability_deciles
    ]
    if not series:
        return {}
    return {
        "xAxis": axis(name=page.say("drift.percentile"), min=0, max=100),
        "yAxis": axis(min=0, max=1),
        "series": series,
        "grid": {"left": 8, "right": 16, "top": 34, "bottom": 24, "containLabel": True},
    }


def class_mix(page: Page, past: QualityHistory) -> dict[str, Any]:
    """Shares of the most frequent classes now and in the reference window."""
    now, before = past.current, past.reference
    windows = [(key, each) for key, each in (("drift.now", now), ("drift.reference", before)) if each is not None]
    labels = {**(before.labels if before else {}), **now.labels}
    counts = {each: now.classes.get(each, 0) + (before.classes.get(each, 0) if before else 0) for each in labels}
    shown = sorted(counts, key=lambda each: -counts[each])[:_MOST_CLASSES]
    if not shown:
        return {}
    series: list[dict[str, Any]] = []
    for key, window in windows:
        if window.sample_count:
            shares = _shares(window, shown)
            series += [bars(page.say(key), shares), _most(page.say(key), window, shares, is_first=not series)]
    return {
        "xAxis": axis(min=0),
        "yAxis": axis("category", data=[labels[each] for each in shown], inverse=True),
        "series": [each for each in series if each["data"]],
        "tooltip": {"trigger": "axis", "axisPointer": {"type": "shadow"}, "confine": True},
    }


def has_gaps(mix: dict[str, Any]) -> bool:
    """Whether a chart of `class_mix` shows a class whose share is not known."""
    return any(GAP in each["data"] for each in mix.get("series", ()))


def _shares(window: TrafficFigures, shown: Sequence[int]) -> list[float | str]:
    """The shares of classes in a window, with a gap where one is not known."""
    missing = GAP if _most_unlisted(window) else 0.0
    return [round(window.shares[each], 4) if each in window.shares else missing for each in shown]


def _most(name: str, window: TrafficFigures, shares: Sequence[float | str], *, is_first: bool) -> dict[str, Any]:
    """What is written in the gaps between a window's bars: the most that there can be."""
    written = f"≤ {math.ceil(1e4 * _most_unlisted(window) - 1e-6) / 1e4:g}"
    return {
        "name": name,
        "type": "scatter",
        "symbolSize": 1,
        "symbolOffset": [0, -_BAR / 2 if is_first else _BAR / 2],
        "itemStyle": {"color": "transparent", "opacity": 1},  # the label is as opaque as this
        "label": {"show": True, "position": "right", "color": INK, "fontSize": 10, "formatter": "{b}"},
        "silent": True,
        "tooltip": {"show": False},
        "data": [{"name": written, "value": [0, place]} for place, share in enumerate(shares) if share == GAP],
    }


def _most_unlisted(window: TrafficFigures) -> float:
    """The largest share that a class can have that a window does not list; 0 where it lists all that there were."""
    if sum(window.classes.values()) >= window.sample_count:
        return 0.0
    return min([*window.shares.values(), max(0.0, 1 - sum(window.shares.values()))])


def _unseen(page: Page, past: QualityHistory) -> dict[str, Any]:
    """The time of which there are samples that are not looked at, up to the bin that is only looked at in part."""
    if not past.truncated or not past.traffic:
        return {}
    start, end = (1000 * past.time_of(each) for each in (0, past.traffic[0].bin + 1))
    shaded = [{"name": page.say("drift.unseen"), "xAxis": start}, {"xAxis": end}]
    look = {"itemStyle": {"color": INK, "opacity": 0.18}, "label": {"color": INK, "position": "insideTop"}}
    return {"markArea": {"silent": True, **look, "data": [shaded]}}


def shapes(past: QualityHistory, statistic: str) -> dict[str, Any]:
    """A statistic of maps over time, a line for each explainer, or pair of them; dotted: the reference window."""
    series = []
    for (explainer, name), points in past.shapes.items():
        kind, _, other = name.partition("/")
        if kind != statistic:
            continue
        line = _line(
            f"{explainer} · {other}" if other else explainer,
            [(1000 * past.time_of(each.bin), each.mean) for each in points],
        )
        reference = past.reference_shapes.get((explainer, name))
        # Without data, the line of a statistic that was shown before would stay.
        line["markLine"] = {"data": []} if reference is None else level(reference.mean, "dotted")
        series.append(line)
    if not series:
        return {}
    return {
        "xAxis": time_axis(past),
        "yAxis": axis(scale=True),
        "series": series,
    }


def _line(name: str, points: list[tuple[float, float]]) -> dict[str, Any]:
    return {"name": name, "type": "line", "symbolSize": 4, "data": [[x, round(y, 5)] for x, y in points]}
