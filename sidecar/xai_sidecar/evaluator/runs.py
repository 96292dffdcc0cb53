"""What becomes of measuring: the map and scores of one explainer on one sample, and how each of them was come by."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from xai_sidecar.engine.work import FloatArray, Work
from xai_sidecar.evaluator.records import MapRecord, Sample, ScoreRecord
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.metrics.base import Metric, Score, ScoreStatus
from xai_sidecar.metrics.instance import Instance

ERROR = "error"
"""Reason for a missing score where measuring it raised an error."""

FAILURES = (
    *(status.name.lower() for status in ScoreStatus if status is not ScoreStatus.OK),
    *(status.name.lower() for status in MapStatus if status is not MapStatus.OK),
    ERROR,
)
"""Reasons for a missing score: statuses of scores and of maps, and `ERROR`."""

NOT_APPLICABLE = tuple(
    status.name.lower() for status in (ScoreStatus.NO_OBJECTS, ScoreStatus.OBJECTS_OUTSIDE, ScoreStatus.ONE_CLASS)
)
"""Those of `FAILURES` that are no failure: the sample has nothing for the metric to measure."""


@dataclass(frozen=True)
class MetricRun:
    """One run of a metric on a map, or of the explainer to make the map.

    Attributes:
        metric: The metric's name, or `EXPLAIN`.
        seconds: Time that it took, waiting included.
        pass_count: Rows that went through the model for it.
        failure: One of `FAILURES`; None if there is a score (or a map).
    """

    metric: str
    seconds: float
    pass_count: int
    failure: str | None = None


@dataclass(eq=False)
class Measurement:
    """One explainer's map of a sample and its scores, filled in while the computation runs.

    Attributes:
        sample: The sample.
        explainer: Name of the explainer, or of the control.
        planned: The runs to do, by metric, `EXPLAIN` first.
        map: The map; None until it is made, and where it must not be believed.
        disbelieved: A score by `EXPLAIN` that stands for a map that must not be believed; None otherwise.
        withheld: The status of such a map.
        scores: The scores of the map.
        runs: The runs that have ended.
        instance: What the metrics measure; None while there is no map.
        shared: Logits that do not depend on the map: the start of those of `Instance.shared`.
    """

    sample: Sample
    explainer: str
    planned: Sequence[str]
    map: MapRecord | None = None
    disbelieved: ScoreRecord | None = None
    withheld: MapStatus | None = None
    scores: list[ScoreRecord] = field(default_factory=list)
    runs: list[MetricRun] = field(default_factory=list)
    instance: Instance | None = None
    shared: dict[Hashable, FloatArray] = field(default_factory=dict)

    def fail(self, metrics: Sequence[str] | None = None) -> None:
        """Records planned runs that have not ended as failed, after an error of the model or the server.

        Args:
            metrics: Which of them; by default all.
        """
        done = {run.metric for run in self.runs}
        failed = (metric for metric in (self.planned if metrics is None else metrics) if metric not in done)
        self.runs += [MetricRun(metric, 0.0, 0, ERROR) for metric in failed]


def run_of(record: ScoreRecord) -> MetricRun:
    """The run that gave a score, or a status in place of one."""
    status = record.status
    failure = None if status is ScoreStatus.OK or status is None else status.name.lower()
    return MetricRun(record.metric, record.seconds, record.pass_count, failure)


@dataclass(eq=False)
class Tally:
    """Counts passes."""

    passes: int = 0

    def add(self, work: Work) -> None:
        """Counts those of a work."""
        self.passes += len(work.rows[0])


def record_of(
    explainer: str, metric: Metric[Any], target: int, score: Score, started: float, passes: int, definition: str
) -> ScoreRecord:
    """A score as it is stored, measured from `started` on, by `time.monotonic`, until now."""
    seconds = time.monotonic() - started
    value, status, curves = score.value, score.status, score.curves
    return ScoreRecord(explainer, metric.name, target, value, status, time.time(), seconds, passes, definition, curves)


def failure_of(status: MapStatus) -> str | None:
    """The failure of a map that must not be believed. One of nothing but zeros may be: the metrics judge it."""
    return None if status.believed else status.name.lower()
