"""How a data set is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from xai_sidecar.errors import ConfigError

Targets: TypeAlias = Literal["predicted", "true", "both"]


@dataclass(frozen=True)
class RunOptions:
    """How a data set is run.

    Attributes:
        targets: The classes that are explained of each picture: those predicted, those it shows, or both.
        probable: Besides these, every class of at least this probability; None for none.
        limit: Pictures to run, the first ones; None for all.
        seed: Of everything random.
        fail_fast: Whether a picture that cannot be read ends the run.

    Raises:
        ConfigError: A value is out of its range.
    """

    targets: Targets = "predicted"
    probable: float | None = None
    limit: int | None = None
    seed: int = 0
    fail_fast: bool = False

    def __post_init__(self) -> None:
        if self.probable is not None and not 0 < self.probable < 1:
            raise ConfigError(f"{self.probable} is no probability above 0 and below 1.", field="probable")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"{self.limit} pictures are too few. Give at least 1.", field="limit")
        if self.seed < 0:
            raise ConfigError(f"{self.seed} is too little. Give at least 0.", field="seed")
