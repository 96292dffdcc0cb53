"""What explanations take as a whole, as things are: the passes, and the arithmetic between them."""

from __future__ import annotations

from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.work import Kind

_WEIGHT = 0.3
"""Of the last explanation in the average."""

_BOUNDS = (1.0, 8.0)
"""An explanation that took longer than its passes by more than this was held up by something else."""


class ExplanationCosts:
    """Estimates times of whole explanations: one estimate for what callers are told and for what is decided by it.

    Passes are predicted by what batches have taken recently. What comes on top of them, such as making masks and
    working out the maps, is learned from explanations that had the device to themselves, as a ratio for each explainer.
    Until there is one, the beginning of one that was run at start has to do.

    Args:
        engine: Knows what passes take, and what runs.
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
        """Takes down what an explanation took that had the device to itself, and what of it the device ran its passes.

        That is of its own passes: what others take by the time that it ends may be far from it.
        """
        if device_seconds > 0:
            ratio = _bounded(seconds / device_seconds)
            before = self._ratios.get(explainer, ratio)
            self._ratios[explainer] = (1 - _WEIGHT) * before + _WEIGHT * ratio

    def tried(self, explainer: str, device_seconds: float, seconds: float) -> None:
        """Takes down what the beginning of one took at start; of use until a whole one has been run."""
        if device_seconds > 0:
            self._at_start[explainer] = _bounded(seconds / device_seconds)

    def ratio(self, explainer: str) -> float:
        """What an explanation takes as a whole, over what its passes take; 1 where nothing has been measured."""
        return self._ratios.get(explainer, self._at_start.get(explainer, 1.0))

    def alone(self, explainer: str, kind: Kind, pass_count: int) -> float:
        """Seconds that an explanation, or a part of one, would take now on a device that does nothing else."""
        return self.ratio(explainer) * self._engine.seconds(kind, pass_count)

    def beside_predictions(self, seconds: float) -> float:
        """Seconds that explanations take that take so long alone, with the predictions that come now."""
        return seconds / self._engine.explain_share

    def seconds(self, explainer: str, kind: Kind, pass_count: int) -> float:
        """Seconds that an explanation would take now, beside those that run and the predictions that come."""
        return self.beside_predictions(self.alone(explainer, kind, pass_count) * (1 + self.explaining))


def _bounded(ratio: float) -> float:
    low, high = _BOUNDS
    return min(max(ratio, low), high)
