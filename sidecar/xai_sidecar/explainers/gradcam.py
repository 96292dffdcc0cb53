"""Grad-CAM: a layer's channels, weighted by how much the target's logit depends on each."""

from __future__ import annotations

import difflib
from typing import ClassVar

import numpy as np

from xai_sidecar.engine.work import FloatArray, IntArray, Kind, LayerGradient, LayerGradients, Steps
from xai_sidecar.errors import PreconditionError, UnknownLayerError, quoted
from xai_sidecar.explainers.base import (
    Computed,
    Context,
    Explainer,
    LayerParameters,
    ModelFacts,
    repeated,
    without_gradient,
)
from xai_sidecar.explainers.resize import resize_bilinear

_LONGEST_COMPARED = 80
"""Characters of a layer's name that are compared with those that there are: the time grows with their square."""


class GradCamParameters(LayerParameters):
    """Parameters of Grad-CAM."""


class GradCam(Explainer[GradCamParameters]):
    """Selvaraju et al.: Grad-CAM, arXiv:1610.02391, equations 1 and 2."""

    name: ClassVar[str] = "gradcam"
    order: ClassVar[int] = 40
    description: ClassVar[str] = "Gradient-weighted class activation map of a layer (Selvaraju et al. 2017)."
    parameters_type = GradCamParameters

    def resolve(self, parameters: GradCamParameters, model: ModelFacts) -> GradCamParameters:
        """Sets the layer where none is given; see `Explainer.resolve`."""
        if model.no_gradients:
            raise PreconditionError(model.no_gradients)
        if not parameters.layer:
            if model.default_layer is None:
                raise PreconditionError(_without_layers(model))
            return parameters.model_copy(update={"layer": model.default_layer})
        if parameters.layer in model.refused_layers:
            raise PreconditionError(f"{model.refused_layers[parameters.layer]} Name another layer.", field="layer")
        if parameters.layer not in model.layers:
            close = difflib.get_close_matches(parameters.layer[:_LONGEST_COMPARED], model.layers, n=3)
            known = f"Close to it: {', '.join(close)}." if close else "GetModelInfo lists those that have."
            raise UnknownLayerError(
                f"The net has no layer {quoted(parameters.layer)} with a spatial output that runs once in a pass. "
                f"{known}",
                field="layer",
            )
        return parameters

    def kind(self, parameters: GradCamParameters) -> Kind:
        """The gradient by the layer."""
        return Kind("layer_gradient", parameters.layer)

    def _compute(
        self, image: FloatArray, targets: IntArray, parameters: GradCamParameters, context: Context
    ) -> Steps[Computed]:
        layer: LayerGradients = yield LayerGradient(repeated(image, len(targets)), targets, parameters.layer)
        weights = layer.gradients.mean(axis=(2, 3), keepdims=True)
        coarse = np.maximum((weights * layer.activations).sum(axis=1), 0)
        return Computed(resize_bilinear(coarse, *image.shape[1:]), without_gradient(layer.gradients))


def _without_layers(model: ModelFacts) -> str:
    """Why there is no layer to explain by default."""
    if model.layers:
        return "No layer with a spatial output was found through which the prediction flows. Ask for gradient instead."
    if model.refused_layers:
        return f"{next(iter(model.refused_layers.values()))} Ask for gradient instead."
    return (
        "No layer with a spatial output, which Grad-CAM needs, was found; a jitted construct hides its layers. Ask for "
        "gradient instead."
    )
