"""What explanations take as a whole, as things are: the passes, and the arithmetic between them."""

from __future__ import annotations

from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.work import Kind

_WEIGHT = 0.3
"""Of the last explanation in the average."""

_BOUNDS = (0.5, 8.0)
"""An explanation that took longer than its passes by more than this was held up by something else."""


class ExplanationCosts:
    """Estimates times of whole explanations.

    Passes are predicted by what launches have taken recently. What comes on top of them, such as making masks and
    working out the maps, is learned from explanations that had the device to themselves, as a ratio for each explainer.

    Args:
        engine: Knows what passes take.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ratios: dict[str, float] = {}

    def ran(self, explainer: str, kind: Kind, pass_count: int, seconds: float) -> None:
        """Takes down what an explanation took that had the device to itself."""
        passes = self._engine.seconds(kind, pass_count)
        if passes > 0:
            low, high = _BOUNDS
            ratio = min(max(seconds / passes, low), high)
            before = self._ratios.get(explainer, ratio)
            self._ratios[explainer] = (1 - _WEIGHT) * before + _WEIGHT * ratio

    def ratio(self, explainer: str) -> float:
        """What an explanation takes as a whole, over what its passes take; 1 until one has been measured."""
        return self._ratios.get(explainer, 1.0)

    def seconds(self, explainer: str, kind: Kind, pass_count: int) -> float:
        """Seconds that an explanation would take now, beside those that run and the predictions that come."""
        alone = self.ratio(explainer) * self._engine.seconds(kind, pass_count)
        return alone * (1 + self._engine.explaining) / self._engine.explain_share
