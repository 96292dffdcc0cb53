"""Which explainer `auto` means: the one that has been best of late, as far as that is known."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from xai_sidecar.evaluator.windows import Estimate
from xai_sidecar.metrics.base import Metric
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.telemetry import EXPLAIN

Estimates: TypeAlias = Callable[[str, str, int | None], Estimate | None]
"""What is known of an explainer by a metric, of all classes (None) or of one; by `EXPLAIN` of the maps that it made and
that must not be believed."""


def goodness(benchmark: Metric[Any], mean: float) -> float:
    """A mean score on the scale from 0, the worst that the benchmark could give, to 1, the best."""
    low, high = benchmark.value_range
    part = min(max((mean - low) / (high - low), 0.0), 1.0)
    return part if benchmark.higher_is_better else 1 - part


def goodness_error(benchmark: Metric[Any], standard_error: float | None) -> float | None:
    """The standard error of a mean score on the scale of `goodness`; None for None."""
    low, high = benchmark.value_range
    return None if standard_error is None else standard_error / (high - low)


@dataclass(frozen=True)
class QualityRow:
    """How good an explainer is by one metric.

    Attributes:
        explainer: Its name.
        metric: The benchmark's name.
        estimate: What its scores come to.
        higher_is_better: Whether a higher score is a better one.
        goodness: The mean on the scale from 0 to 1, where 1 is best.
        goodness_error: Its standard error; None for a single sample.
    """

    explainer: str
    metric: str
    estimate: Estimate
    higher_is_better: bool
    goodness: float
    goodness_error: float | None


@dataclass(frozen=True)
class QualityTable:
    """How good the explainers are.

    Attributes:
        rows: By explainer, then by metric; without those of which nothing is known.
    """

    rows: tuple[QualityRow, ...] = ()


def quality_table(names: Iterable[str], metrics: Sequence[str], estimates: Estimates) -> QualityTable:
    """The table of some explainers by some metrics, in the order given, over all classes."""
    rows = []
    for name in names:
        for metric in metrics:
            estimate = estimates(name, metric, None)
            if estimate is not None:
                benchmark = installed_metrics()[metric]
                good, error = goodness(benchmark, estimate.mean), goodness_error(benchmark, estimate.standard_error)
                rows.append(QualityRow(name, metric, estimate, benchmark.higher_is_better, good, error))
    return QualityTable(tuple(rows))


@dataclass(frozen=True)
class Candidate:
    """An explainer that could be used.

    Attributes:
        name: Its name.
        expected_seconds: What it would take now.
    """

    name: str
    expected_seconds: float


class Reason(enum.Enum):
    """What a choice goes by."""

    BEST = "best"
    BEST_OF_CLASS = "best_of_class"
    FALLBACK = "fallback"


@dataclass(frozen=True)
class Choice:
    """The explainer that is used.

    Attributes:
        explainer: Its name.
        reason: What the choice goes by: scores of all classes, scores of the class that is explained, or none.
        explanation: The same in a sentence for the caller.
        composite: Its composite score, 0 to 1; None if the choice does not go by scores.
    """

    explainer: str
    reason: Reason
    explanation: str
    composite: float | None


def choose(
    candidates: Sequence[Candidate],
    estimates: Estimates,
    weights: Mapping[str, float],
    min_samples: int,
    budget_seconds: float | None,
    fallback: str,
    target: int,
    measuring: bool = True,
) -> Choice:
    """Chooses the explainer with the highest composite score of those that fit the budget.

    The composite is the weighted mean of `goodness`, by the metrics that are known of all contenders, so that all are
    measured alike; where these are known of all contenders for the target's class, by the scores of that class alone.
    Maps that must not be believed, such as unreliable ones, have no scores, and count as the worst.
    Contenders are the candidates that fit the budget and of which something is known. If no metric is common to them,
    the one with the fewest leaves, of equals the last by name, until there is one.

    Args:
        candidates: Explainers that could be used, at least one.
        estimates: What is known of them.
        weights: By metric, at least 0. Metrics that are not there or weigh nothing do not count.
        min_samples: What fewer samples say is not known.
        budget_seconds: The longest that it may take; None for no bound.
        fallback: The explainer to use where nothing is known, if it fits the budget. If it does not, the cheapest is
            used; where nothing fits, the fallback, whatever it takes.
        target: The class that is explained.
        measuring: Whether anything is measured, so that more can be known later.

    Raises:
        ValueError: There are no candidates.
    """
    if not candidates:
        raise ValueError("there is nothing to choose from")
    fitting = [each for each in candidates if budget_seconds is None or each.expected_seconds <= budget_seconds]
    seconds = {each.name: each.expected_seconds for each in fitting}
    contenders, metrics = _contest(seconds, estimates, weights, min_samples)
    if not contenders:
        why = "Nothing is measured, since evaluator.sample_rate is 0"
        if measuring:
            why = f"Too little is measured yet ({min_samples} samples of each metric are needed)"
        return _fallen_back(candidates, fitting, why, budget_seconds, fallback)
    of_class = {name: _known(name, metrics, estimates, min_samples, target) for name in contenders}
    reason = Reason.BEST
    if all(len(known) == len(metrics) for known in of_class.values()):
        contenders, reason = of_class, Reason.BEST_OF_CLASS
    of = target if reason is Reason.BEST_OF_CLASS else None
    believed = {name: _believed_share(name, known, estimates, of) for name, known in contenders.items()}
    scores = {name: believed[name] * _composite(known, metrics, weights) for name, known in contenders.items()}
    best = min(contenders, key=lambda name: (-scores[name], seconds[name], name))
    score = f"composite score{' for this class' if reason is Reason.BEST_OF_CLASS else ''}"
    details = _details(scores[best], contenders[best], metrics, believed[best])
    those = f"{len(fitting)} explainers{_that_fit(budget_seconds)}"
    if len(scores) > 1:
        field = those if len(scores) == len(fitting) else f"{len(scores)} measured enough out of {those}"
        told = f"{best} has the best {score}, {details}, of the {field}."
    elif len(fitting) > 1:
        told = f"Of the {those}, {best} is the only one measured enough. Its {score} is {details}."
    else:
        told = f"{best} is the only explainer{_that_fit(budget_seconds, 's')}. Its {score} is {details}."
    return Choice(best, reason, told, scores[best])


def composites(
    names: Iterable[str], estimates: Estimates, weights: Mapping[str, float], min_samples: int
) -> dict[str, float | None]:
    """The composite score of each explainer as `choose` has it without a budget, over all classes.

    Returns:
        By name; None where it is not known.
    """
    names = list(names)
    contenders, metrics = _contest(names, estimates, weights, min_samples)
    found = {
        name: _believed_share(name, known, estimates, None) * _composite(known, metrics, weights)
        for name, known in contenders.items()
    }
    return {name: found.get(name) for name in names}


def _known(
    name: str, metrics: Iterable[str], estimates: Estimates, min_samples: int, target: int | None = None
) -> dict[str, Estimate]:
    """What is known of an explainer, by metric."""
    found = ((metric, estimates(name, metric, target)) for metric in metrics)
    return {metric: each for metric, each in found if each is not None and each.count >= min_samples}


def _contest(
    names: Iterable[str], estimates: Estimates, weights: Mapping[str, float], min_samples: int
) -> tuple[dict[str, dict[str, Estimate]], list[str]]:
    """The contenders with what is known of them, and the metrics that they are compared by."""
    weighted = [metric for metric, weight in weights.items() if weight > 0]
    known = {name: _known(name, weighted, estimates, min_samples) for name in names}
    contenders = {name: known[name] for name in sorted(known) if known[name]}
    while contenders:
        common = [metric for metric in weighted if all(metric in each for each in contenders.values())]
        if common:
            return contenders, common
        fewest = min(map(len, contenders.values()))
        del contenders[max(name for name, each in contenders.items() if len(each) == fewest)]
    return {}, []


def _composite(known: Mapping[str, Estimate], metrics: Sequence[str], weights: Mapping[str, float]) -> float:
    weighted = math.fsum(
        weights[metric] * goodness(installed_metrics()[metric], known[metric].mean) for metric in metrics
    )
    return weighted / math.fsum(weights[metric] for metric in metrics)


def _believed_share(name: str, known: Mapping[str, Estimate], estimates: Estimates, target: int | None) -> float:
    """The part of an explainer's maps that can be believed: only these have scores."""
    lost = estimates(name, EXPLAIN, target)
    scored = max(each.count for each in known.values())
    return 1.0 if lost is None else scored / (scored + lost.count)


def _fallen_back(
    candidates: Sequence[Candidate],
    fitting: Sequence[Candidate],
    why: str,
    budget_seconds: float | None,
    fallback: str,
) -> Choice:
    """The choice where nothing is known."""
    if not fitting:
        why = f"There is no explainer{_that_fit(budget_seconds, 's')}"
    names = {each.name for each in fitting or candidates}
    if fallback in names:
        return Choice(fallback, Reason.FALLBACK, f"{why}: the configured default.", None)
    cheapest = min(fitting or candidates, key=lambda each: (each.expected_seconds, each.name)).name
    but = "is too slow" if any(each.name == fallback for each in candidates) else "cannot be used"
    told = f"{why}, and the configured default, {fallback}, {but}: the cheapest one."
    return Choice(cheapest, Reason.FALLBACK, told, None)


def _details(composite: float, known: Mapping[str, Estimate], metrics: Sequence[str], believed: float) -> str:
    parts = (
        f"{metric.rpartition('/')[2]} {goodness(installed_metrics()[metric], known[metric].mean):.2f}"
        for metric in metrics
    )
    count = min(known[metric].count for metric in metrics)
    but = f"; {100 * believed:.0f} % of its maps can be believed" if believed < 1 else ""
    return f"{composite:.2f} of 1 ({', '.join(parts)}; {count} samples or more{but})"


def _that_fit(budget_seconds: float | None, ending: str = "") -> str:
    if budget_seconds is None:
        return ""
    budget = f"{budget_seconds:.3g} s" if budget_seconds >= 1 else f"{1e3 * budget_seconds:.3g} ms"
    return f" that fit{ending} the budget of {budget}"
