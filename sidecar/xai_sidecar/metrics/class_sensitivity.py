"""Class sensitivity: whether maps of different classes differ."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from xai_sidecar.engine.work import FloatArray, Forward, Steps
from xai_sidecar.explainers.base import Context, ModelFacts
from xai_sidecar.metrics.base import (
    Metric,
    MetricParameters,
    Need,
    Score,
    ScoreStatus,
    disbelief,
    explained_once,
    required,
)
from xai_sidecar.metrics.correlation import correlation, is_constant
from xai_sidecar.metrics.instance import ExplainerCall, Instance


class ClassSensitivityParameters(MetricParameters):
    """Class sensitivity has no parameters."""


class ClassSensitivity(Metric[ClassSensitivityParameters]):
    """(1 - r) / 2, with r the correlation of the maps of the most and the least probable class.

    Li et al.: Quantitative Evaluations on Saliency Methods, arXiv:2012.15616, brought into [0, 1]. Both maps come from
    one explanation, and so from the same masks where there are any; two that are mostly noise would be unlike, too, and
    are not compared. Maps that are there already are not made again. MindSpore XAI agrees, but for RISE, where it
    fails, and for two constant maps. The instance's target and map do not matter.

    Where one map is the same all over, as Grad-CAM's is where nothing speaks for the least probable class, the score is
    0.5: such a map is unrelated to any other, and without a score the pictures on which classes differ the most would
    not count. Two such maps are the same as far as can be told, and have no score.

    What noise is left in maps of random masks, of relative standard errors e and e', makes maps look less alike: it
    takes r towards 0 by √((1 - e²)(1 - e'²)), to a half of itself at worst, and more or less where masks that are
    common have it in common. So a score of a noisy explainer is too high where r is positive: one more reason to let it
    veto and never reward. Dividing by that root is no cure: on four photographs RISE's r at the evaluator's tolerance,
    with e' from 0.5 to 0.9, was -0.51, -0.83, 0.10 and -0.53, with 1000 masks -0.52, -0.87, 0.08 and -0.59, and the
    quotient of the second one was -2.1: as the masks are common, so is most of the noise.
    """

    name: ClassVar[str] = "class_sensitivity"
    order: ClassVar[int] = 60
    version: ClassVar[int] = 2  # 2: 0.5 where one of the maps is constant
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
        saliency = yield from explained_once(instance, targets, context)
        lack = disbelief(saliency)
        if lack is not None:
            return Score(None, lack)
        constant = [is_constant(values) for values in saliency.maps]
        if any(constant):
            return Score(None, ScoreStatus.MAP_CONSTANT) if all(constant) else Score(0.5)
        return Score((1 - correlation(*saliency.maps)) / 2)
