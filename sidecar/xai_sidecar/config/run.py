"""The keys of the config file that say how a data set is run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from xai_sidecar.config.names import Explainers, Metrics
from xai_sidecar.config.section import Section


class RunConfig(Section):
    """Running a data set: `xai-sidecar run`."""

    explainers: Explainers = Field(
        default=[], description="The explainers that are compared. Default: those of `evaluator.explainers`."
    )
    metrics: Metrics = Field(
        default=[], description="The metrics that are measured of each. Default: those of `evaluator.metrics`."
    )
    targets: Literal["predicted", "true", "both"] = Field(
        default="predicted",
        description="The classes that are explained: those predicted, those a picture shows, or both.",
    )
    probable: float | None = Field(
        default=None, gt=0, lt=1, description="Besides these, every class of at least this probability is explained."
    )
    limit: int | None = Field(default=None, ge=1, description="Pictures to run, the first ones. Default: all.")
    seed: int = Field(default=0, ge=0, description="Of everything random.")
    keep_pictures: bool = Field(
        default=True, description="Whether the run's folder gets pictures of the data set, for those who look at it."
    )
    fail_fast: bool = Field(default=False, description="Whether a picture that cannot be read ends the run.")
