"""Grad-CAM at the picture itself, which MindSpore XAI computes where no layer is named."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from xai_sidecar.engine.work import FloatArray, InputGradient, IntArray, Kind, Steps
from xai_sidecar.explainers.base import Computed, Context, Explainer, ExplainerParameters, repeated, without_gradient


class InputGradCam(Explainer[ExplainerParameters]):
    """Selvaraju et al.: Grad-CAM, arXiv:1610.02391, equations 1 and 2, with the picture's channels as the layer's."""

    name: ClassVar[str] = "input_gradcam"
    order: ClassVar[int] = 0
    description: ClassVar[str] = "Grad-CAM of the model input."
    parameters_type = ExplainerParameters

    def kind(self, parameters: ExplainerParameters) -> Kind:
        """The gradient by the input."""
        return Kind("input_gradient")

    def _compute(
        self, image: FloatArray, targets: IntArray, parameters: ExplainerParameters, context: Context
    ) -> Steps[Computed]:
        gradients: FloatArray = yield InputGradient(repeated(image, len(targets)), targets)
        weights = gradients.mean(axis=(2, 3), keepdims=True)
        return Computed(np.maximum((weights * image).sum(axis=1), 0), without_gradient(gradients))
