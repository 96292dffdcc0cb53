"""Options of the charts about drift."""

from __future__ import annotations

from typing import Any, Final

from xai_client import QualityHistory
from xai_console.charts import axis, level, time_axis
from xai_console.page import Page

SHAPES: Final = ("concentration", "centre_x", "centre_y", "border", "agreement")
_MOST_CLASSES: Final = 15


def traffic(page: Page, past: QualityHistory) -> dict[str, Any]:
    """Samples, their mean confidence and their share of outliers over time."""
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
    labels = {**(before.labels if before else {}), **now.labels}
    counts = {each: now.classes.get(each, 0) + (before.classes.get(each, 0) if before else 0) for each in labels}
    shown = sorted(counts, key=lambda each: -counts[each])[:_MOST_CLASSES]
    if not shown:
        return {}
    series = [
        {
            "name": page.say(key),
            "type": "bar",
            "barMaxWidth": 10,
            "data": [round(window.shares.get(each, 0.0), 4) for each in shown],
        }
        for key, window in (("drift.now", now), ("drift.reference", before))
        if window is not None and window.sample_count
    ]
    return {
        "xAxis": axis(min=0),
        "yAxis": axis("category", data=[labels[each] for each in shown], inverse=True),
        "series": series,
        "tooltip": {"trigger": "axis", "axisPointer": {"type": "shadow"}, "confine": True},
    }


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
        if reference is not None:
            line["markLine"] = level(reference.mean, "dotted")
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
