"""The scores of one map, as lines below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xai_client.samples import SampleExplanation, SampleScore
from xai_console.figures import number
from xai_console.words import Words


def score_lines(
    say: Words, made: SampleExplanation, before: Mapping[str, float], order: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """A line for each metric: its short name, and the score or why there is none.

    Args:
        say: The words of the page.
        made: What an explainer made.
        before: Scores by metric before the last change, so that what has changed shows.
        order: Metrics, in the order in which they are listed; others follow.
    """
    names = [*(name for name in order if name in made.scores), *(name for name in made.scores if name not in order)]
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
