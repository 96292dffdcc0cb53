"""The alerts of deploy/prometheus, as far as they can be told without Prometheus.

Names, texts and runbook are those of `alerts.json`, which deploy/prometheus/for_console.py writes; conditions and
thresholds are those of alerts.yml, asked of samples instead of series. How long a condition has held, only Prometheus
knows. "A week ago" is the evaluator's window as it was then.

Some of them the server tells itself under the same names, from what it alone knows: `alert_cards` has both in one list.

The Chinese texts are in `alerts.zh.json`, written by hand. There, `of` is a digest of the English texts of an alert: a
test names the alert whose English has changed since.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from xai_client import MetricInfo, Quality, QualityHistory, QualityMeasure
from xai_console.words import Language

DAY_SECONDS: Final = 86_400.0
HOUR_SECONDS: Final = 3600.0
WEEK_SECONDS: Final = 7 * DAY_SECONDS

LEAST_SCORES: Final = 15
FALL: Final = 0.05
STANDARD_ERRORS: Final = 3
LEAST_WITH_OOD: Final = 50
HIGH_SHARE: Final = 0.3
RISEN_SHARE: Final = 0.1
RISE: Final = 2
LEAST_SAMPLED: Final = 10

TEXTS: Final = ("summary", "means", "look_at", "do")
"""What of an alert is in the viewer's language."""

_Z: Final = 1.959963984540054


@dataclass(frozen=True)
class Alert:
    """An alert of Prometheus.

    Attributes:
        name: Its name.
        summary: What is the matter, with labels such as ``{{ $labels.explainer }}``.
        after: How long that has to hold before it fires, such as "30m"; empty for not at all.
        means: The runbook: what it means. Markdown, as are the next two.
        look_at: What to look at.
        do: What to do.
    """

    name: str
    summary: str
    after: str
    means: str
    look_at: str
    do: str


@dataclass(frozen=True)
class Case:
    """Something that an alert's condition holds of.

    Attributes:
        labels: The labels that the alert has then.
        now: The figure that it is about; None where there is none.
        before: The same a week ago; None where that does not matter.
    """

    labels: Mapping[str, str]
    now: float | None = None
    before: float | None = None


@dataclass(frozen=True)
class Evidence:
    """What alerts are judged by.

    Attributes:
        quality: How good explanations are now.
        before: The evaluator's window a week ago, in one bin.
        with_ood_count: Samples of the last 24 hours with an OoD percentile.
        sampled_count: Samples of the last hour.
        done_count: Those of them that have been scored, or on which no class was predicted.
        model: Name of the model.
        now: Unix time in seconds.
    """

    quality: Quality
    before: QualityHistory
    with_ood_count: int
    sampled_count: int
    done_count: int
    model: str
    now: float


Judged = list[Case] | None
"""What a condition holds of, empty for nothing; None where that cannot be said."""


@cache
def alerts(language: Language) -> Mapping[str, Alert]:
    """All alerts, by name, with their texts in a language."""
    alerts = {each["name"]: Alert(**each) for each in _read("alerts.json")}
    if language == "en":
        return alerts
    translated = _read(f"alerts.{language}.json")
    return {name: replace(each, **{key: translated[name][key] for key in TEXTS}) for name, each in alerts.items()}


def _read(name: str) -> Any:
    return json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def judge(evidence: Evidence) -> Mapping[str, Judged]:
    """The alerts that can be told, by name, with what the condition of each holds of now."""
    return {name: condition(evidence) for name, condition in CONDITIONS.items()}


def _quality_fell(evidence: Evidence) -> Judged:
    fallen = list(_compared(evidence))
    if not fallen:
        return None
    return [case for case, surely in fallen if surely]


def _compared(evidence: Evidence) -> Iterator[tuple[Case, bool]]:
    """Each explainer by each metric that it was measured by now and a week ago, and whether its maps are worse now."""
    for name, explainer in evidence.quality.explainers.items():
        for metric, measure in {} if explainer.is_control else explainer.quality.items():
            before = next(iter(evidence.before.scores.get((name, metric), ())), None)
            if before is None or min(before.sample_count, measure.sample_count) < LEAST_SCORES:
                continue
            info = evidence.quality.evaluator.metrics[metric]
            was = _goodness(info, before.mean)
            errors = (
                standard_error(each.confidence_half_width, each.sample_count) / (info.maximum - info.minimum)
                for each in (before, measure)
            )
            fall = was - measure.goodness
            case = Case({"explainer": name, "metric": metric}, measure.goodness, was)
            yield case, fall > FALL and fall > STANDARD_ERRORS * math.hypot(*errors)


def _no_explainer_beats_controls(evidence: Evidence) -> Judged:
    standings = [each.standing for each in evidence.quality.explainers.values() if not each.is_control]
    # Prometheus waits for an hour, in which costly explainers are compared, too; they may be the good ones.
    wrong = bool(standings) and all(each is not None and not each.eligible for each in standings)
    return [Case({"model": evidence.model})] if wrong else []


def _maps_drifted(evidence: Evidence) -> Judged:
    return [
        Case({"explainer": name, "statistic": each.statistic})
        for name, explainer in evidence.quality.explainers.items()
        for each in explainer.drift
        if each.drifted
    ]


def _ood_share_rose(evidence: Evidence) -> Judged:
    share, was = evidence.quality.outlier_share, evidence.before.current
    if share is None:
        return []
    if was.ood_count < LEAST_WITH_OOD:
        return None
    risen = share > RISE * was.outlier_share and share > RISEN_SHARE and _has_enough_with_ood(evidence)
    return [Case({}, share, was.outlier_share)] if risen else []


def _ood_share_high(evidence: Evidence) -> Judged:
    share = evidence.quality.outlier_share
    high = share is not None and share > HIGH_SHARE and _has_enough_with_ood(evidence)
    return [Case({}, share)] if high else []


def _has_enough_with_ood(evidence: Evidence) -> bool:
    return evidence.with_ood_count >= LEAST_WITH_OOD


def _nothing_scored(evidence: Evidence) -> Judged:
    scored = [measure for each in evidence.quality.explainers.values() for measure in each.quality.values()]
    none = not evidence.done_count and not any(_is_recent(evidence, each) for each in scored)
    wrong = evidence.sampled_count >= LEAST_SAMPLED and none
    return [Case({})] if wrong else []


def _is_recent(evidence: Evidence, measure: QualityMeasure) -> bool:
    """Whether something was scored within the last hour."""
    return measure.update_time is not None and measure.update_time.timestamp() >= evidence.now - HOUR_SECONDS


CONDITIONS: Final[Mapping[str, Callable[[Evidence], Judged]]] = {
    "XaiQualityFell": _quality_fell,
    "XaiNoExplainerBeatsControls": _no_explainer_beats_controls,
    "XaiMapsDrifted": _maps_drifted,
    "XaiOodShareRose": _ood_share_rose,
    "XaiOodShareHigh": _ood_share_high,
    "XaiNothingScored": _nothing_scored,
}


def _goodness(info: MetricInfo, mean: float) -> float:
    """A mean score on the scale from 0 to 1, where 1 is best, as `QualityMeasure.goodness`."""
    part = min(max((mean - info.minimum) / (info.maximum - info.minimum), 0.0), 1.0)
    return part if info.higher_is_better else 1 - part


def standard_error(half_width: float, count: int) -> float:
    """The standard error of a mean, from half the width of its 95 % confidence interval by Student's t.

    The quantile of t is by the first terms of its expansion (Abramowitz, Stegun: Handbook of Mathematical Functions,
    26.7.5), right to 0.001 from 10 scores on. 0 where there is no interval: then all scores are the same.
    """
    if math.isnan(half_width):
        return 0.0
    freedom = count - 1
    first, second = (_Z**3 + _Z) / 4, (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96
    return half_width / (_Z + first / freedom + second / freedom**2)
