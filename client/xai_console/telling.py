"""What the server tells in its own words, in the viewer's language as far as its kind is known."""

from __future__ import annotations

from collections.abc import Mapping

from xai_client import AutoChoice, Quality, Standing, XaiError
from xai_client.types import Advantage
from xai_console.figures import number, percent
from xai_console.words import Words


def error(failure: XaiError, say: Words) -> str:
    """What went wrong."""
    return say.told(f"error.{failure.code}", failure.message)


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


def alert_values(quality: Quality) -> Mapping[str, object]:
    """What alerts are about."""
    drifted = sorted(name for name, each in quality.explainers.items() if any(one.drifted for one in each.drift))
    share = quality.outlier_share
    return {"names": ", ".join(drifted), "share": "–" if share is None else percent(share)}


def _amounts(advantage: Advantage) -> Mapping[str, object]:
    return {
        "over": advantage.over,
        "mean": number(advantage.mean),
        "half": number(advantage.confidence_half_width),
    }
