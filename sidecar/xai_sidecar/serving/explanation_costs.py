"""Cost model of whole explanations: the passes through the model, and the arithmetic between them."""

from __future__ import annotations

from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.work import Kind

_WEIGHT = 0.3
"""Weight of the latest explanation in the moving average."""

_BOUNDS = (1.0, 8.0)
"""Least and largest ratio: what took longer was held up by something else."""


class ExplanationCosts:
    """Estimates the seconds that explanations take, for admission, budgets, `auto` and `GetModelInfo` alike.

    The engine estimates the time of passes from recent batches. What comes on top, such as making masks and computing
    maps, is learned for each explainer as a ratio, from explanations that ran while no other did. Until one has, a
    trial at start gives the ratio.

    Args:
        engine: Estimates the time of passes, and knows how many explanations run.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ratios: dict[str, float] = {}
        self._at_start: dict[str, float] = {}

    @property
    def explaining(self) -> int:
        """How many explanations are in progress."""
        return self._engine.explaining

    def ran(self, explainer: str, device_seconds: float, seconds: float) -> None:
        """Learns from an explanation that ran while no other did.

        Args:
            explainer: Name of the explainer.
            device_seconds: Time that the device spent on its own passes.
            seconds: Time from being submitted to being done.
        """
        if device_seconds > 0:
            ratio = _bounded(seconds / device_seconds)
            before = self._ratios.get(explainer, ratio)
            self._ratios[explainer] = (1 - _WEIGHT) * before + _WEIGHT * ratio

    def tried(self, explainer: str, device_seconds: float, seconds: float) -> None:
        """Learns from a trial at start, whose ratio holds until a whole explanation has run; see `ran`."""
        if device_seconds > 0:
            self._at_start[explainer] = _bounded(seconds / device_seconds)

    def ratio(self, explainer: str) -> float:
        """Time of a whole explanation over that of its passes; 1 where nothing has been measured."""
        return self._ratios.get(explainer, self._at_start.get(explainer, 1.0))

    def alone(self, explainer: str, kind: Kind, pass_count: int) -> float:
        """Seconds that an explanation, or a part of one with so many passes, takes on a device without other work."""
        return self.ratio(explainer) * self._engine.seconds(kind, pass_count)

    def beside_predictions(self, seconds: float) -> float:
        """Seconds that explanations of so many seconds alone take beside the current rate of predictions."""
        return seconds / self._engine.explain_share

    def seconds(self, explainer: str, kind: Kind, pass_count: int) -> float:
        """Seconds that an explanation takes beside the explanations that run and the current rate of predictions."""
        return self.beside_predictions(self.alone(explainer, kind, pass_count) * (1 + self.explaining))


def _bounded(ratio: float) -> float:
    low, high = _BOUNDS
    return min(max(ratio, low), high)
