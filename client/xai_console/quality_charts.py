"""Options of the charts about quality."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from xai_client import ExplainerQuality, Quality, QualityHistory
from xai_console.charts import GAP, INK, PALETTE, axis, bars, time_axis
from xai_console.page import Page
from xai_console.sample_scores import metric_name

_MOST_CLASSES = 20


def radar(page: Page, quality: Quality, weights: Mapping[str, float]) -> dict[str, Any]:
    """Goodness by metric, of those that count, or of all where fewer than three do.

    Shown are the metrics that most have been measured by, and the explainers that have been measured by all of these: a
    radar has no place for what is not known, and draws it as the worst there is.
    """
    having = {each.explainer: each for each in quality.explainers.values() if each.quality}
    counted = [name for name in quality.evaluator.metrics if weights.get(name, 0) > 0]
    for wanted in (counted, list(quality.evaluator.metrics)):
        metrics = [name for name in wanted if 2 * sum(name in each.quality for each in having.values()) >= len(having)]
        shown = [each for each in having.values() if each.quality.keys() >= set(metrics)]
        if len(metrics) >= 3 and shown:
            return _radar(page, metrics, shown)
    return {}


def _radar(page: Page, metrics: list[str], shown: list[ExplainerQuality]) -> dict[str, Any]:
    data = [
        {
            "name": each.explainer,
            "value": [round(each.quality[name].goodness, 4) for name in metrics],
            "lineStyle": {"type": "dashed" if each.is_control else "solid", "width": 1 if each.is_control else 2},
        }
        for each in shown
    ]
    return {
        "tooltip": {"trigger": "item", "confine": True},
        "radar": {
            "indicator": [{"name": metric_name(page.say, name), "min": 0, "max": 1} for name in metrics],
            "radius": "62%",
            "center": ["50%", "56%"],
            "axisName": {"color": INK},
            "splitArea": {"show": False},
        },
        "series": [{"type": "radar", "data": data, "symbolSize": 4}],
    }


def class_names(quality: Quality) -> dict[int, str]:
    """The classes that scores are known of, those with the most samples first."""
    counts: dict[int, int] = {}
    labels: dict[int, str] = {}
    for each in quality.explainers.values():
        for one in each.classes:
            counts[one.class_id] = max(counts.get(one.class_id, 0), one.measure.sample_count)
            labels[one.class_id] = one.label
    return {class_id: labels[class_id] for class_id in sorted(counts, key=lambda each: -counts[each])[:_MOST_CLASSES]}


def by_class(page: Page, quality: Quality, *, explainer: str = "", metric: str = "") -> dict[str, Any]:
    """Goodness by class: of one explainer by all metrics, or by one metric of all explainers."""
    classes = class_names(quality)
    if explainer:
        made = quality.explainers.get(explainer)
        found = {(one.measure.metric, one.class_id): one.measure for one in (made.classes if made else ())}
    else:
        found = {
            (name, one.class_id): one.measure
            for name, each in quality.explainers.items()
            for one in each.classes
            if one.measure.metric == metric
        }
    names = list(dict.fromkeys(name for name, _ in found))
    if not names:
        return {}
    series = [
        bars(
            metric_name(page.say, name) if explainer else name,
            [round(found[name, class_id].goodness, 4) if (name, class_id) in found else GAP for class_id in classes],
        )
        for name in names
    ]
    return {
        "xAxis": axis(min=0, max=1),
        "yAxis": axis("category", data=list(classes.values()), inverse=True),
        "series": series,
        "tooltip": {"trigger": "axis", "axisPointer": {"type": "shadow"}, "confine": True},
    }


def history(past: QualityHistory, metric: str) -> dict[str, Any]:
    """Scores by one metric over time, a line for each explainer, with the 95 % interval around it."""
    series: list[dict[str, Any]] = []
    for place, ((explainer, _), points) in enumerate(
        (key, points) for key, points in past.scores.items() if key[1] == metric
    ):
        colour = PALETTE[place % len(PALETTE)]
        at = [(1000 * past.time_of(each.bin), each) for each in points]
        series.append(
            {
                "name": explainer,
                "type": "line",
                "color": colour,
                "symbolSize": 4,
                "lineStyle": {"type": "dashed" if explainer.startswith("control/") else "solid", "width": 2},
                "data": [[time, round(each.mean, 5)] for time, each in at],
            }
        )
        known = [(time, each) for time, each in at if not math.isnan(each.confidence_half_width)]
        low = [[time, each.mean - each.confidence_half_width] for time, each in known]
        height = [[time, 2 * each.confidence_half_width] for time, each in known]
        series += [_half_band(explainer, colour, low, 0), _half_band(explainer, colour, height, 0.14)]
    if not series:
        return {}
    return {
        "xAxis": time_axis(past),
        "yAxis": axis(scale=True),
        "series": series,
        "legend": {
            "top": 0,
            "type": "scroll",
            "textStyle": {"color": INK},
            "data": [each["name"] for each in series if "stack" not in each],
        },
    }


def _half_band(explainer: str, colour: str, values: list[list[float]], opacity: float) -> dict[str, Any]:
    """One half of a band: the lower end, unseen, or the height above it."""
    return {
        "name": explainer,
        "type": "line",
        "stack": explainer,
        "symbol": "none",
        "silent": True,
        "tooltip": {"show": False},
        "lineStyle": {"opacity": 0},
        "color": colour,
        "areaStyle": {"opacity": opacity},
        "data": values,
    }
