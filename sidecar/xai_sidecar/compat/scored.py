"""A net's backend with the scores of an OoD net that a script holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xai_sidecar.backends.mindspore.backend import MindSporeBackend
from xai_sidecar.compat.model import Scores, with_scores
from xai_sidecar.engine.backend import Report
from xai_sidecar.engine.work import Array, Kind

_BATCH = 32


class ScoredBackend:
    """A backend that passes on to another one, and asks an OoD net where scores are wanted.

    Args:
        backend: The net's own; whoever gave it closes it.
        scores: Gives scores; None where there is no OoD net.
    """

    def __init__(self, backend: MindSporeBackend, scores: Scores | None) -> None:
        self._backend = backend
        self._run = backend.run if scores is None else with_scores(backend.run, scores, _BATCH)
        self.is_scored = scores is not None
        self.ood = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def warm_up(self, kinds: list[Kind], report: Report) -> Mapping[Kind, str]:
        """Compiles nothing: the net has been compiled, and what else is asked of it is when it is first asked."""
        return {}

    def costs(self, kind: Kind) -> Mapping[int, float]:
        """See `Backend.costs`."""
        return self._backend.costs(kind)

    def run(self, kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """See `Backend.run`."""
        return self._run(kind, rows)

    def close(self) -> None:
        """Does nothing: the net goes on to be explained."""
