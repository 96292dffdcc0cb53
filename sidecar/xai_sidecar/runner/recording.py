"""Stands in for the store and for the scores so far while pictures are measured, and has the results all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

from xai_sidecar.errors import StoreError
from xai_sidecar.evaluator.comparison import Verdict
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.records import GroundTruth, MapRecord, SampleKey, SampleState, ScoreRecord
from xai_sidecar.evaluator.store import Store
from xai_sidecar.evaluator.store.whole import MeasuredSample, WithheldMap
from xai_sidecar.evaluator.store_errors import StoreErrors
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.telemetry import EvaluatorTelemetry


class SampleRecorder:
    """Takes what a `Keeper` would have stored of samples that are being measured; for one thread.

    Its methods are those of `Store` that a keeper calls.

    Args:
        on_end: Called with a sample once it is measured, with all that came of it.
    """

    def __init__(self, on_end: Callable[[MeasuredSample], None]) -> None:
        self._on_end = on_end
        self._open: dict[SampleKey, MeasuredSample] = {}

    def begin(self, sample: MeasuredSample) -> None:
        """Begins with a sample of which nothing has been measured yet."""
        self._open[sample.key] = sample

    def truth(self, key: SampleKey) -> GroundTruth | None:
        """See `Store.truth`."""
        return self._open[key].truth

    def add_map(self, key: SampleKey, record: MapRecord, measured: Sequence[ScoreRecord]) -> None:
        """See `Store.add_map`."""
        self._open[key].maps[record.explainer] = record
        self.put_scores(key, measured)

    def put_withheld(
        self,
        key: SampleKey,
        explainer: str,
        target: int,
        status: MapStatus,
        pass_count: int,
        measured: Sequence[ScoreRecord] = (),
    ) -> None:
        """See `Store.put_withheld`."""
        self._open[key].withheld[explainer] = WithheldMap(explainer, target, status, pass_count)
        self.put_scores(key, measured)

    def put_scores(self, key: SampleKey, measured: Sequence[ScoreRecord]) -> None:
        """See `Store.put_scores`."""
        self._open[key].scores |= {(score.explainer, score.metric): score for score in measured}

    def set_ood(self, key: SampleKey, ood: tuple[float, float]) -> None:
        """See `Store.set_ood`."""
        one = self._open[key]
        one.record = replace(one.record, ood=ood)

    def set_state(self, key: SampleKey, state: SampleState) -> None:
        """Ends a sample."""
        one = self._open.pop(key)
        one.record = replace(one.record, state=state)
        self._on_end(one)


class Recording(StoreErrors):
    """A recorder in the place of a store; errors pass.

    Args:
        recorder: The recorder.
        telemetry: Counts states of samples.
    """

    def __init__(self, recorder: SampleRecorder, telemetry: EvaluatorTelemetry) -> None:
        super().__init__(cast(Store, recorder), telemetry)

    @contextmanager
    def writing(self, key: SampleKey | None = None) -> Iterator[None]:
        """Lets errors pass."""
        yield

    def failed(self, error: StoreError, key: SampleKey | None = None) -> None:
        """Raises it."""
        raise error


class Unheeded(LiveQuality):
    """Scores so far that stay empty: nothing that is measured of a picture depends on those of others."""

    def add_sample(self, key: SampleKey, sample_time: float, weight: float = 1.0) -> None:
        """Does nothing."""

    def put_score(self, key: SampleKey, sample_time: float, record: ScoreRecord, weight: float = 1.0) -> None:
        """Does nothing."""

    def put_ood(
        self, key: SampleKey, sample_time: float, ood: tuple[float, float], weight: float = 1.0, *, new: bool = True
    ) -> None:
        """Does nothing."""

    def compare(self) -> dict[str, Verdict]:
        """Compares nothing."""
        return {}
