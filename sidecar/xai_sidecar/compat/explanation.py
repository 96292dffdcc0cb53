"""All that `mindspore_xai.explanation` offers, under the same names."""

from __future__ import annotations

from xai_sidecar.compat.benchmarks import ClassSensitivity, Faithfulness, Localization, Robustness
from xai_sidecar.compat.explainers import (
    RISE,
    Deconvolution,
    GradCAM,
    Gradient,
    GuidedBackprop,
    Occlusion,
    RISEPlus,
    SaliencyWarning,
)
from xai_sidecar.compat.ood_net import OoDNet

__all__ = [
    "RISE",
    "ClassSensitivity",
    "Deconvolution",
    "Faithfulness",
    "GradCAM",
    "Gradient",
    "GuidedBackprop",
    "Localization",
    "Occlusion",
    "OoDNet",
    "RISEPlus",
    "Robustness",
    "SaliencyWarning",
]
