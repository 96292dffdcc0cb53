"""Explainers against each other and against the controls, picture by picture.

Pictures differ far more than explainers do: what tells two explainers apart is the mean of their differences on the
same pictures, with its own standard error. All differences are of `goodness`, on which 1 is the best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from xai_sidecar.evaluator.intervals import confidence_half_width
from xai_sidecar.evaluator.weighted import ScoreStatistics
from xai_sidecar.metrics.base import Metric
from xai_sidecar.metrics.discovery import installed_metrics

Differences: TypeAlias = Callable[[str, str, str, int | None], ScoreStatistics | None]
"""Statistics of the differences of two explainers' scores by a metric, the first less the second, over the pictures
that both have a score of, of all classes (None) or of one; None if there are none."""

_PERFECT = 1 - 1e-9


def goodness(metric: Metric[Any], mean: float) -> float:
    """Maps a mean score to [0, 1], where 0 is the worst that the metric could give and 1 the best."""
    low, high = metric.value_range
    part = min(max((mean - low) / (high - low), 0.0), 1.0)
    return part if metric.higher_is_better else 1 - part


def goodness_error(metric: Metric[Any], standard_error: float | None) -> float | None:
    """Maps the standard error of a mean score to the scale of `goodness`; None to None."""
    low, high = metric.value_range
    return None if standard_error is None else standard_error / (high - low)


@dataclass(frozen=True)
class Advantage:
    """By how much an explainer is better than another one.

    Attributes:
        over: The other one.
        mean: Mean difference of goodness, -1 to 1.
        half_width: Half the width of its 95 % confidence interval; NaN where there are too few pictures to tell.
    """

    over: str
    mean: float
    half_width: float

    @property
    def sure(self) -> bool:
        """Whether the explainer is better beyond chance."""
        return self.mean - self.half_width > 0

    @property
    def surely_worse(self) -> bool:
        """Whether it is worse beyond chance."""
        return self.mean + self.half_width < 0

    def __str__(self) -> str:
        """Such as "0.081 ± 0.020"."""
        spread = "" if math.isnan(self.half_width) else f" ± {self.half_width:.3f}"
        return f"{self.mean:.3f}{spread}"


@dataclass(frozen=True)
class Skill:
    """How far a score is from that of the best control to the best that there is: 0 is no better than the control.

    Attributes:
        control: The control that does best by the metric.
        value: (goodness - control's) / (1 - control's), from the differences on the same pictures; at most 1.
        half_width: Half the width of its 95 % confidence interval, from the differences alone; NaN where there are too
            few pictures to tell.
    """

    control: str
    value: float
    half_width: float


@dataclass(frozen=True)
class Verdict:
    """Whether `auto` may choose an explainer.

    Attributes:
        least: Its advantage, by the composite score, over the control that it beats by the least.
        veto: The metric by which it is worse than noise; empty if there is none.
        vetoed_by: By how much it is worse there; None if there is no veto.
    """

    least: Advantage
    veto: str = ""
    vetoed_by: Advantage | None = None

    @property
    def eligible(self) -> bool:
        """Whether it beats all controls beyond chance, and no metric speaks against it."""
        return self.least.sure and not self.veto

    @property
    def objection(self) -> str:
        """Why `auto` does not choose it, as "it …"; empty if it may."""
        if self.vetoed_by is not None:
            amount = Advantage(self.vetoed_by.over, -self.vetoed_by.mean, self.vetoed_by.half_width)
            return f"is worse than {self.vetoed_by.over} by {self.veto} ({amount})"
        if not self.least.sure:
            return f"does not beat {self.least.over} beyond chance ({self.least})"
        return ""


@dataclass(frozen=True)
class Yardstick:
    """What explainers are compared with.

    Attributes:
        controls: The names of all controls; without any, no explainer has to beat one.
        differences: Of scores on the same pictures.
        vetoes: Metrics by which an explainer must not be worse than the vetoing control; their scores earn nothing.
        vetoing: That control.
    """

    controls: tuple[str, ...]
    differences: Differences
    vetoes: tuple[str, ...] = ()
    vetoing: str = ""

    def advantage(
        self,
        explainer: str,
        other: str,
        metrics: Sequence[str],
        weights: Mapping[str, float],
        min_samples: int,
        target: int | None = None,
    ) -> Advantage | None:
        """An explainer's advantage over another one by the weighted mean of some metrics.

        The standard errors of the metrics are added up, which is the most that the one of the weighted mean can be. By
        a metric that gives both the same on all pictures, such as hits alone, it is zero: as of the weighted means of
        the pictures, where another metric tells these apart.

        Returns:
            The advantage; None where fewer than `min_samples` pictures have a score of both by each metric.
        """
        total, mean, error, fewest = math.fsum(weights[metric] for metric in metrics), 0.0, 0.0, math.inf
        for name in metrics:
            found = self.differences(explainer, other, name, target)
            if found is None or found.count < min_samples:
                return None
            metric = installed_metrics()[name]
            of_metric = goodness_error(metric, found.standard_error)
            mean += weights[name] / total * _signed(metric, found.mean)
            error += weights[name] / total * (math.nan if of_metric is None else of_metric)
            fewest = min(fewest, found.effective_count)
        return Advantage(other, mean, confidence_half_width(error, fewest))

    def verdict(
        self,
        explainer: str,
        metrics: Sequence[str],
        weights: Mapping[str, float],
        min_samples: int,
        target: int | None = None,
    ) -> Verdict | None:
        """Whether an explainer beats the controls; None where too few pictures were compared with one of them."""
        found = []
        for control in self.controls:
            one = self.advantage(explainer, control, metrics, weights, min_samples, target)
            if one is None:
                return None
            found.append(one)
        if not found:
            return None
        least = min(found, key=lambda each: each.mean - (0.0 if math.isnan(each.half_width) else each.half_width))
        for metric in self.vetoes:
            against = self.advantage(explainer, self.vetoing, [metric], {metric: 1.0}, min_samples, target)
            if against is not None and against.surely_worse:
                return Verdict(least, metric, against)
        return Verdict(least)

    def skill(self, explainer: str, name: str, controls: Mapping[str, ScoreStatistics]) -> Skill | None:
        """An explainer's skill by a metric.

        Args:
            explainer: The explainer.
            name: The metric.
            controls: Statistics of the scores of the controls that have any.

        Returns:
            The skill; None where no picture was compared, or a control has the best score that there is, so that nobody
            can beat it.
        """
        metric = installed_metrics()[name]
        good = {control: goodness(metric, found.mean) for control, found in controls.items()}
        best = max(good, key=lambda control: (good[control], control), default=None)
        found = None if best is None else self.differences(explainer, best, name, None)
        if best is None or found is None or good[best] >= _PERFECT:
            return None
        room = 1 - good[best]
        half = confidence_half_width(goodness_error(metric, found.standard_error), found.effective_count)
        return Skill(best, min(1.0, _signed(metric, found.mean) / room), half / room)


def _signed(metric: Metric[Any], difference: float) -> float:
    """A difference of scores on the scale of `goodness`."""
    low, high = metric.value_range
    return (difference if metric.higher_is_better else -difference) / (high - low)
