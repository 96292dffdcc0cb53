"""The table of scores: explainers and controls by metrics, with how the explainers compare with the best control."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

from xai_sidecar.evaluator.comparison import Skill, Yardstick, goodness, goodness_error
from xai_sidecar.evaluator.weighted import ScoreStatistics
from xai_sidecar.metrics.discovery import installed_metrics

Statistics: TypeAlias = Callable[[str, str, int | None], ScoreStatistics | None]
"""Statistics of an explainer's scores by a metric, of all classes (None) or of one; None if there are none.

By the metric `EXPLAIN` it has an entry for each of its maps that must not be believed."""


@dataclass(frozen=True)
class QualityRow:
    """Scores of one explainer by one metric.

    Attributes:
        explainer: Name of the explainer.
        metric: Name of the metric.
        statistics: Of its scores over the rolling window.
        higher_is_better: Whether a higher score is a better one.
        goodness: The mean on the scale from 0 to 1, where 1 is best.
        goodness_error: Its standard error; None for a single sample.
        skill: How much of what the best control lacks it makes up; None where it was not compared, and of a control.
    """

    explainer: str
    metric: str
    statistics: ScoreStatistics
    higher_is_better: bool
    goodness: float
    goodness_error: float | None
    skill: Skill | None = None


@dataclass(frozen=True)
class QualityTable:
    """Scores of all explainers by all metrics.

    Attributes:
        rows: By explainer, then by metric; without pairs that have no scores.
    """

    rows: tuple[QualityRow, ...] = ()


def quality_table(
    names: Iterable[str], metrics: Sequence[str], statistics: Statistics, yardstick: Yardstick | None = None
) -> QualityTable:
    """The table of some explainers and controls by some metrics, in the order given, over all classes."""
    controls = yardstick.controls if yardstick else ()
    known = {
        metric: {name: found for name in controls if (found := statistics(name, metric, None)) is not None}
        for metric in metrics
    }
    rows = []
    for name, metric_name in product(names, metrics):
        found = statistics(name, metric_name, None)
        if found is not None:
            compared = yardstick if name not in controls else None
            skill = compared.skill(name, metric_name, known[metric_name]) if compared else None
            rows.append(quality_row(name, metric_name, found, skill))
    return QualityTable(tuple(rows))


def quality_row(
    explainer: str, metric_name: str, statistics: ScoreStatistics, skill: Skill | None = None
) -> QualityRow:
    """The row of an explainer's scores by a metric."""
    metric = installed_metrics()[metric_name]
    good, error = goodness(metric, statistics.mean), goodness_error(metric, statistics.standard_error)
    return QualityRow(explainer, metric_name, statistics, metric.higher_is_better, good, error, skill)
