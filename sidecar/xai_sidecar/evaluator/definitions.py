"""Definitions of maps and scores: digests of what they mean, so that only comparable ones are put together.

They tell nothing of releases: an upgrade keeps what was measured, but for what an explainer or a metric says to compute
otherwise now by its `version`.
"""

from __future__ import annotations

from typing import Any

from xai_sidecar.digest import digest
from xai_sidecar.explainers.base import Explainer, ExplainerParameters
from xai_sidecar.metrics.base import Metric, MetricParameters

_PROTOCOL_VERSION = 3
"""Raised when the meaning of all scores changes, so that older ones are not comparable. Changes of one explainer or
metric raise a version of its own. 2: in picture units. 3: none by noise."""


def map_definition(explainer: Explainer[Any], parameters: ExplainerParameters, tolerance: float = 0.0) -> str:
    """The definition of an explainer's maps.

    Args:
        explainer: The explainer.
        parameters: Its parameters, resolved.
        tolerance: Relative standard error at which the evaluator makes its maps no better; 0 for none.
    """
    changed = parameters.model_dump(mode="json", exclude_defaults=True)
    made = [tolerance] if tolerance else []
    return digest(_PROTOCOL_VERSION, explainer.name, explainer.version, changed, *made)


def score_definition(of_map: str, metric: Metric[Any], parameters: MetricParameters) -> str:
    """The definition of a metric's scores with some parameters.

    Args:
        of_map: The definition of the map that is scored.
        metric: The metric.
        parameters: Its parameters.
    """
    changed = parameters.model_dump(mode="json", exclude_defaults=True)
    return digest(of_map, metric.name, metric.version, changed)


class ScoreDefinitions:
    """`score_definition`, worked out once for each map and metric, which has the same parameters always."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def __call__(self, of_map: str, metric: Metric[Any], parameters: MetricParameters) -> str:
        """See `score_definition`."""
        key = of_map, metric.name
        if key not in self._known:
            self._known[key] = score_definition(of_map, metric, parameters)
        return self._known[key]
