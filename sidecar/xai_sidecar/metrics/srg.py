"""SRG: how far apart the curves are while the least and while the most important pixels are covered first."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from xai_sidecar.engine.work import Steps
from xai_sidecar.explainers.base import Context, ModelFacts
from xai_sidecar.metrics.base import MaskingCurve, Score, ScoreStatus
from xai_sidecar.metrics.faithfulness import Faithfulness, area
from xai_sidecar.metrics.instance import ExplainerCall, Instance
from xai_sidecar.metrics.perturbation import StepParameters, cover_of, even_ends, perturbed


class Srg(Faithfulness[StepParameters]):
    """Symmetric relevance gain: the area under the curve with the least salient pixels covered first, less the other.

    Blücher, Vielhaben, Strodthoff: Decoupling Pixel Flipping and Occlusion Strategy for Consistent XAI Benchmarks, TMLR
    2024, arXiv:2401.06654. The other curve is that with the most salient pixels covered first. Both lead from the whole
    picture to none of it, under one fill: their ends are shared, and what the fill alone does to the model drops out.
    So a random map, or a constant one, scores 0 on average, whatever the model and the fill, and a map and its opposite
    score the same but for the sign. It is insertion less deletion of the protocol srg, with areas as of `area`.
    """

    name: ClassVar[str] = "faithfulness/srg"
    order: ClassVar[int] = 5
    description: ClassVar[str] = (
        "How much longer the probability lasts while the least salient pixels are covered first than while the most "
        "salient are (Blücher et al. 2024)."
    )
    higher_is_better = True
    value_range = (-1, 1)
    parameters_type = StepParameters

    def pass_count(self, parameters: StepParameters, model: ModelFacts, call: ExplainerCall | None = None) -> int:
        """Two for each step: the curves share both ends."""
        return 2 * (len(even_ends(model.height * model.width, parameters.steps)) - 1)

    def _measure(self, instance: Instance, parameters: StepParameters, context: Context) -> Steps[Score]:
        count = instance.image[0].size
        ends = even_ends(count, parameters.steps)
        cover = cover_of(parameters.fill, instance.image, context)
        starts = np.concatenate([np.zeros_like(ends), ends])  # covered: the most salient so many, or all but these
        stops = np.concatenate([ends, np.full_like(ends, count)])
        curves = yield from perturbed(instance, context, cover, starts, stops, kept=False)
        if not np.isfinite(curves).all():
            return Score(None, ScoreStatus.OUTPUT_NOT_FINITE)
        most_first, least_first = curves.reshape(2, -1)  # from the whole picture on, and back to it
        shown = [
            MaskingCurve("deletion", cover.name, cover.ties, ends, most_first),
            # All but the most salient pixels covered is these uncovered.
            MaskingCurve("insertion", cover.name, cover.ties, ends, least_first),
        ]
        return Score(area(least_first) - area(most_first), curves=tuple(shown))
