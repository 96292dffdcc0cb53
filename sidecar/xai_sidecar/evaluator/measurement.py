"""Measuring one explainer on one sample: its map, and the map's scores by the metrics."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.engine.work import Kind, MaskedForward, Steps, Work, drive
from xai_sidecar.evaluator.definitions import map_definition, score_definition
from xai_sidecar.evaluator.records import MapRecord, Sample, ScoreRecord
from xai_sidecar.explainers.activations import Activation
from xai_sidecar.explainers.base import Context, Explainer, ExplainerParameters, MapStatus, ModelFacts
from xai_sidecar.metrics.base import Metric, MetricParameters, Need, Score, ScoreStatus, whole
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.metrics.faithfulness import Faithfulness
from xai_sidecar.metrics.instance import ExplainerCall, Instance
from xai_sidecar.metrics.objects import ObjectArea
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
    """The model as the evaluator uses it.

    Attributes:
        version: Version of all that its predictions and OoD scores depend on.
        labels: Labels of its classes, by class id.
        facts: Facts about it that explainers use.
        activation: Maps its logits to probabilities.
        explainers: The explainers that can be used, by name, with the server's default parameters, resolved.
        controls: Maps that know nothing of the model, likewise: see `controls`.
    """

    version: str
    labels: tuple[str, ...]
    facts: ModelFacts
    activation: Activation
    explainers: Mapping[str, tuple[Explainer[Any], ExplainerParameters]]
    controls: Mapping[str, tuple[Explainer[Any], ExplainerParameters]] = field(default_factory=dict)

    @property
    def measured(self) -> Mapping[str, tuple[Explainer[Any], ExplainerParameters]]:
        """Explainers and controls."""
        return {**self.explainers, **self.controls}


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
        scores: The scores of the map.
        runs: The runs that have ended.
    """

    sample: Sample
    explainer: str
    planned: Sequence[str]
    map: MapRecord | None = None
    disbelieved: ScoreRecord | None = None
    scores: list[ScoreRecord] = field(default_factory=list)
    runs: list[MetricRun] = field(default_factory=list)

    def fail(self) -> None:
        """Records the planned runs that have not ended as failed, after an error of the model or the server."""
        done = {run.metric for run in self.runs}
        self.runs += [MetricRun(metric, 0.0, 0, ERROR) for metric in self.planned if metric not in done]


class Measurer:
    """Plans and makes measurements: which explainers on a sample, by which metrics with which parameters.

    Args:
        model: The model.
        settings: The explainers and metrics to measure, and their costs' bound `max_passes`.
    """

    def __init__(self, model: EvaluatedModel, settings: EvaluatorConfig) -> None:
        self._model = model
        self._max_passes = settings.max_passes
        self._listed = [name for name in settings.explainers or model.explainers if name in model.explainers]
        self._compared = [name for name in self._listed if self._map_passes(name) <= self._max_passes]
        metrics = [installed_metrics()[name] for name in settings.metrics]
        chosen = [(metric, settings.parameters_of(metric)) for metric in metrics]
        self._definitions = {name: map_definition(*called) for name, called in model.measured.items()}
        self._located = [each for each in chosen if Need.OBJECTS in each[0].needs]
        self._measured = [each for each in chosen if Need.OBJECTS not in each[0].needs]

    @property
    def localization(self) -> list[str]:
        """The metrics that need ground truth."""
        return [metric.name for metric, _ in self._located]

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics that are measured."""
        return [metric.name for metric, _ in (*self._measured, *self._located)]

    @property
    def definitions(self) -> set[str]:
        """The definitions of all scores that are measured now, those by `EXPLAIN` included."""
        of_maps = self._definitions.values()
        pairs = itertools.product(of_maps, (*self._measured, *self._located))
        return {*of_maps, *(score_definition(of_map, *metric) for of_map, metric in pairs)}

    def defines(self, record: MapRecord) -> bool:
        """Whether a map is as its explainer would make it now."""
        return record.definition == self._definitions.get(record.explainer)

    def explainers(self, sample: Sample) -> list[str]:
        """The explainers and controls to measure on a sample, the controls last.

        They are the explainers listed that are not too costly, and those that the caller used. There are none where no
        class counts as predicted: maps of a class that is not there mean nothing, and score well.
        """
        if not sample.positives:
            return []
        served = (name for name in sample.served if name in self._model.explainers)
        return list(dict.fromkeys((*self._compared, *served, *self._model.controls)))

    def too_costly(self) -> list[str]:
        """The measurements that are left out for `max_passes`, each as "explainer metric (passes)"."""
        left_out = []
        for name in self._listed:
            if name not in self._compared:
                left_out.append(f"{name} ({self._map_passes(name):,} passes)")
                continue
            for metric, _, passes in self._passes(name):
                if passes > self._max_passes:
                    left_out.append(f"{name} {metric.name} ({passes:,} passes)")
        return left_out

    def costs(self) -> list[tuple[Kind, int]]:
        """The most rows of each kind of work that go through the model for one sample."""
        rows: Counter[Kind] = Counter()
        shared = self._perturbations()
        for name in (*self._compared, *self._model.controls):
            call = self._call(name, 0)
            kind = call.explainer.kind(call.parameters)
            rows[kind] += self._map_passes(name)
            rows[MaskedForward.kind] += shared
            for metric, _, passes in self._passes(name):
                if 0 < passes <= self._max_passes and not _shares(metric):
                    explains = Need.EXPLAINER in metric.needs or not metric.kinds
                    rows[kind if explains else next(iter(metric.kinds))] += passes
        return [(kind, count) for kind, count in rows.items() if count]

    def _perturbations(self) -> int:
        """Rows of the metrics that share those of perturbed pictures, for one map; counted on a blank picture."""
        facts, tally = self._model.facts, _Tally()
        saliency = np.arange(facts.height * facts.width, dtype=np.float32).reshape(facts.height, facts.width)
        logits = np.zeros(1, np.float32)
        instance = Instance(np.zeros((1, *saliency.shape), np.float32), 0, saliency, logits=logits, shared={})
        for metric, parameters in self._measured:
            if _shares(metric) and metric.pass_count(parameters, facts) <= self._max_passes:
                drive(whole(metric.measure(instance, parameters), tally.add), lambda kind, rows: (rows[0][:, :1, 0],))
        return tally.passes

    def begin(self, sample: Sample, explainer: str) -> tuple[Measurement, Steps[None]]:
        """An empty measurement, and the computation that fills it in."""
        measured = [
            (metric, parameters) for metric, parameters, passes in self._passes(explainer) if passes <= self._max_passes
        ]
        measurement = Measurement(sample, explainer, [EXPLAIN, *(metric.name for metric, _ in measured)])
        return measurement, self._steps(measurement, measured)

    def locate(self, record: MapRecord, frame: tuple[int, int], objects: Sequence[ObjectArea]) -> list[ScoreRecord]:
        """Scores of a map by the metrics that need ground truth.

        Args:
            record: The map.
            frame: Height and width of the model input.
            objects: Where objects of the map's class lie in the model input.
        """
        blank = np.zeros((1, *frame), np.float32)
        instance = Instance(blank, record.target, record.saliency, objects=objects)
        found = []
        for metric, parameters in self._located:
            started = time.monotonic()
            score = drive(metric.measure(instance, parameters), _runs_nothing)
            definition = score_definition(record.definition, metric, parameters)
            found.append(_record(record.explainer, metric, record.target, score, started, 0, definition))
        return found

    # ------------------------------------------------------------------------------------------------

    def _passes(self, explainer: str) -> Iterator[tuple[Metric[Any], MetricParameters, int]]:
        """The metrics that need no ground truth, with their parameters and the most passes that they take."""
        call = self._call(explainer, 0)
        for metric, parameters in self._measured:
            yield metric, parameters, metric.pass_count(parameters, self._model.facts, call)

    def _map_passes(self, explainer: str) -> int:
        call = self._call(explainer, 0)
        return call.explainer.pass_counts(1, call.parameters, self._model.facts).most

    def _call(self, explainer: str, seed: int) -> ExplainerCall:
        return ExplainerCall(*self._model.measured[explainer], seed=seed)

    def _steps(self, measurement: Measurement, measured: Sequence[tuple[Metric[Any], MetricParameters]]) -> Steps[None]:
        sample, name = measurement.sample, measurement.explainer
        served = sample.served.get(name)
        call = self._call(name, sample.key.seed if served is None else served.seed)
        if served is not None:
            saliency, status, passes = served.saliency, served.status, served.pass_count
            measurement.runs.append(MetricRun(EXPLAIN, 0.0, 0, _failure(status)))
        else:
            started, tally = time.monotonic(), _Tally()
            targets = np.array([sample.target], np.int32)
            context = Context(self._model.activation, call.seed, self._model.facts.units)
            steps = call.explainer.explain(sample.image, targets, call.parameters, context)
            made = yield from whole(steps, tally.add)
            saliency, status, passes = made.maps[0], made.statuses[0], tally.passes
            seconds = time.monotonic() - started
            measurement.runs.append(MetricRun(EXPLAIN, seconds, passes, _failure(status)))
        definition = self._definitions[name]
        if not status.believed:
            seconds = measurement.runs[-1].seconds
            measurement.disbelieved = ScoreRecord(
                name, EXPLAIN, sample.target, 0.0, ScoreStatus.OK, time.time(), seconds, passes, definition
            )
            return
        parameters = call.parameters.model_dump(mode="json")
        measurement.map = MapRecord(name, sample.target, parameters, call.seed, status, saliency, passes, definition)
        instance = Instance(sample.image, sample.target, saliency, call, (), sample.logits, {})
        # The seed is the sample's: noise that a metric adds differs from sample to sample, too.
        context = Context(self._model.activation, sample.key.seed, self._model.facts.units)
        for metric, values in measured:
            started, tally = time.monotonic(), _Tally()
            score = yield from whole(metric.measure(instance, values, context), tally.add)
            of_score = score_definition(definition, metric, values)
            record = _record(name, metric, sample.target, score, started, tally.passes, of_score)
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
    explainer: str, metric: Metric[Any], target: int, score: Score, started: float, passes: int, definition: str
) -> ScoreRecord:
    seconds = time.monotonic() - started
    value, status = score.value, score.status
    return ScoreRecord(explainer, metric.name, target, value, status, time.time(), seconds, passes, definition)


def _shares(metric: Metric[Any]) -> bool:
    """Whether a metric finds passes of perturbed pictures in `Instance.shared`, and leaves its own there."""
    return isinstance(metric, Faithfulness)


def _failure(status: MapStatus) -> str | None:
    """The failure of a map that must not be believed. One of nothing but zeros may be: the metrics judge it."""
    return None if status.believed else status.name.lower()


def _runs_nothing(*arguments: Any) -> Any:
    raise ValueError("metrics of localization ask for no passes")
