"""The explainers that there are."""

from __future__ import annotations

from typing import Any

from xai_sidecar.explainers.base import Explainer
from xai_sidecar.explainers.gradcam import GradCam
from xai_sidecar.explainers.gradient import Deconvolution, Gradient, GuidedBackprop
from xai_sidecar.explainers.occlusion import Occlusion
from xai_sidecar.explainers.rise import Rise, RisePlus

_ALL: tuple[Explainer[Any], ...] = (
    Gradient(),
    GuidedBackprop(),
    Deconvolution(),
    GradCam(),
    Occlusion(),
    Rise(),
    RisePlus(),
)

EXPLAINERS: dict[str, Explainer[Any]] = {explainer.name: explainer for explainer in _ALL}
"""By name, in the order in which they are listed."""
