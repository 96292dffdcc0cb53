"""The metrics that there are."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

from xai_sidecar import extensions
from xai_sidecar.metrics.base import Metric, MetricParameters


@functools.cache
def built_in_metrics() -> Mapping[str, Metric[Any]]:
    """The metrics of xai-sidecar itself by name, in the order in which they are listed."""
    return extensions.built_in(_GROUP)


@functools.cache
def installed_metrics() -> Mapping[str, Metric[Any]]:
    """All metrics by name: the built-in ones, then those that installed packages bring.

    Raises:
        ConfigError: A package brings one that cannot be used; see `extensions.installed`.
    """
    return extensions.installed(_GROUP)


def _fault(metric: Metric[Any]) -> str:
    low, high = metric.value_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return f"Its value_range is {metric.value_range}; give the lowest and the highest score, both finite."
    if not isinstance(metric.higher_is_better, bool):
        return "Its higher_is_better is neither True nor False."
    return ""


_GROUP: extensions.Group[Metric[Any]] = extensions.Group(
    noun="metric",
    base=Metric,
    parameters_base=MetricParameters,
    package="xai_sidecar.metrics",
    entry_points="xai_sidecar.metrics",
    names=r"[a-z][a-z0-9_]*(/[a-z][a-z0-9_]*)?",
    reserved=frozenset({"explain"}),
    fault=_fault,
)
