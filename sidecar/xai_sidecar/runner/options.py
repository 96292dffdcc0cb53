"""How a data set is run: a config as runs have it."""

from __future__ import annotations

from xai_sidecar.config import Config

FOR_EVER = 1e11
"""Seconds for which samples of a run are kept, and count."""

ALL = 10**9
"""More samples than any run has."""


def run_config(config: Config) -> Config:
    """A config as a run has it: what the run's section names is measured of every picture, and everything counts."""
    settings = config.evaluator
    counting = {
        "sample_rate": 1.0,
        "window_samples": ALL,
        "window_seconds": FOR_EVER,
        "classes": [],
        "auto": settings.auto.model_copy(update={"min_samples": 2}),  # for a composite score
        "explainers": config.run.explainers or settings.explainers,
        "metrics": config.run.metrics or settings.metrics,
    }
    return config.model_copy(update={"evaluator": settings.model_copy(update=counting)})
