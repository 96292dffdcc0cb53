"""What the server tells in its own words, in the viewer's language as far as its kind is known."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from xai_client import AutoChoice, Explanation, ImageError, QualityAlert, Standing, XaiError
from xai_client.types import Advantage
from xai_console.alerts import Alert, Case
from xai_console.figures import number
from xai_console.words import Words

_LABEL: Final = re.compile(r"{{ \$labels\.(\w+) }}")
_SENTENCE: Final = re.compile(r"(?<=[.])\s+(?=[A-Z(])|(?<=。)")


def error(failure: XaiError, say: Words) -> str:
    """What went wrong."""
    kind = "image" if isinstance(failure, ImageError) else failure.code
    return say.told(f"error.{kind}", failure.message)


def status(explanation: Explanation, say: Words) -> str:
    """Why an explanation is not complete."""
    key, message = f"status.{explanation.status}", explanation.status_message
    return say.told(key, message) if message else say(key)


def choice(made: AutoChoice, say: Words) -> str:
    """Why `auto` takes an explainer."""
    advantage = "" if made.advantage is None else say.told("choice.advantage", "", **_amounts(made.advantage))
    score = "–" if made.composite_score is None else number(made.composite_score)
    return say.told(f"choice.{made.kind}", made.reason, score=score, advantage=advantage)


def objection(standing: Standing, say: Words) -> str:
    """Why `auto` takes an explainer under no circumstances."""
    advantage = standing.advantage
    sure = advantage.mean - advantage.confidence_half_width > 0
    return say.told(f"objection.{'veto' if sure else 'chance'}", standing.objection, **_amounts(advantage))


def alert_summary(alert: Alert, cases: Sequence[Case]) -> str:
    """What is the matter, and of what."""
    labels = {
        name: ", ".join(dict.fromkeys(each.labels[name] for each in cases))
        for name in (cases[0].labels if cases else ())
    }
    return _LABEL.sub(lambda label: labels[label[1]], alert.summary)


def alert_meaning(alert: Alert) -> str:
    """What an alert means, in a sentence."""
    return _SENTENCE.split(alert.means)[0].replace("`", "")


def served_summary(told: QualityAlert, say: Words) -> str:
    """What is the matter, as the server says it."""
    return say.told(f"served.{told.name}", told.summary)


def served_advice(told: QualityAlert, say: Words) -> str:
    """What to do, as the server says it."""
    return say.told(f"advice.{told.name}", told.advice)


def _amounts(advantage: Advantage) -> Mapping[str, object]:
    return {
        "over": advantage.over,
        "mean": number(advantage.mean),
        "half": number(advantage.confidence_half_width),
    }
