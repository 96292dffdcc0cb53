"""Localization: whether a map points at the objects of its class."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, TypeVar

from pydantic import Field

from xai_sidecar.engine.work import Steps
from xai_sidecar.explainers.base import Context, ModelFacts
from xai_sidecar.metrics.base import FloatMap, Metric, MetricParameters, Need, Score, ScoreStatus, saliency_of
from xai_sidecar.metrics.instance import ExplainerCall, Instance
from xai_sidecar.metrics.objects import Mask, dilated, union

_TOLERANCE = 15
"""Pixels, of TorchRay and MindSpore XAI, for inputs of 224 by 224."""


class PointingGameParameters(MetricParameters):
    """Parameters of the pointing game."""

    tolerance: int | None = Field(
        default=None,
        ge=0,
        le=4096,
        description="How close to an object a pixel has to be to hit it: less than this many pixels, or on it. Not "
        "set: 15 for an input whose shorter side has 224 pixels, and in proportion for others.",
    )


class IosrParameters(MetricParameters):
    """Parameters of IoSR."""

    threshold: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="The salient region is where the map is above this part of its largest value.",
    )


P = TypeVar("P", bound=MetricParameters)


class Localization(Metric[P]):
    """A metric that compares a map with the target's objects, all taken together. It costs no passes.

    Objects, or parts of them, that lie outside the frame are left out; with none in it there is no score.
    """

    higher_is_better = True
    value_range = (0, 1)
    needs = frozenset({Need.SALIENCY, Need.OBJECTS})

    def pass_count(self, parameters: P, model: ModelFacts, call: ExplainerCall | None = None) -> int:
        """No passes."""
        return 0

    def _measure(self, instance: Instance, parameters: P, context: Context) -> Steps[Score]:
        yield from ()
        objects = union(instance.objects, instance.frame)
        if not objects.any():
            return Score(None, ScoreStatus.OBJECTS_OUTSIDE)
        return self._located(saliency_of(instance), objects, parameters)

    @abstractmethod
    def _located(self, saliency: FloatMap, objects: Mask, parameters: P) -> Score:
        """The score of a finite map (H, W) by the pixels of objects, (H, W), at least one of which is set."""


class PointingGame(Localization[PointingGameParameters]):
    """Zhang et al.: Top-down Neural Attention by Excitation Backprop, arXiv:1608.00507: 1 for a hit, 0 for a miss.

    The map's largest value hits if an object's pixel is closer than the tolerance, as TorchRay (pointing_game.py) and
    MindSpore XAI mean it, or if it lies on one. Where several pixels share the largest value, the score is the part of
    them that hits, so that a constant map scores by chance.
    """

    name: ClassVar[str] = "localization/pointing_game"
    order: ClassVar[int] = 40
    description: ClassVar[str] = (
        "Whether the most salient pixel lies on an object of the class, or almost (Zhang et al. 2016)."
    )
    is_proportion = True
    parameters_type = PointingGameParameters

    def _located(self, saliency: FloatMap, objects: Mask, parameters: PointingGameParameters) -> Score:
        tolerance = parameters.tolerance
        if tolerance is None:  # as many pixels as of an input of 224 would cover a small one
            tolerance = round(_TOLERANCE * min(saliency.shape) / 224)
        hits = dilated(objects, tolerance)[saliency == saliency.max()]
        return Score(float(hits.mean()))


class Iosr(Localization[IosrParameters]):
    """Intersection over salient region, as MindSpore XAI has it; Li et al., arXiv:2012.15616.

    The part of the salient region, which is where the map is above half its largest value, that lies on objects. A map
    that is nowhere above 0 has no such region; MindSpore XAI scores it 0.
    """

    name: ClassVar[str] = "localization/iosr"
    order: ClassVar[int] = 50
    description: ClassVar[str] = "Part of the salient region that lies on objects of the class (Li et al. 2020)."
    parameters_type = IosrParameters

    def _located(self, saliency: FloatMap, objects: Mask, parameters: IosrParameters) -> Score:
        part = salient_part(saliency, objects, parameters.threshold)
        return Score(None, ScoreStatus.NOTHING_SALIENT) if part is None else Score(part)


def salient_part(saliency: FloatMap, objects: Mask, threshold: float = 0.5) -> float | None:
    """The part of a map's salient region that lies on objects.

    Args:
        saliency: A finite map, (H, W).
        objects: Their pixels, (H, W).
        threshold: The salient region is where the map is above this part of its largest value.

    Returns:
        It, in [0, 1]; None of a map that is nowhere above 0.
    """
    largest = float(saliency.max())
    return float(objects[saliency > threshold * largest].mean()) if largest > 0 else None
