"""The scores of one map: the one that leads in its corner, the others as lines below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xai_client import ModelInfo
from xai_client.samples import SampleExplanation, SampleScore
from xai_console.figures import number
from xai_console.overlay import Badge
from xai_console.page import Page
from xai_console.words import Words


def metric_order(page: Page, info: ModelInfo) -> list[str]:
    """The evaluator's metrics; the one by which the viewer has put samples in order is the first."""
    metrics = info.evaluator.metrics if info.evaluator is not None else ()
    return sorted(metrics, key=lambda name: name != page.state.get("metric"))


def leading_hint(say: Words, order: Sequence[str]) -> str:
    """Says which score stands in the corner of maps; empty where none does.

    Args:
        say: The words of the page.
        order: See `metric_order`.
    """
    return say("maps.corner", metric=metric_name(say, order[0])) if order else ""


def score_badge(
    say: Words, made: SampleExplanation | None, before: Mapping[str, float], order: Sequence[str]
) -> Badge | None:
    """The score by the first metric, or why there is none; None where nothing is measured at all.

    Args:
        say: The words of the page.
        made: What an explainer made; None of a map that the evaluator does not measure.
        before: Scores by metric before the last change, so that what has changed shows.
        order: See `metric_order`.
    """
    if not order:
        return None
    score = made.scores.get(order[0]) if made is not None else None
    shown = say("not_measured") if score is None else _value(say, score, before.get(order[0]))
    return Badge(shown, f"{metric_name(say, order[0])}: {shown}")


def score_lines(
    say: Words, made: SampleExplanation, before: Mapping[str, float], order: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """A line for each metric but the first of an order: its short name, and the score or why there is none.

    Args:
        say: The words of the page.
        made: What an explainer made.
        before: Scores by metric before the last change, so that what has changed shows.
        order: See `metric_order`; scores by other metrics follow.
    """
    names = [*(name for name in order[1:] if name in made.scores), *(name for name in made.scores if name not in order)]
    return [(metric_name(say, name), _value(say, made.scores[name], before.get(name))) for name in names]


def metric_name(say: Words, metric: str) -> str:
    """A metric's name, for people; without its family."""
    short = metric.rpartition("/")[2]
    return say.either(f"metric.{short}", short.replace("_", " "))


def _value(say: Words, score: SampleScore, before: float | None) -> str:
    if score.value is None:
        return say.either(f"score.{score.status}", score.status.replace("_", " "))
    shown = number(score.value)
    arrow = "↑" if score.higher_is_better else "↓"
    if before is not None and number(before) != shown:
        return f"{number(before)} → {shown} {arrow}"
    return f"{shown} {arrow}"
