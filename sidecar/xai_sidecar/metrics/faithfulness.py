"""Faithfulness: whether the pixels that a map calls important are those that the model goes by."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, TypeVar

import numpy as np

from xai_sidecar.engine.work import MaskedForward, Steps
from xai_sidecar.explainers.activations import Probabilities
from xai_sidecar.explainers.base import Context, ModelFacts
from xai_sidecar.metrics.base import MaskingCurve, Metric, Need, Score, ScoreStatus, saliency_of
from xai_sidecar.metrics.correlation import correlation, is_constant
from xai_sidecar.metrics.instance import ExplainerCall, Instance
from xai_sidecar.metrics.perturbation import (
    Cover,
    PerturbationParameters,
    StepParameters,
    cover_of,
    order_of,
    perturbed,
    rise_blur,
    step_ends,
)

P = TypeVar("P", bound=StepParameters)


class Faithfulness(Metric[P]):
    """A metric that covers or uncovers a picture step by step by `perturbed`, and shares a map's passes with others."""

    needs = frozenset({Need.SALIENCY})
    kinds = frozenset({MaskedForward.kind})


class NaiveFaithfulness(Faithfulness[PerturbationParameters]):
    """The correlation of the mean saliency of each step's pixels with the drop when only they are covered.

    After Alvarez-Melis, Jaakkola: Towards Robust Interpretability with Self-Explaining Neural Networks,
    arXiv:1806.07538, with pixels taken together as MindSpore XAI does; its score is (1 + ours) / 2. The probability of
    the uncovered picture drops out of the correlation and is not asked for.
    """

    name: ClassVar[str] = "faithfulness/naive"
    order: ClassVar[int] = 10
    description: ClassVar[str] = (
        "Correlation of the saliency of groups of pixels with the drop of the probability when they are covered "
        "(Alvarez-Melis, Jaakkola 2018)."
    )
    version: ClassVar[int] = 2  # 2: the protocol by default is srg
    higher_is_better = True
    value_range = (-1, 1)
    parameters_type = PerturbationParameters

    def pass_count(
        self, parameters: PerturbationParameters, model: ModelFacts, call: ExplainerCall | None = None
    ) -> int:
        """One pass for each step."""
        return len(step_ends(model.height * model.width, parameters)) - 1

    def _measure(self, instance: Instance, parameters: PerturbationParameters, context: Context) -> Steps[Score]:
        saliency = saliency_of(instance)
        ends = step_ends(saliency.size, parameters)
        cover = _cover(instance, parameters, context)
        by_rank = saliency.ravel()[order_of(instance, cover.ties)[: ends[-1]]]
        importance = np.add.reduceat(by_rank, ends[:-1]) / np.diff(ends)
        if is_constant(importance):
            return Score(None, ScoreStatus.MAP_CONSTANT)
        probabilities = yield from perturbed(instance, context, cover, ends[:-1], ends[1:], kept=False)
        if not np.isfinite(probabilities).all():
            return Score(None, ScoreStatus.OUTPUT_NOT_FINITE)
        if is_constant(probabilities, 0):
            return Score(None, ScoreStatus.OUTPUT_CONSTANT)
        return Score(-correlation(importance, probabilities))


class CurveMetric(Faithfulness[PerturbationParameters]):
    """The area under the curve of the target's probability while pixels are changed, the most salient first.

    The mean height of the curve, in [0, 1], with both ends: (Σ p - p_first / 2 - p_last / 2) / steps, as RISE's authors
    have it (github.com/eclique/RISE, evaluation.py). Pixels that are equally salient go in the order of
    `perturbation.ranked`.
    """

    version: ClassVar[int] = 2  # 2: the protocol by default is srg
    value_range = (0, 1)
    parameters_type = PerturbationParameters

    @property
    @abstractmethod
    def curve_kind(self) -> str:
        """As of `MaskingCurve.kind`."""

    def pass_count(
        self, parameters: PerturbationParameters, model: ModelFacts, call: ExplainerCall | None = None
    ) -> int:
        """One pass for each step, and one before the first."""
        return len(step_ends(model.height * model.width, parameters))

    def curve(
        self, instance: Instance, parameters: PerturbationParameters, context: Context | None = None
    ) -> Steps[Any]:
        """The probability before the first step and after each, (steps + 1,) float64. The instance has a finite map."""
        drawn: MaskingCurve = yield from self._drawn(instance, parameters, context or Context())
        return drawn.probabilities

    def _drawn(self, instance: Instance, parameters: PerturbationParameters, context: Context) -> Steps[Any]:
        """The `MaskingCurve`, which need not be finite."""
        ends = step_ends(instance.image[0].size, parameters)
        cover = self._cover(instance, parameters, context)
        kept = self.curve_kind == "insertion"
        found = yield from perturbed(instance, context, cover, np.zeros_like(ends), ends, kept=kept)
        return MaskingCurve(self.curve_kind, cover.name, cover.ties, ends, found)

    def _cover(self, instance: Instance, parameters: PerturbationParameters, context: Context) -> Cover:
        """What covers pixels."""
        return _cover(instance, parameters, context)

    def _measure(self, instance: Instance, parameters: PerturbationParameters, context: Context) -> Steps[Score]:
        curve: MaskingCurve = yield from self._drawn(instance, parameters, context)
        if not np.isfinite(curve.probabilities).all():
            return Score(None, ScoreStatus.OUTPUT_NOT_FINITE)
        return Score(area(curve.probabilities), curves=(curve,))


class DeletionAuc(CurveMetric):
    """Deletion of Petsiuk, Das, Saenko: RISE, arXiv:1806.07421: pixels get the mean colour. The lower, the better.

    MindSpore XAI's score is the higher, the worse the map is.
    """

    name: ClassVar[str] = "faithfulness/deletion_auc"
    order: ClassVar[int] = 20
    description: ClassVar[str] = (
        "Mean probability while the most salient pixels are covered step by step (Petsiuk et al. 2018)."
    )
    higher_is_better = False
    curve_kind = "deletion"


class InsertionAuc(CurveMetric):
    """Insertion of Petsiuk, Das, Saenko: RISE, arXiv:1806.07421: pixels appear. The higher, the better.

    MindSpore XAI's is (1 + a) / 2, with a = Σ (p - p_blank) over all steps but the first and the last, over the number
    of steps.
    """

    name: ClassVar[str] = "faithfulness/insertion_auc"
    order: ClassVar[int] = 30
    description: ClassVar[str] = (
        "Mean probability while the most salient pixels are uncovered step by step (Petsiuk et al. 2018)."
    )
    higher_is_better = True
    curve_kind = "insertion"

    def _cover(self, instance: Instance, parameters: PerturbationParameters, context: Context) -> Cover:
        if parameters.protocol == "rise":
            return Cover("rise_blur", rise_blur(instance.image, context.units.fill))
        return super()._cover(instance, parameters, context)


def _cover(instance: Instance, parameters: PerturbationParameters, context: Context) -> Cover:
    """What covers pixels by a protocol, but for insertion by RISE's authors."""
    if parameters.protocol == "srg":
        return cover_of(parameters.fill, instance.image, context)
    return Cover("mean_colour", context.units.fill)


def area(curve: Probabilities) -> float:
    """The area under a curve (n,) of even steps, over its length, by the trapezoidal rule; n is at least 2."""
    return float((curve.sum() - curve[0] / 2 - curve[-1] / 2) / (len(curve) - 1))
