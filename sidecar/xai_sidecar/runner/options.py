"""How a data set is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from xai_sidecar.config import Config
from xai_sidecar.errors import ConfigError

Targets: TypeAlias = Literal["predicted", "true", "both"]

FOR_EVER = 1e11
"""Seconds for which samples of a run are kept, and count."""

ALL = 10**9
"""More samples than any run has."""


@dataclass(frozen=True)
class RunOptions:
    """How a data set is run.

    Attributes:
        targets: The classes that are explained of each picture: those predicted, those it shows, or both.
        probable: Besides these, every class of at least this probability; None for none.
        limit: Pictures to run, the first ones; None for all.
        seed: Of everything random.
        fail_fast: Whether a picture that cannot be read ends the run.
        keep_pictures: Whether the run's folder gets pictures of the data set, for those who look at it.

    Raises:
        ConfigError: A value is out of its range.
    """

    targets: Targets = "predicted"
    probable: float | None = None
    limit: int | None = None
    seed: int = 0
    fail_fast: bool = False
    keep_pictures: bool = True

    def __post_init__(self) -> None:
        if self.probable is not None and not 0 < self.probable < 1:
            raise ConfigError(f"{self.probable} is no probability above 0 and below 1.", field="probable")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"{self.limit} pictures are too few. Give at least 1.", field="limit")
        if self.seed < 0:
            raise ConfigError(f"{self.seed} is too little. Give at least 0.", field="seed")


def run_config(config: Config) -> Config:
    """A config as a run has it: everything is measured of every picture, and everything counts."""
    auto = config.evaluator.auto.model_copy(update={"min_samples": 2})  # for a composite score
    counting = {"sample_rate": 1.0, "window_samples": ALL, "window_seconds": FOR_EVER, "classes": [], "auto": auto}
    evaluator = config.evaluator.model_copy(update=counting)
    return config.model_copy(update={"evaluator": evaluator})
