"""ROAD: how the prediction fares while pixels are removed without leaving the shape of what is missing."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from xai_sidecar.engine.work import FloatArray, Forward, Steps
from xai_sidecar.explainers.base import Context, ModelFacts
from xai_sidecar.explainers.masks import masks_at_a_time
from xai_sidecar.metrics.base import (
    Metric,
    MetricParameters,
    Need,
    Score,
    ScoreStatus,
    target_probabilities,
)
from xai_sidecar.metrics.imputation import imputed
from xai_sidecar.metrics.instance import ExplainerCall, Instance
from xai_sidecar.metrics.perturbation import ranks_of


class RoadParameters(MetricParameters):
    """Parameters of ROAD."""

    steps: int = Field(
        default=9, ge=1, le=99, description="How many shares of the pixels are removed: of nine, 10 % to 90 %."
    )
    noise: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Standard deviation of the noise on what is imputed, as a part of the full range of a picture's "
        "values: without it the model might see that it is smooth.",
    )


class Road(Metric[RoadParameters]):
    """Remove and debias, combined: half of how much higher the probability is without the least salient pixels.

    Rong, Leemann, Borisov, Kasneci, Kasneci: A Consistent and Efficient Evaluation Strategy for Attribution Methods,
    ICML 2022, arXiv:2202.00449, with noisy linear imputation (`imputed`), combined as pytorch-grad-cam's ROADCombined
    does: mean over k of (p without the k/(steps + 1) least salient pixels - p without as many of the most salient) / 2.
    A cover's outline tells a model where pixels are missing; imputed ones hardly do. As with SRG, a random map scores 0
    on average, and a map and its opposite the same but for the sign.

    It takes a third of SRG's passes, and up to 0.4 s of a CPU for the equations of one share of 224 x 224 pixels: with
    a small net, twice SRG's time. So it is not measured unless it is named. No two maps have their most salient pixels
    in common, so that there are no imputations to be shared between explainers.
    """

    name: ClassVar[str] = "faithfulness/road"
    order: ClassVar[int] = 35
    by_default: ClassVar[bool] = False
    description: ClassVar[str] = (
        "Half of how much higher the probability is without the least salient pixels than without the most salient, "
        "where those removed are imputed from their neighbours (Rong et al. 2022)."
    )
    higher_is_better = True
    value_range = (-0.5, 0.5)
    needs = frozenset({Need.SALIENCY})
    kinds = frozenset({Forward.kind})
    parameters_type = RoadParameters

    def pass_count(self, parameters: RoadParameters, model: ModelFacts, call: ExplainerCall | None = None) -> int:
        """Two for each share."""
        return 2 * parameters.steps

    def _measure(self, instance: Instance, parameters: RoadParameters, context: Context) -> Steps[Score]:
        size = instance.image[0].size
        ranks = ranks_of(instance, context.seed)
        shares = np.arange(1, parameters.steps + 1) / (parameters.steps + 1)
        counts = np.minimum(np.round(shares * size).astype(np.int64), size - 1)
        masks = np.array([ranks < size - count for count in counts] + [ranks >= count for count in counts])
        generator = np.random.Generator(np.random.Philox(key=context.seed))
        chunk = masks_at_a_time(instance.image.size)
        curves: list[FloatArray] = []
        for first in range(0, len(masks), chunk):
            known = masks[first : first + chunk]
            logits: FloatArray = yield Forward(_removed(instance.image, known, parameters, context, generator))
            curves.extend(logits)
        probabilities = target_probabilities(np.stack(curves), instance.target, context.activation)
        if not np.isfinite(probabilities).all():
            return Score(None, ScoreStatus.OUTPUT_NOT_FINITE)
        least, most = probabilities.reshape(2, -1)
        return Score(float(np.mean(least - most)) / 2)


def _removed(
    image: FloatArray,
    known: NDArray[np.bool_],
    parameters: RoadParameters,
    context: Context,
    generator: np.random.Generator,
) -> FloatArray:
    """Copies (n, C, H, W) of the image with what is not known of each, by known (n, H, W), imputed with noise."""
    noise = generator.standard_normal((len(known), *image.shape), np.float32) * np.float32(parameters.noise)
    return np.asarray(imputed(image, known) + context.units.difference(noise) * ~known[:, np.newaxis], np.float32)
