"""The explainers that there are."""

from __future__ import annotations

from typing import Any

from xai_sidecar.explainers.base import Explainer
from xai_sidecar.explainers.gradcam import GradCam
from xai_sidecar.explainers.gradient import Gradient

EXPLAINERS: dict[str, Explainer[Any]] = {explainer.name: explainer for explainer in (Gradient(), GradCam())}
"""By name, in the order in which they are listed."""
