"""Robustness: whether a map stays as it is when the picture hardly changes."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from pydantic import Field

from xai_sidecar.engine.jointly import together
from xai_sidecar.engine.work import FloatArray, MaskedForward, MaskedOodScore, Steps
from xai_sidecar.explainers.base import Context, ModelFacts
from xai_sidecar.metrics.base import (
    Metric,
    MetricParameters,
    Need,
    Score,
    ScoreStatus,
    disbelief,
    explained,
    explained_once,
    required,
)
from xai_sidecar.metrics.instance import ExplainerCall, Instance

_TOGETHER = 16
"""Noisy pictures that are explained side by side, so that batches are full: not more, for the memory that they take."""


class RobustnessParameters(MetricParameters):
    """Parameters of robustness."""

    draw_count: int = Field(default=10, ge=1, le=1000, description="How many noisy pictures are explained.")
    radius: float = Field(
        default=0.045,
        gt=0,
        le=1,
        description="Noise is uniform between minus and plus this part of the full range of a picture's values, which "
        "is MindSpore XAI's 0.2 of an input normalised by ImageNet's standard deviation.",
    )


class Robustness(Metric[RobustnessParameters]):
    """exp(-max ‖S' - S‖ / ‖S‖) over the maps S' of noisy pictures, as MindSpore XAI has it.

    After max-sensitivity: Yeh et al.: On the (In)fidelity and Sensitivity of Explanations, arXiv:1901.09392. S is
    explained anew with the seed of S', so that all share their masks; the instance's own map may come from another seed
    or from a budget. The noise is the same for all pictures of a shape, in units of pictures rather than of normalised
    inputs. With the same noise MindSpore XAI's score is the same: it means to draw again where noise changes the
    prediction, but looks at the prediction without noise.
    """

    name: ClassVar[str] = "robustness"
    order: ClassVar[int] = 70
    description: ClassVar[str] = (
        "How little the map changes at most when noise is added to the picture (Yeh et al. 2019)."
    )
    higher_is_better = True
    value_range = (0, 1)
    needs = frozenset({Need.EXPLAINER})
    parameters_type = RobustnessParameters

    def pass_count(self, parameters: RobustnessParameters, model: ModelFacts, call: ExplainerCall | None = None) -> int:
        """Those of explaining the picture and each noisy picture."""
        call = required(call)
        return (1 + parameters.draw_count) * call.explainer.pass_counts(1, call.parameters, model).most

    def _measure(self, instance: Instance, parameters: RobustnessParameters, context: Context) -> Steps[Score]:
        call, target, seed = required(instance.call), np.array([instance.target], np.int32), context.seed
        if call.explainer.is_random:  # a map that is there may be of other masks
            saliency = yield from explained(call, instance.image, target, context)
        else:
            saliency = yield from explained_once(instance, target, context)
        lack = disbelief(saliency)
        if lack is not None:
            return Score(None, lack)
        original = saliency.maps[0].astype(np.float64)
        norm = float(np.linalg.norm(original))
        if norm == 0:
            return Score(None, ScoreStatus.MAP_ZERO)
        largest = 0.0
        masked = call.explainer.kind(call.parameters) in (MaskedForward.kind, MaskedOodScore.kind)
        step = 1 if masked else _TOGETHER  # masks fill batches by themselves
        for first in range(0, parameters.draw_count, step):
            images = [
                instance.image + context.units.difference(noise(instance.image.shape, parameters.radius, seed, draw))
                for draw in range(first, min(first + step, parameters.draw_count))
            ]
            for saliency in (yield from together([explained(call, image, target, context) for image in images])):
                lack = disbelief(saliency)
                if lack is not None:
                    return Score(None, lack)
                largest = max(largest, float(np.linalg.norm(saliency.maps[0] - original)))
        return Score(math.exp(-largest / norm))


def noise(shape: tuple[int, ...], radius: float, seed: int, draw: int) -> FloatArray:
    """Uniform noise in [-radius, radius], float32; draw i of a seed is the same however many are drawn."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, draw], np.uint64)))
    return generator.uniform(-radius, radius, shape).astype(np.float32)
