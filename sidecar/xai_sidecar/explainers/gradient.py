"""Gradient: how fast the target's logit changes with every pixel."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from xai_sidecar.engine.work import FloatArray, InputGradient, IntArray, Kind, Steps
from xai_sidecar.explainers.base import Explainer, Parameters, repeated

Aggregation = Literal["max_abs", "sum_abs"]


class GradientParameters(Parameters):
    """Parameters of the explainers that look at the gradient by the input."""

    aggregation: Aggregation = Field(
        default="max_abs",
        description="How the gradient's channels become one map: the largest, or the sum, of their absolute values.",
    )


class Gradient(Explainer[GradientParameters]):
    """Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks, arXiv:1312.6034, section 3.1."""

    name: ClassVar[str] = "gradient"
    description: ClassVar[str] = "Gradient of the target's logit by the input (Simonyan et al. 2013)."
    parameters_type = GradientParameters

    def kind(self, parameters: GradientParameters) -> Kind:
        """The gradient by the input."""
        return InputGradient.kind

    def _maps(
        self, image: FloatArray, targets: IntArray, parameters: GradientParameters
    ) -> Steps[tuple[FloatArray, NDArray[np.bool_]]]:
        gradients: FloatArray = yield InputGradient(repeated(image, len(targets)), targets)
        return aggregated(gradients, parameters.aggregation), gradients.any(axis=(1, 2, 3))


def aggregated(gradients: FloatArray, aggregation: Aggregation) -> FloatArray:
    """Gradients (n, C, H, W) as maps (n, H, W)."""
    magnitudes = np.abs(gradients)
    maps: FloatArray = magnitudes.max(axis=1) if aggregation == "max_abs" else magnitudes.sum(axis=1)
    return maps
