"""Robustness: whether a map stays as it is when the picture hardly changes."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from pydantic import Field

from xai_sidecar.engine.work import FloatArray, Steps
from xai_sidecar.explainers.base import Context, ModelFacts
from xai_sidecar.metrics.base import Metric, Need, Parameters, Score, ScoreStatus, disbelief, explained, method_of
from xai_sidecar.metrics.instance import ExplainerCall, Instance


class RobustnessParameters(Parameters):
    """Parameters of robustness."""

    draw_count: int = Field(default=10, ge=1, le=1000, description="Noisy pictures that are explained.")
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
    explained anew, by the same seed as S', so that the same masks are used for all; the subject's own map may come from
    another seed or from a budget. The noise is the same for every picture of a shape, and is that
    of the picture, whatever its normalisation makes of it. Given that noise, MindSpore XAI
    agrees: it means to draw again where noise changes the prediction, but looks at the prediction without noise.
    """

    name: ClassVar[str] = "robustness"
    order: ClassVar[int] = 70
    description: ClassVar[str] = (
        "How little the map changes at most when noise is added to the picture (Yeh et al. 2019)."
    )
    higher_is_better = True
    value_range = (0, 1)
    needs = frozenset({Need.METHOD})
    parameters_type = RobustnessParameters

    def pass_count(
        self, parameters: RobustnessParameters, model: ModelFacts, method: ExplainerCall | None = None
    ) -> int:
        """Those of an explanation of each draw, and of the picture itself."""
        method = method_of(method)
        return (1 + parameters.draw_count) * method.explainer.pass_counts(1, method.parameters, model).most

    def _measure(self, subject: Instance, parameters: RobustnessParameters, context: Context) -> Steps[Score]:
        method, target = method_of(subject.method), np.array([subject.target], np.int32)
        saliency = yield from explained(method, subject.image, target, context)
        lack = disbelief(saliency)
        if lack is not None:
            return Score(None, lack)
        original = saliency.maps[0].astype(np.float64)
        norm = float(np.linalg.norm(original))
        if norm == 0:
            return Score(None, ScoreStatus.MAP_ZERO)
        largest = 0.0
        for draw in range(parameters.draw_count):
            added = noise(subject.image.shape, parameters.radius, context.seed, draw)
            image = subject.image + context.units.difference(added)
            saliency = yield from explained(method, image, target, context)
            lack = disbelief(saliency)
            if lack is not None:
                return Score(None, lack)
            largest = max(largest, float(np.linalg.norm(saliency.maps[0] - original)))
        return Score(math.exp(-largest / norm))


def noise(shape: tuple[int, ...], radius: float, seed: int, draw: int) -> FloatArray:
    """Uniform noise in [-radius, radius], float32; draw i of a seed is the same however many are drawn."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, draw], np.uint64)))
    return generator.uniform(-radius, radius, shape).astype(np.float32)
