"""What measuring costs: the passes of a sample, what comes first, and how often what costs more is worth it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.engine.work import FloatArray, Kind, MaskedForward, drive
from xai_sidecar.evaluator.measurement import EvaluatedModel, Measurer, shares
from xai_sidecar.evaluator.runs import Tally
from xai_sidecar.metrics.base import Metric, Need, whole
from xai_sidecar.metrics.instance import Instance

FLOOR = 1 / 16
"""Share of the pictures on which everything is measured, however much it costs, so that a change is noticed."""


class Costs:
    """What measuring a sample costs, in passes.

    Args:
        measurer: Makes the measurements.
        model: The model.
        settings: The evaluator's section of the config.

    Attributes:
        lead: The metrics that are measured first, and all come from the passes of the first of them, which is one that
            counts for the composite score, if there is one. Empty where none perturbs pictures.
    """

    def __init__(self, measurer: Measurer, model: EvaluatedModel, settings: EvaluatorConfig) -> None:
        self._measurer = measurer
        self._model = model
        self._perturbing = [
            (metric, settings.parameters_of(metric))
            for metric in sorted(measurer.perturbing, key=lambda each: not settings.auto.weights.get(each.name))
            if metric.pass_count(settings.parameters_of(metric), model.facts) <= settings.max_passes
        ]
        self._rows = self._perturbed_rows()
        self.lead: tuple[str, ...] = tuple(
            name for place, (name, rows) in enumerate(self._rows) if not place or not rows
        )
        self._max_passes = settings.max_passes

    def share(self, explainer: str, metric: str) -> float:
        """The share of the pictures on which a metric is worth its passes.

        A metric that is not among the first ones gets as many passes as a map with these on average, but for a floor.
        """
        if metric in self.lead:
            return 1.0
        first = self._measurer.map_passes(explainer) + self.first_passes
        passes = self.passes(explainer, metric)
        return 1.0 if passes <= first else max(FLOOR, first / passes)

    @property
    def first_passes(self) -> int:
        """The passes of one map's first scores."""
        return sum(rows for name, rows in self._rows if name in self.lead)

    def passes(self, explainer: str, metric: str) -> int:
        """The most passes of a metric for one map, beyond those that are made anyway."""
        perturbed = dict(self._rows)
        if metric in perturbed:
            return perturbed[metric]
        own = self._passes(explainer)
        return own[metric][1] if metric in own else 0

    def rows(self) -> list[tuple[Kind, float]]:
        """Mean rows of each kind of work that go through the model for one sample at the most, of all explainers."""
        rows: dict[Kind, float] = defaultdict(float)
        names = [*self._measurer.compared, *self._model.controls]
        free = self._measurer.free_maps(names)
        rows[MaskedForward.kind] += len(self._measurer.fills)
        for name in names:
            call = self._measurer.call(name, 0)
            kind = call.explainer.kind(call.parameters)
            rows[kind] += 0 if name in free else self._measurer.map_passes(name)
            rows[MaskedForward.kind] += sum(count for _, count in self._rows)
            for metric, passes in self._passes(name).values():
                explains = Need.EXPLAINER in metric.needs or not metric.kinds
                rows[kind if explains else next(iter(metric.kinds))] += self.share(name, metric.name) * passes
        return [(kind, count) for kind, count in rows.items() if count]

    def _passes(self, explainer: str) -> dict[str, tuple[Metric[Any], int]]:
        """The passes of each metric that shares none, beyond those for maps that are there."""
        found: dict[str, tuple[Metric[Any], int]] = {}
        map_passes = self._measurer.map_passes(explainer)
        for metric, _, passes in self._measurer.passes(explainer):
            if not 0 < passes <= self._max_passes or shares(metric):
                continue
            if Need.CLASSES in metric.needs:  # the logits and one of the maps are there, or both maps
                passes = self._measurer.map_passes(explainer, 2) - map_passes
            elif Need.EXPLAINER in metric.needs and not self._measurer.call(explainer, 0).explainer.is_random:
                passes -= map_passes
            found[metric.name] = (metric, passes)
        return found

    def _perturbed_rows(self) -> list[tuple[str, int]]:
        """The rows of each metric of perturbed pictures that none before has; counted on a blank picture."""
        facts, found = self._model.facts, []
        saliency = np.arange(facts.height * facts.width, dtype=np.float32).reshape(facts.height, facts.width)
        logits, image = np.zeros(1, np.float32), np.zeros((1, *saliency.shape), np.float32)
        shared: dict[Hashable, FloatArray] = {}
        instance = Instance(image, 0, saliency, logits=logits, shared=shared)
        drive(self._measurer.covered(instance), _blank)
        for metric, parameters in self._perturbing:
            tally = Tally()
            drive(whole(metric.measure(instance, parameters), tally.add), _blank)
            found.append((metric.name, tally.passes))
        return found


def _blank(kind: Kind, rows: Sequence[Any]) -> tuple[Any, ...]:
    return (rows[0][:, :1, 0],)
