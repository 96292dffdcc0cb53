"""The benchmarks that there are."""

from __future__ import annotations

from typing import Any

from xai_sidecar.benchmarks.base import Benchmark
from xai_sidecar.benchmarks.class_sensitivity import ClassSensitivity
from xai_sidecar.benchmarks.faithfulness import DeletionAuc, InsertionAuc, NaiveFaithfulness
from xai_sidecar.benchmarks.localization import Iosr, PointingGame
from xai_sidecar.benchmarks.robustness import Robustness

_ALL: tuple[Benchmark[Any], ...] = (
    NaiveFaithfulness(),
    DeletionAuc(),
    InsertionAuc(),
    PointingGame(),
    Iosr(),
    ClassSensitivity(),
    Robustness(),
)

BENCHMARKS: dict[str, Benchmark[Any]] = {benchmark.name: benchmark for benchmark in _ALL}
"""By name, in the order in which they are listed."""
