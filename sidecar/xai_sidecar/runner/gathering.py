"""Gathers what comes of pictures: in the store, in the scores so far, and in the counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from xai_sidecar.config import RunConfig
from xai_sidecar.errors import InvalidRequestError
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.records import SampleState
from xai_sidecar.evaluator.restoring import count_measured
from xai_sidecar.evaluator.store import Store
from xai_sidecar.evaluator.store.whole import put_measured
from xai_sidecar.runner.data import DataItem, DataSet
from xai_sidecar.runner.outcome import PictureOutcome, request_id_of

_FINAL = frozenset({SampleState.SCORED, SampleState.FAILED, SampleState.NO_POSITIVE})
"""States of samples that are not measured again."""


@dataclass
class RunCounts:
    """How far a run is.

    Attributes:
        total: Pictures to run; 0 if that is not known.
        done: Pictures that are measured, those of earlier starts included.
        known: Those of earlier starts.
        skipped: Pictures that could not be read: name and reason.
        notes: What is doubtful about the data, in sentences.
        interrupted: Whether it was ended early.
    """

    total: int = 0
    done: int = 0
    known: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False


class Gatherer:
    """Says which pictures of a data set are missing, and keeps what comes of them, whoever measures them.

    Args:
        store: Where everything is kept.
        quality: The scores so far, for whoever shows them.
        options: How the data set is run.
        on_progress: Called after each picture.

    Attributes:
        counts: How far it is.
    """

    def __init__(
        self, store: Store, quality: LiveQuality, options: RunConfig, on_progress: Callable[[RunCounts], None]
    ) -> None:
        self._store = store
        self._quality = quality
        self._options = options
        self._on_progress = on_progress
        self._places: dict[str, int] = {}  # of pictures that were given out, in the data set
        self._skipped: list[tuple[int, str, str]] = []
        self._notes: list[tuple[int, str]] = []
        self.counts = RunCounts()

    def missing(self, data: DataSet) -> Iterator[DataItem]:
        """The pictures that are not measured yet."""
        ended, seen, number = self._ended(), set[str](), -1
        self._expect(len(data))
        for number, item in enumerate(data):
            if number == self._options.limit:
                return
            if item.name in seen:
                self._notes.append((number, f"{item.name} is listed more than once, and counts once."))
                continue
            seen.add(item.name)
            self._expect(len(data) - (number + 1 - len(seen)))
            if request_id_of(item.name, self._options.seed) in ended:
                self.counts.known += 1
                self.counts.done += 1
            else:
                self._places[item.name] = number
                yield item
        self.counts.total = len(seen)

    def _expect(self, count: int) -> None:
        """Sets how many pictures there are, by what is known so far; below 1 where nothing is."""
        limit = self._options.limit
        known = max(count, 0)
        self.counts.total = min(known, limit) if limit and known else known or (limit or 0)

    def _ended(self) -> set[str]:
        """The ids of pictures of which everything is measured."""
        states: dict[str, list[SampleState]] = {}
        for key, state in self._store.states():
            states.setdefault(key.request_id, []).append(state)
        return {request_id for request_id, found in states.items() if _FINAL.issuperset(found)}

    def take(self, outcome: PictureOutcome) -> None:
        """Keeps what came of a picture.

        Raises:
            InvalidRequestError: It could not be read, and that is to end the run.
            StoreError: The store fails.
        """
        place = self._places.pop(outcome.name)
        self._notes += [(place, note) for note in outcome.notes]
        if outcome.problem:
            if self._options.fail_fast:
                raise InvalidRequestError(f"{outcome.name}: {outcome.problem}")
            self._skipped.append((place, outcome.name, outcome.problem))
            self.counts.skipped.append((outcome.name, outcome.problem))
        else:
            put_measured(self._store, outcome.samples)
            for sample in outcome.samples:
                count_measured(self._quality, sample.record, sample.truth, sample.scores)
            self.counts.done += 1
        self._on_progress(self.counts)

    def end(self, *, interrupted: bool) -> RunCounts:
        """The counts of the whole, in the order of the data set, whatever the order in which pictures were done."""
        self.counts.interrupted = interrupted
        self.counts.skipped = [(name, problem) for _, name, problem in sorted(self._skipped)]
        self.counts.notes += [note for _, note in sorted(self._notes)]
        return self.counts
