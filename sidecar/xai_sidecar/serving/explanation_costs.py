"""Cost model of whole explanations: the passes through the model, and what comes on top of them."""

from __future__ import annotations

from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.work import Kind


class ExplanationCosts:
    """Estimates the seconds that explanations take, for admission, budgets, `auto` and `GetModelInfo` alike.

    All of them use the rate at which the engine gets through explanations now, see `Slowdown`. Trials at start are the
    first to tell.

    Args:
        engine: Knows that rate, and how many explanations run.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def explaining(self) -> int:
        """How many explanations are in progress."""
        return self._engine.explaining

    def ratio(self, explainer: str) -> float:
        """Time of an explanation, as a rule, over that of its passes as measured at start; 1 where none has run."""
        return self._engine.usual_slowdown(explainer)

    def alone(self, explainer: str, kind: Kind, pass_count: int) -> float:
        """Seconds that an explanation, or a part of one with so many passes, takes on a device without other work."""
        return self._engine.explaining_seconds(explainer, kind, pass_count)

    def beside_predictions(self, seconds: float) -> float:
        """Seconds that explanations of so many seconds alone take beside the current rate of predictions."""
        return seconds / self._engine.explain_share

    def seconds(self, explainer: str, kind: Kind, pass_count: int) -> float:
        """Seconds that an explanation takes beside the explanations that run and the current rate of predictions."""
        return self.beside_predictions(self.alone(explainer, kind, pass_count) * (1 + self.explaining))
