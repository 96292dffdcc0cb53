"""Explainers by the gradient of the target's logit by every pixel; they differ in how it passes a ReLU."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from xai_sidecar.engine.work import FloatArray, InputGradient, IntArray, Kind, Steps
from xai_sidecar.explainers.base import Computed, Context, Explainer, ExplainerParameters, repeated, without_gradient

Aggregation = Literal["max_abs", "sum_abs"]


class GradientParameters(ExplainerParameters):
    """Parameters of the explainers that look at the gradient by the input."""

    aggregation: Aggregation = Field(
        default="max_abs",
        description="How the gradient's channels become one map: the largest, or the sum, of their absolute values.",
    )


class Gradient(Explainer[GradientParameters]):
    """Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks, arXiv:1312.6034, section 3.1.

    Attributes:
        relu_rule: How the gradient passes a ReLU, as `Kind` has it.
    """

    name: ClassVar[str] = "gradient"
    order: ClassVar[int] = 10
    description: ClassVar[str] = "Gradient of the target's logit by the input (Simonyan et al. 2013)."
    parameters_type = GradientParameters
    relu_rule: ClassVar[str] = ""

    def kind(self, parameters: GradientParameters) -> Kind:
        """The gradient by the input."""
        return Kind("input_gradient", relu_rule=self.relu_rule)

    def _compute(
        self, image: FloatArray, targets: IntArray, parameters: GradientParameters, context: Context
    ) -> Steps[Computed]:
        gradients: FloatArray = yield InputGradient(repeated(image, len(targets)), targets, self.relu_rule)
        return Computed(aggregated(gradients, parameters.aggregation), without_gradient(gradients))


class GuidedBackprop(Gradient):
    """Springenberg et al.: Striving for Simplicity: The All Convolutional Net, arXiv:1412.6806, section 3.4."""

    name: ClassVar[str] = "guided_backprop"
    order: ClassVar[int] = 20
    description: ClassVar[str] = (
        "Gradient rectified at each ReLU on top of the ReLU's own mask (Springenberg et al. 2014)."
    )
    relu_rule: ClassVar[str] = "guided"


class Deconvolution(Gradient):
    """Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, arXiv:1311.2901, section 2.1."""

    name: ClassVar[str] = "deconvolution"
    order: ClassVar[int] = 30
    description: ClassVar[str] = "Gradient rectified at each ReLU instead of the ReLU's own mask (Zeiler, Fergus 2014)."
    relu_rule: ClassVar[str] = "deconvolution"


def aggregated(gradients: FloatArray, aggregation: Aggregation) -> FloatArray:
    """Gradients (n, C, H, W) as maps (n, H, W)."""
    magnitudes = np.abs(gradients)
    maps: FloatArray = magnitudes.max(axis=1) if aggregation == "max_abs" else magnitudes.sum(axis=1)
    return maps
