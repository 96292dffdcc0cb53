"""What a `Spreader` needs of a cluster, and what it hears from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from xai_sidecar.evaluator.measurement import EvaluatedModel
from xai_sidecar.runner.data import DataItem
from xai_sidecar.runner.outcome import PictureOutcome


@dataclass(frozen=True, eq=False)
class WorkerFacts:
    """What a worker says of itself once its model is loaded.

    Attributes:
        evaluated: The model as the evaluator sees it.
        sidecar: The version of this package.
        where: The machine and the process.
        described: The model for those who look at the run later; see `model_record`.
    """

    evaluated: EvaluatedModel
    sidecar: str
    where: str
    described: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Ready:
    """A worker has loaded its model.

    Attributes:
        worker: Its number.
        facts: What it says of itself.
    """

    worker: int
    facts: WorkerFacts


@dataclass(frozen=True, eq=False)
class Measured:
    """A worker is done with a picture.

    Attributes:
        worker: Its number.
        name: The picture's.
        outcome: What came of it; None where the worker was stopped before it was begun.
    """

    worker: int
    name: str
    outcome: PictureOutcome | None


@dataclass(frozen=True)
class Lost:
    """A worker is gone, with all that it had in work.

    Attributes:
        worker: Its number.
        why: Why, in a few words.
    """

    worker: int
    why: str


@dataclass(frozen=True, eq=False)
class Failed:
    """A worker cannot do what it is to do, and no other one could.

    Attributes:
        worker: Its number.
        error: Why.
    """

    worker: int
    error: Exception


Event: TypeAlias = Ready | Measured | Lost | Failed


class Cluster(Protocol):
    """Workers on machines. None of its methods waits, but for `events`."""

    def start(self) -> int:
        """Begins to start a worker, wherever there is room; returns its number. It becomes ready, or fails."""

    def submit(self, worker: int, item: DataItem) -> None:
        """Has a worker that is ready measure a picture."""

    def stop(self, worker: int) -> None:
        """Has a worker end once the pictures that it has begun are measured."""

    def remove(self, worker: int) -> None:
        """Ends a worker at once, if it has not ended."""

    def events(self, seconds: float) -> Sequence[Event]:
        """What has happened; waits so long for something to happen. Nothing is heard of a worker that is lost."""
