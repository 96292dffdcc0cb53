"""Class sensitivity: whether maps of different classes differ."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from xai_sidecar.engine.work import FloatArray, Forward, Steps
from xai_sidecar.explainers.base import Context, ModelFacts
from xai_sidecar.metrics.base import Metric, MetricParameters, Need, Score, ScoreStatus, disbelief, explained, required
from xai_sidecar.metrics.correlation import correlation, is_constant
from xai_sidecar.metrics.instance import ExplainerCall, Instance


class ClassSensitivityParameters(MetricParameters):
    """Class sensitivity has no parameters."""


class ClassSensitivity(Metric[ClassSensitivityParameters]):
    """(1 - r) / 2, with r the correlation of the maps of the most and the least probable class.

    Li et al.: Quantitative Evaluations on Saliency Methods, arXiv:2012.15616, brought into [0, 1]. Both maps come from
    one explanation, and so from the same masks where there are any; two that are mostly noise would be unlike, too, and
    are not compared. MindSpore XAI agrees, but for maps that are zero, which it scores 0.5, and for RISE, where it
    fails. The instance's target and map do not matter.
    """

    name: ClassVar[str] = "class_sensitivity"
    order: ClassVar[int] = 60
    description: ClassVar[str] = "How unlike the maps of the most and the least probable class are (Li et al. 2020)."
    higher_is_better = True
    value_range = (0, 1)
    needs = frozenset({Need.EXPLAINER, Need.CLASSES})
    kinds = frozenset({Forward.kind})
    parameters_type = ClassSensitivityParameters

    def pass_count(
        self, parameters: ClassSensitivityParameters, model: ModelFacts, call: ExplainerCall | None = None
    ) -> int:
        """One for the logits, and those of explaining two classes."""
        call = required(call)
        return 1 + call.explainer.pass_counts(2, call.parameters, model).most

    def _measure(self, instance: Instance, parameters: ClassSensitivityParameters, context: Context) -> Steps[Score]:
        logits = instance.logits  # in the order of the probabilities, and never saturated
        if logits is None:
            rows: FloatArray = yield Forward(instance.image[np.newaxis])
            logits = rows[0]
        if not np.isfinite(logits).all():
            return Score(None, ScoreStatus.OUTPUT_NOT_FINITE)
        if len(logits) < 2:
            return Score(None, ScoreStatus.ONE_CLASS)
        if is_constant(logits.astype(np.float64), 0):
            return Score(None, ScoreStatus.OUTPUT_CONSTANT)
        targets = np.array([logits.argmax(), logits.argmin()], np.int32)
        saliency = yield from explained(required(instance.call), instance.image, targets, context)
        lack = disbelief(saliency)
        if lack is not None:
            return Score(None, lack)
        if any(is_constant(values) for values in saliency.maps):
            return Score(None, ScoreStatus.MAP_CONSTANT)
        return Score((1 - correlation(*saliency.maps)) / 2)
