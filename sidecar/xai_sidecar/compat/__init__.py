"""MindSpore XAI's own Python names and signatures, over this package's explainers and metrics.

A script written for `mindspore_xai` runs as it stands once it imports from here. Where that package computed something
else than it documents, this one computes what is documented; the docstrings say where.
"""

from __future__ import annotations

from xai_sidecar.compat.runner import ImageClassificationRunner
from xai_sidecar.compat.visual import saliency_to_image

__all__ = ["ImageClassificationRunner", "saliency_to_image"]
