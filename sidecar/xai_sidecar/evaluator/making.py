"""Making the maps that are measured: only as exactly as measuring needs them, and from the passes of others."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

from xai_sidecar.engine.work import Kind, MaskedForward, MaskedOodScore, Partial, Steps, Work
from xai_sidecar.explainers.base import Explainer, ExplainerParameters, Saliency
from xai_sidecar.explainers.looks import FIRST_LOOK, next_look

_MOST_MORE = 2
"""How many times as many passes as the first map the others may take to be believed."""


def until_good(
    steps: Steps[Saliency], tolerance: float, asks: Callable[[Work], None] = lambda work: None
) -> Generator[Work, Any, Saliency]:
    """An explanation without its partial results that ends once its first map is good enough.

    The maps of other classes are of the same passes. Where one of them must not be believed yet, as that of the least
    probable class where hardly any mask raises its probability, more are made, up to twice as many: what compares the
    classes would else pass over just the pictures on which they differ the most.

    Args:
        steps: The explanation.
        tolerance: Relative standard error of the first map that is good enough; 0 for none.
        asks: Called with each piece of work before it is yielded.
    """
    passes, enough, look, sent = 0, 0, float(FIRST_LOOK), None
    with closing(steps):
        while True:
            try:
                work = steps.send(sent)
            except StopIteration as stop:
                made: Saliency = stop.value
                return made
            if not isinstance(work, Partial):
                asks(work)
                passes += len(work.rows[0])
                sent = yield work
                continue
            sent = None
            if tolerance and passes >= look:
                partial = work.make()
                if _good(partial, tolerance):
                    enough = enough or _MOST_MORE * passes
                    if passes >= enough or all(status.believed for status in partial.statuses):
                        return partial
                look = next_look(passes, _error(partial), tolerance)


def _good(saliency: Saliency, tolerance: float) -> bool:
    return saliency.statuses[0].believed and _error(saliency) <= tolerance


def _error(saliency: Saliency) -> float:
    """The standard error of the first map; NaN if it has none."""
    return math.nan if saliency.standard_errors is None else float(saliency.standard_errors[0])


def share_passes(
    one: tuple[Explainer[Any], ExplainerParameters], other: tuple[Explainer[Any], ExplainerParameters]
) -> bool:
    """Whether the second explainer can be sent the first one's logits: random masks, drawn in the same way, of both."""
    kinds = [explainer.kind(parameters) for explainer, parameters in (one, other)]
    wanted: list[Kind] = [MaskedOodScore.kind, MaskedForward.kind]
    return kinds == wanted and one[0].is_random and other[0].is_random and one[1] == other[1]
