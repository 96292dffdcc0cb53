"""Where passes tell something: which explainers are measured on which pictures, and by which metrics.

What costs much, has clearly lost, or is known well enough is measured on a share of the pictures. Which those are
depends on the picture's key alone, never on what it shows: means stay unbiased. They are the same pictures for all
explainers, so that these can be compared on them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from typing import Any

from xai_sidecar.evaluator.comparison import Differences, goodness_error
from xai_sidecar.evaluator.costs import FLOOR, Costs
from xai_sidecar.evaluator.intervals import confidence_half_width
from xai_sidecar.evaluator.quality_table import Statistics
from xai_sidecar.evaluator.records import SampleKey
from xai_sidecar.metrics.discovery import installed_metrics

LOST = 1 / 4
"""Share of the pictures on which an explainer is measured that has clearly lost."""

SETTLED = 1 / 8
"""Share of the pictures of a metric that is known well enough, where it does not count for the composite score."""

SHOWN = 1 / 4
"""Share of the pictures of a metric that is only shown: it neither counts for the composite score nor vetoes."""

_FEWEST = 30
"""Pictures without which nothing has lost or settled: what is looked at after each picture looks sure at times."""

_KNOWN = 0.02
"""Half width of the interval of a mean that is known well enough, of the metric's range."""

_SURE = 2.0
"""How many half widths of its interval lie between an explainer that has lost and the best: it is looked at often."""


class Spending:
    """Decides what is measured of a sample.

    Args:
        costs: What it costs.
        explainers: The explainers that are compared with each other; controls are always measured.
        weights: Of the metrics in the composite score.
        vetoes: The metrics that veto.
        min_samples: As of `auto`: nothing has lost or settled with fewer.
        statistics: Of the scores so far.
        differences: Of two explainers' scores on the same pictures.
    """

    def __init__(
        self,
        costs: Costs,
        explainers: Collection[str],
        weights: Mapping[str, float],
        vetoes: Collection[str],
        min_samples: int,
        statistics: Statistics,
        differences: Differences,
    ) -> None:
        self._costs = costs
        self._explainers = list(explainers)
        self._weighted = [name for name, weight in weights.items() if weight > 0]
        self._counting = {*self._weighted, *vetoes}
        self._min_samples = max(min_samples, _FEWEST)
        self._statistics = statistics
        self._differences = differences

    def measures(self, key: SampleKey, explainer: str) -> bool:
        """Whether an explainer is measured on a sample at all."""
        return not self.has_lost(explainer) or _place(key, "explain") < LOST

    def metrics(self, key: SampleKey, explainer: str, metrics: Collection[str]) -> list[str]:
        """By which of some metrics it is measured then."""
        return [metric for metric in metrics if _place(key, metric) < self.share(explainer, metric)]

    def share(self, explainer: str, metric: str) -> float:
        """The share of the pictures on which an explainer that is measured is measured by a metric."""
        if metric in (*self._costs.lead, *self._weighted) or not self._costs.passes(explainer, metric):
            return self._costs.share(explainer, metric)
        share = self._costs.share(explainer, metric) * (1.0 if metric in self._counting else SHOWN)
        return max(FLOOR, share * (SETTLED if self._is_known(explainer, metric) else 1.0))

    def has_lost(self, explainer: str) -> bool:
        """Whether an explainer is worse than another one far beyond chance, and better by no metric that counts."""
        if explainer not in self._explainers:
            return False
        return any(self._beats(other, explainer) for other in self._explainers if other != explainer)

    def _beats(self, one: str, other: str) -> bool:
        surely = False
        for name in self._weighted:
            found, metric = self._differences(one, other, name, None), installed_metrics()[name]
            if found is None or found.count < self._min_samples:
                continue
            mean = found.mean if metric.higher_is_better else -found.mean
            half = confidence_half_width(found.standard_error, found.effective_count)
            if math.isnan(half):
                continue
            if mean + half < 0:
                return False
            surely |= mean - _SURE * half > 0
        return surely

    def _is_known(self, explainer: str, name: str) -> bool:
        found = self._statistics(explainer, name, None)
        if found is None or found.count < self._min_samples:
            return False
        metric: Any = installed_metrics()[name]
        half = confidence_half_width(goodness_error(metric, found.standard_error), found.effective_count)
        return half <= _KNOWN


def _place(key: SampleKey, purpose: str) -> float:
    """A number in [0, 1) that a sample has for a purpose, as if drawn at random."""
    digest = hashlib.blake2b(f"{key.request_id}:{key.image_index}".encode(), digest_size=8, key=purpose.encode()[:64])
    return (int.from_bytes(digest.digest(), "big") >> 11) / 2**53
