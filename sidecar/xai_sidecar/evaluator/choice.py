"""Resolves `auto`: the explainer with the best recent scores that beats the controls, as far as that is known."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from xai_sidecar.evaluator.comparison import Advantage, Verdict, Yardstick, goodness
from xai_sidecar.evaluator.quality_table import Statistics
from xai_sidecar.evaluator.weighted import ScoreStatistics
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.telemetry import EXPLAIN


@dataclass(frozen=True)
class Candidate:
    """An explainer that could be used.

    Attributes:
        name: Its name.
        expected_seconds: Expected time of an explanation if it were submitted now.
    """

    name: str
    expected_seconds: float


class Reason(enum.Enum):
    """Scores that a choice is based on."""

    BEST = "best"
    BEST_OF_CLASS = "best_of_class"
    FALLBACK = "fallback"


@dataclass(frozen=True)
class Choice:
    """The explainer that is used.

    Attributes:
        explainer: Its name.
        reason: Whether it is based on scores of all classes, on those of the class that is explained, or on none.
        explanation: The same in a sentence for the caller.
        composite: Its composite score, 0 to 1; None if the choice is not based on scores.
        advantage: By how much it beats the control that it beats by the least; None if it was not compared.
    """

    explainer: str
    reason: Reason
    explanation: str
    composite: float | None
    advantage: Advantage | None = None


def choose(
    candidates: Sequence[Candidate],
    statistics: Statistics,
    weights: Mapping[str, float],
    min_samples: int,
    budget_seconds: float | None,
    fallback: str,
    target: int,
    measuring: bool = True,
    yardstick: Yardstick | None = None,
) -> Choice:
    """Chooses the explainer with the highest composite score of those that fit the budget and beat the controls.

    The composite is the weighted mean of `goodness` over the metrics that all contenders have enough scores of, so that
    all are compared by the same; it uses the scores of the target's class alone where all contenders have enough of
    those. Maps that must not be believed, such as unreliable ones, have no scores, and count as the worst.
    An explainer that does not beat every control by the composite beyond chance, or that is worse than noise by a
    metric that vetoes, is not chosen however high its score is.
    Contenders are the candidates that fit the budget and have enough scores of some metric. While no metric is common
    to them, the one with the fewest metrics is dropped, of equals the last by name.

    Args:
        candidates: Explainers that could be used, at least one.
        statistics: Their scores.
        weights: By metric, at least 0. Metrics that are not there or weigh nothing do not count.
        min_samples: Fewest samples that are enough.
        budget_seconds: The longest expected time; None for no bound.
        fallback: The explainer to use where there are no contenders, if it fits the budget. If it does not, the
            cheapest that fits is used; where nothing fits, the fallback.
        target: The class that is explained.
        measuring: Whether anything is measured, so that there may be more scores later.
        yardstick: What the explainers have to beat; None for nothing.

    Raises:
        ValueError: There are no candidates.
    """
    if not candidates:
        raise ValueError("there is nothing to choose from")
    fitting = [each for each in candidates if budget_seconds is None or each.expected_seconds <= budget_seconds]
    seconds = {each.name: each.expected_seconds for each in fitting}
    contenders, metrics = _contest(seconds, statistics, weights, min_samples)
    if not contenders:
        why = "Nothing is measured, since evaluator.sample_rate is 0"
        if measuring:
            why = f"Too little is measured yet ({min_samples} samples of each metric are needed)"
        return _fallback_choice(candidates, fitting, why, budget_seconds, fallback)
    of_class = {name: _known(name, metrics, statistics, min_samples, target) for name in contenders}
    reason = Reason.BEST
    if all(len(known) == len(metrics) for known in of_class.values()):
        contenders, reason = of_class, Reason.BEST_OF_CLASS
    of = target if reason is Reason.BEST_OF_CLASS else None
    believed = {name: _believed_share(name, known, statistics, of) for name, known in contenders.items()}
    scores = {name: believed[name] * _composite(known, metrics, weights) for name, known in contenders.items()}
    ranking = sorted(contenders, key=lambda name: (-scores[name], seconds[name], name))
    contest = _Contest(ranking, metrics, weights, min_samples, of, yardstick)
    best, verdict, passed_over = contest.winner()
    if best is None:
        why = contest.no_winner(passed_over, more=len(scores) < len(fitting))
        return _fallback_choice(candidates, fitting, why, budget_seconds, fallback)
    score = f"composite score{' for this class' if reason is Reason.BEST_OF_CLASS else ''}"
    details = _details(scores[best], contenders[best], metrics, believed[best])
    those = f"{len(fitting)} explainers{_that_fit(budget_seconds)}"
    if len(scores) > 1:
        field = those if len(scores) == len(fitting) else f"{len(scores)} measured enough out of {those}"
        that = " of those that beat the controls" if passed_over else ""
        explanation = f"{best} has the best {score}{that}, {details}, of the {field}."
    elif len(fitting) > 1:
        explanation = f"Of the {those}, {best} is the only one measured enough. Its {score} is {details}."
    else:
        explanation = f"{best} is the only explainer{_that_fit(budget_seconds, 's')}. Its {score} is {details}."
    explanation += contest.certainty(best, verdict, passed_over)
    return Choice(best, reason, explanation, scores[best], verdict.least if verdict else None)


@dataclass(frozen=True)
class _Contest:
    """Contenders in the order of their composite scores, against each other and the controls; see `choose`."""

    ranking: Sequence[str]
    metrics: Sequence[str]
    weights: Mapping[str, float]
    min_samples: int
    target: int | None
    yardstick: Yardstick | None

    def winner(self) -> tuple[str | None, Verdict | None, dict[str, Verdict | None]]:
        """The first that may be chosen, if any, its verdict, and those before it with theirs."""
        passed_over: dict[str, Verdict | None] = {}
        for name in self.ranking:
            if self.yardstick is None or not self.yardstick.controls:
                return name, None, {}
            verdict = self.yardstick.verdict(name, self.metrics, self.weights, self.min_samples, self.target)
            if verdict is not None and verdict.eligible:
                return name, verdict, passed_over
            passed_over[name] = verdict
        return None, None, passed_over

    def no_winner(self, passed_over: Mapping[str, Verdict | None], *, more: bool) -> str:
        """Why nobody wins, as the beginning of a sentence.

        Args:
            passed_over: Those who do not, with why.
            more: Whether there are explainers that are not measured enough to be among them.
        """
        name, verdict = next(iter(passed_over.items()))
        if verdict is None:
            return f"Too few pictures have been compared with the controls yet ({self.min_samples} are needed)"
        who = "No explainer that is measured enough" if more else "No explainer"
        return f"{who} beats the controls: {name}, the best, {verdict.objection}"

    def certainty(self, best: str, verdict: Verdict | None, passed_over: Mapping[str, Verdict | None]) -> str:
        """By how much the winner wins and how surely, in sentences."""
        if self.yardstick is None or verdict is None:
            return ""
        text = f" It beats {verdict.least.over}, its closest control, by {verdict.least}"
        rest = self.ranking[self.ranking.index(best) + 1 :]
        if rest:
            ahead = self.yardstick.advantage(best, rest[0], self.metrics, self.weights, self.min_samples, self.target)
            if ahead is not None:
                text += f", and {rest[0]}, the next, by {ahead}{'' if ahead.sure else ', which may be chance'}"
        text += " (with 95 % confidence)."
        for name, why in passed_over.items():
            text += f" {name} scores higher, but {why.objection}." if why else f" {name} is not compared enough yet."
        return text


def composites(
    names: Iterable[str],
    statistics: Statistics,
    weights: Mapping[str, float],
    min_samples: int,
    controls: Iterable[str] = (),
) -> dict[str, float | None]:
    """The composite score of each explainer, as `choose` computes it without a budget, over all classes.

    Args:
        names: The explainers.
        statistics: Their scores.
        weights: As of `choose`.
        min_samples: As of `choose`.
        controls: What is scored by the same metrics, and has no say in which these are.

    Returns:
        By name; None where it is not known.
    """
    names, controls = list(names), list(controls)
    contenders, metrics = _contest(names, statistics, weights, min_samples)
    for control in controls:
        known = _known(control, metrics, statistics, min_samples)
        if metrics and len(known) == len(metrics):
            contenders[control] = known
    found = {
        name: _believed_share(name, known, statistics, None) * _composite(known, metrics, weights)
        for name, known in contenders.items()
    }
    return {name: found.get(name) for name in (*names, *controls)}


def verdicts(
    names: Iterable[str],
    statistics: Statistics,
    weights: Mapping[str, float],
    min_samples: int,
    yardstick: Yardstick,
) -> dict[str, Verdict]:
    """Whether `auto` may choose each explainer, over all classes, by name; without those that are not compared yet."""
    contenders, metrics = _contest(names, statistics, weights, min_samples)
    found = ((name, yardstick.verdict(name, metrics, weights, min_samples)) for name in contenders)
    return {name: verdict for name, verdict in found if verdict is not None}


def _known(
    name: str, metrics: Iterable[str], statistics: Statistics, min_samples: int, target: int | None = None
) -> dict[str, ScoreStatistics]:
    """The metrics that an explainer has enough scores of, with their statistics."""
    found = ((metric, statistics(name, metric, target)) for metric in metrics)
    return {metric: each for metric, each in found if each is not None and each.count >= min_samples}


def _contest(
    names: Iterable[str], statistics: Statistics, weights: Mapping[str, float], min_samples: int
) -> tuple[dict[str, dict[str, ScoreStatistics]], list[str]]:
    """The contenders with their statistics by metric, and the metrics that are common to them; see `choose`."""
    weighted = [metric for metric, weight in weights.items() if weight > 0]
    known = {name: _known(name, weighted, statistics, min_samples) for name in names}
    contenders = {name: known[name] for name in sorted(known) if known[name]}
    while contenders:
        common = [metric for metric in weighted if all(metric in each for each in contenders.values())]
        if common:
            return contenders, common
        fewest = min(map(len, contenders.values()))
        del contenders[max(name for name, each in contenders.items() if len(each) == fewest)]
    return {}, []


def _composite(known: Mapping[str, ScoreStatistics], metrics: Sequence[str], weights: Mapping[str, float]) -> float:
    weighted = math.fsum(
        weights[metric] * goodness(installed_metrics()[metric], known[metric].mean) for metric in metrics
    )
    return weighted / math.fsum(weights[metric] for metric in metrics)


def _believed_share(
    name: str, known: Mapping[str, ScoreStatistics], statistics: Statistics, target: int | None
) -> float:
    """The share of an explainer's maps that can be believed: only these have scores."""
    lost = statistics(name, EXPLAIN, target)
    scored = max(each.total_weight for each in known.values())
    return 1.0 if lost is None else scored / (scored + lost.total_weight)


def _fallback_choice(
    candidates: Sequence[Candidate],
    fitting: Sequence[Candidate],
    why: str,
    budget_seconds: float | None,
    fallback: str,
) -> Choice:
    """The choice where no explainer has enough scores."""
    if not fitting:
        why = f"There is no explainer{_that_fit(budget_seconds, 's')}"
    names = {each.name for each in fitting or candidates}
    if fallback in names:
        return Choice(fallback, Reason.FALLBACK, f"{why}: the configured default.", None)
    cheapest = min(fitting or candidates, key=lambda each: (each.expected_seconds, each.name)).name
    but = "is too slow" if any(each.name == fallback for each in candidates) else "cannot be used"
    explanation = f"{why}, and the configured default, {fallback}, {but}: the cheapest one."
    return Choice(cheapest, Reason.FALLBACK, explanation, None)


def _details(composite: float, known: Mapping[str, ScoreStatistics], metrics: Sequence[str], believed: float) -> str:
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
