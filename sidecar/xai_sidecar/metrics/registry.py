"""The benchmarks that there are."""

from __future__ import annotations

from typing import Any

from xai_sidecar.metrics.base import Metric
from xai_sidecar.metrics.class_sensitivity import ClassSensitivity
from xai_sidecar.metrics.faithfulness import DeletionAuc, InsertionAuc, NaiveFaithfulness
from xai_sidecar.metrics.localization import Iosr, PointingGame
from xai_sidecar.metrics.robustness import Robustness

_ALL: tuple[Metric[Any], ...] = (
    NaiveFaithfulness(),
    DeletionAuc(),
    InsertionAuc(),
    PointingGame(),
    Iosr(),
    ClassSensitivity(),
    Robustness(),
)

METRICS: dict[str, Metric[Any]] = {benchmark.name: benchmark for benchmark in _ALL}
"""By name, in the order in which they are listed."""
