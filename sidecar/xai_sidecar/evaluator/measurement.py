"""Measuring one sample by one explainer: its map, and what the benchmarks say of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.engine.work import Kind, Steps, Work, drive
from xai_sidecar.evaluator.records import MapRecord, Sample, ScoreRecord
from xai_sidecar.explainers.activations import Activation
from xai_sidecar.explainers.base import Context, Explainer, MapStatus, ModelFacts, Parameters
from xai_sidecar.metrics.base import Metric, Need, Score, ScoreStatus, whole
from xai_sidecar.metrics.base import Parameters as MetricParameters
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.metrics.instance import ExplainerCall, Instance
from xai_sidecar.metrics.regions import Region
from xai_sidecar.telemetry import EXPLAIN

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
class EvaluatedModel:
    """What the evaluator has to know of the model.

    Attributes:
        version: Of all that its answers, and the scores of their explanations, depend on.
        labels: Of its classes.
        facts: What explainers may know of it.
        activation: How its logits become probabilities.
        methods: The explainers that can be used, with their parameters by default, resolved.
    """

    version: str
    labels: tuple[str, ...]
    facts: ModelFacts
    activation: Activation
    methods: Mapping[str, tuple[Explainer[Any], Parameters]]


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
    """What is found out about one explainer's map of a sample, as far as it has come.

    Attributes:
        sample: The sample.
        explainer: The explainer.
        map: The map; None until it is there, or if it must not be believed.
        disbelieved: Says, as a score by `EXPLAIN`, that it must not be believed; None otherwise.
        scores: What the benchmarks say of it.
        runs: The runs that have ended.
        planned: The metrics to come to, `EXPLAIN` first.
    """

    sample: Sample
    explainer: str
    planned: Sequence[str]
    map: MapRecord | None = None
    disbelieved: ScoreRecord | None = None
    scores: list[ScoreRecord] = field(default_factory=list)
    runs: list[MetricRun] = field(default_factory=list)

    def fail(self) -> None:
        """Takes down that what is left of it cannot be done, for the model or the server failed."""
        done = {run.metric for run in self.runs}
        self.runs += [MetricRun(metric, 0.0, 0, ERROR) for metric in self.planned if metric not in done]


class Measurer:
    """Knows which explainers and metrics to measure a sample by, and how.

    Args:
        model: The model.
        settings: What to measure.
    """

    def __init__(self, model: EvaluatedModel, settings: EvaluatorConfig) -> None:
        self._model = model
        self._max_passes = settings.max_passes
        self._listed = [name for name in settings.explainers or model.methods if name in model.methods]
        self._compared = [name for name in self._listed if self._map_passes(name) <= self._max_passes]
        metrics = [installed_metrics()[name] for name in settings.metrics]
        chosen = [(metric, settings.parameters_of(metric)) for metric in metrics]
        self._located = [each for each in chosen if Need.OBJECTS in each[0].needs]
        self._measured = [each for each in chosen if Need.OBJECTS not in each[0].needs]

    @property
    def localization(self) -> list[str]:
        """The metrics that need ground truth."""
        return [benchmark.name for benchmark, _ in self._located]

    @property
    def metrics(self) -> list[str]:
        """All that is measured."""
        return [benchmark.name for benchmark, _ in (*self._measured, *self._located)]

    def explainers(self, sample: Sample) -> list[str]:
        """Who is compared on a sample: those listed that are not too costly, and those that the caller asked for.

        Nobody where no class counts as predicted: maps of a class that is not there speak for nothing, and score well.
        """
        if not sample.positives:
            return []
        return list(dict.fromkeys((*self._compared, *(name for name in sample.served if name in self._model.methods))))

    def too_costly(self) -> list[str]:
        """What is not measured of the explainers listed, each as "explainer metric (passes)"."""
        told = []
        for name in self._listed:
            if name not in self._compared:
                told.append(f"{name} ({self._map_passes(name):,} passes)")
                continue
            for benchmark, _, passes in self._passes(name):
                if passes > self._max_passes:
                    told.append(f"{name} {benchmark.name} ({passes:,} passes)")
        return told

    def costs(self) -> list[tuple[Kind, int]]:
        """The rows of each kind that go through the model for a sample, at the most."""
        rows: Counter[Kind] = Counter()
        for name in self._compared:
            method = self._method(name, 0)
            kind = method.explainer.kind(method.parameters)
            rows[kind] += self._map_passes(name)
            for benchmark, _, passes in self._passes(name):
                if 0 < passes <= self._max_passes:
                    explains = Need.METHOD in benchmark.needs or not benchmark.kinds
                    rows[kind if explains else next(iter(benchmark.kinds))] += passes
        return list(rows.items())

    def begin(self, sample: Sample, explainer: str) -> tuple[Measurement, Steps[None]]:
        """What will be found out, and the computation that finds it out: it fills the measurement as it goes."""
        measured = [
            (benchmark, parameters)
            for benchmark, parameters, passes in self._passes(explainer)
            if passes <= self._max_passes
        ]
        measurement = Measurement(sample, explainer, [EXPLAIN, *(benchmark.name for benchmark, _ in measured)])
        return measurement, self._steps(measurement, measured)

    def locate(self, record: MapRecord, frame: tuple[int, int], objects: Sequence[Region]) -> list[ScoreRecord]:
        """What the metrics that need ground truth say of a map, with the objects of its class in the model's frame."""
        blank = np.zeros((1, *frame), np.float32)
        subject = Instance(blank, record.target, record.saliency, objects=objects)
        found = []
        for benchmark, parameters in self._located:
            started = time.monotonic()
            score = drive(benchmark.measure(subject, parameters), _runs_nothing)
            found.append(_record(record.explainer, benchmark, record.target, score, started, 0))
        return found

    # ------------------------------------------------------------------------------------------------

    def _passes(self, explainer: str) -> Iterator[tuple[Metric[Any], MetricParameters, int]]:
        """What could be measured of an explainer's map, with the passes that it takes at the most."""
        method = self._method(explainer, 0)
        for benchmark, parameters in self._measured:
            yield benchmark, parameters, benchmark.pass_count(parameters, self._model.facts, method)

    def _map_passes(self, explainer: str) -> int:
        method = self._method(explainer, 0)
        return method.explainer.pass_counts(1, method.parameters, self._model.facts).most

    def _method(self, explainer: str, seed: int) -> ExplainerCall:
        return ExplainerCall(*self._model.methods[explainer], seed=seed)

    def _steps(self, measurement: Measurement, measured: Sequence[tuple[Metric[Any], MetricParameters]]) -> Steps[None]:
        sample, name = measurement.sample, measurement.explainer
        served = sample.served.get(name)
        method = self._method(name, sample.key.seed if served is None else served.seed)
        if served is not None:
            saliency, status, passes = served.saliency, served.status, served.pass_count
            measurement.runs.append(MetricRun(EXPLAIN, 0.0, 0, _failure(status)))
        else:
            started, tally = time.monotonic(), _Tally()
            targets = np.array([sample.target], np.int32)
            context = Context(self._model.activation, method.seed, self._model.facts.units)
            steps = method.explainer.explain(sample.image, targets, method.parameters, context)
            made = yield from whole(steps, tally.add)
            saliency, status, passes = made.maps[0], made.statuses[0], tally.passes
            seconds = time.monotonic() - started
            measurement.runs.append(MetricRun(EXPLAIN, seconds, passes, _failure(status)))
        if not status.believed:
            seconds = measurement.runs[-1].seconds
            said = ScoreRecord(name, EXPLAIN, sample.target, 0.0, ScoreStatus.OK, time.time(), seconds, passes)
            measurement.disbelieved = said
            return
        parameters = method.parameters.model_dump(mode="json")
        measurement.map = MapRecord(name, sample.target, parameters, method.seed, status, saliency, passes)
        subject = Instance(sample.image, sample.target, saliency, method, (), sample.logits)
        # Noise that a benchmark adds differs from sample to sample, too.
        context = Context(self._model.activation, sample.key.seed, self._model.facts.units)
        for benchmark, values in measured:
            started, tally = time.monotonic(), _Tally()
            score = yield from whole(benchmark.measure(subject, values, context), tally.add)
            record = _record(name, benchmark, sample.target, score, started, tally.passes)
            measurement.scores.append(record)
            measurement.runs.append(run_of(record))


def run_of(record: ScoreRecord) -> MetricRun:
    """The run that gave a score, or a status in place of one."""
    status = record.status
    failure = None if status is ScoreStatus.OK or status is None else status.name.lower()
    return MetricRun(record.metric, record.seconds, record.pass_count, failure)


@dataclass(eq=False)
class _Tally:
    passes: int = 0

    def add(self, work: Work) -> None:
        self.passes += len(work.rows[0])


def _record(
    explainer: str, benchmark: Metric[Any], target: int, score: Score, started: float, passes: int
) -> ScoreRecord:
    seconds = time.monotonic() - started
    return ScoreRecord(explainer, benchmark.name, target, score.value, score.status, time.time(), seconds, passes)


def _failure(status: MapStatus) -> str | None:
    """A map of nothing but zeros is one: what the benchmarks make of it is theirs to say."""
    return None if status.believed else status.name.lower()


def _runs_nothing(*arguments: Any) -> Any:
    raise ValueError("metrics of localization ask for no passes")
