"""Measuring one explainer on one sample: its map, and the map's scores by the metrics."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.engine.jointly import alongside
from xai_sidecar.engine.work import FloatArray, IntArray, Steps, Work, drive
from xai_sidecar.evaluator.definitions import ScoreDefinitions, map_definition, score_definition
from xai_sidecar.evaluator.making import share_passes, until_good
from xai_sidecar.evaluator.records import MapRecord, Sample, ScoreRecord, Served
from xai_sidecar.evaluator.runs import Measurement, MetricRun, Tally, failure_of, record_of, run_of
from xai_sidecar.explainers.activations import Activation, softmax
from xai_sidecar.explainers.base import Context, Explainer, ExplainerParameters, MapStatus, ModelFacts, Saliency
from xai_sidecar.metrics.base import Metric, MetricParameters, Need, ScoreStatus, whole
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.metrics.faithfulness import Faithfulness
from xai_sidecar.metrics.instance import ExplainerCall, Instance
from xai_sidecar.metrics.objects import ObjectArea
from xai_sidecar.metrics.perturbation import Fill, StepParameters, wholly_covered
from xai_sidecar.telemetry import EXPLAIN


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

    @cached_property
    def measured(self) -> Mapping[str, tuple[Explainer[Any], ExplainerParameters]]:
        """Explainers and controls."""
        return {**self.explainers, **self.controls}

    @property
    def single_label(self) -> bool:
        """Whether exactly one class is predicted of each picture."""
        return self.activation is softmax


class Measurer:
    """Plans and makes measurements: which explainers on a sample, by which metrics with which parameters.

    Args:
        model: The model.
        settings: The explainers and metrics to measure, and their costs' bound `max_passes`.

    Attributes:
        compared: The explainers that are listed and not too costly.
        perturbing: The metrics that perturb pictures, which share passes.
        fills: What covers pictures under the protocol that all metrics of perturbed pictures can share.
    """

    def __init__(self, model: EvaluatedModel, settings: EvaluatorConfig) -> None:
        self._model = model
        self._max_passes = settings.max_passes
        # What does not change, and is asked for with every map: each of these takes as long as a pass of a small net.
        self._map_passes: dict[tuple[str, int], int] = {}
        self._passes: dict[str, list[tuple[Metric[Any], MetricParameters, int]]] = {}
        self._score_definition = ScoreDefinitions()
        self._listed = [name for name in settings.explainers or model.explainers if name in model.explainers]
        self.compared = [name for name in self._listed if self.map_passes(name) <= self._max_passes]
        metrics = [installed_metrics()[name] for name in settings.metrics]
        chosen = [(metric, settings.parameters_of(metric)) for metric in metrics]
        self._tolerances = {
            name: settings.tolerance if name in self.compared and explainer.is_random else 0.0
            for name, (explainer, _) in model.measured.items()
        }
        self._definitions = {
            name: map_definition(*called, self._tolerances[name]) for name, called in model.measured.items()
        }
        self._located = [each for each in chosen if Need.OBJECTS in each[0].needs]
        self._measured = [each for each in chosen if Need.OBJECTS not in each[0].needs]
        self.perturbing = [metric for metric, _ in self._measured if shares(metric)]
        self.fills: frozenset[Fill] = frozenset(
            parameters.fill
            for metric, parameters in self._measured
            if isinstance(parameters, StepParameters)
            and shares(metric)
            and getattr(parameters, "protocol", "srg") == "srg"
        )

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
        return {*self._definitions.values(), *self.protocols}

    @property
    def protocols(self) -> dict[str, MetricParameters]:
        """The parameters of the metrics by the definition of the scores that are measured with them now."""
        pairs = itertools.product(self._definitions.values(), (*self._measured, *self._located))
        return {score_definition(of_map, *metric): metric[1] for of_map, metric in pairs}

    def defines(self, record: MapRecord) -> bool:
        """Whether a map is as its explainer would make it now."""
        return record.definition == self._definitions.get(record.explainer)

    def explainers(self, sample: Sample) -> list[str]:
        """The explainers and controls to measure on a sample, the controls last.

        They are the explainers listed that are not too costly, and those that the caller used. There are none where no
        class counts as predicted, unless one was chosen: maps of a class that is not there mean nothing, and score
        well.
        """
        if not sample.positives and sample.chosen is None:
            return []
        served = (name for name in sample.served if name in self._model.explainers)
        return list(dict.fromkeys((*self.compared, *served, *self._model.controls)))

    def too_costly(self) -> list[str]:
        """The measurements that are left out for `max_passes`, each as "explainer metric (passes)"."""
        left_out = []
        for name in self._listed:
            if name not in self.compared:
                left_out.append(f"{name} ({self.map_passes(name):,} passes)")
                continue
            for metric, _, passes in self.passes(name):
                if passes > self._max_passes:
                    left_out.append(f"{name} {metric.name} ({passes:,} passes)")
        return left_out

    def plan(self, sample: Sample, explainer: str, metrics: Collection[str] | None = None) -> Measurement:
        """An empty measurement of one explainer or control.

        Args:
            sample: The sample.
            explainer: The explainer, or the control.
            metrics: What to measure of that which is not too costly; by default all.
        """
        measured = [metric.name for metric, _, passes in self.passes(explainer) if passes <= self._max_passes]
        return Measurement(
            sample, explainer, [EXPLAIN, *(each for each in measured if metrics is None or each in metrics)]
        )

    def begin(self, sample: Sample, explainer: str) -> tuple[Measurement, Steps[None]]:
        """An empty measurement, and the computation that fills it in, one thing after the other."""
        measurement = self.plan(sample, explainer)
        return measurement, self._all(measurement)

    def _all(self, measurement: Measurement) -> Steps[None]:
        yield from self.make([measurement])
        yield from self.score(measurement, measurement.planned[1:])

    def together(self, measurements: Sequence[Measurement]) -> list[list[Measurement]]:
        """Measurements of a sample in groups whose maps come from the same passes, for `make`."""
        groups: list[list[Measurement]] = []
        rest = list(measurements)
        for one in measurements:
            if one not in rest:
                continue
            others = [each for each in rest if self._share(one, each) or self._share(each, one)][:1]
            group = sorted([one, *others], key=lambda each: any(self._share(other, each) for other in (one, *others)))
            rest = [each for each in rest if each not in group]
            groups.append(group)
        return groups

    def _share(self, one: Measurement, other: Measurement) -> bool:
        anew = all(self._served(each) is None for each in (one, other))
        return anew and share_passes(self._model.measured[one.explainer], self._model.measured[other.explainer])

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
            definition = self._score_definition(record.definition, metric, parameters)
            found.append(record_of(record.explainer, metric, record.target, score, started, 0, definition))
        return found

    # ------------------------------------------------------------------------------------------------

    def passes(self, explainer: str) -> Sequence[tuple[Metric[Any], MetricParameters, int]]:
        """The metrics that need no ground truth, with their parameters and the most passes that they take."""
        if explainer not in self._passes:
            call, facts = self.call(explainer, 0), self._model.facts
            counts = (metric.pass_count(parameters, facts, call) for metric, parameters in self._measured)
            self._passes[explainer] = [(*each, count) for each, count in zip(self._measured, counts, strict=True)]
        return self._passes[explainer]

    def map_passes(self, explainer: str, target_count: int = 1) -> int:
        """The most passes that a map takes, or maps of several classes."""
        key = explainer, target_count
        if key not in self._map_passes:
            call = self.call(explainer, 0)
            self._map_passes[key] = call.explainer.pass_counts(target_count, call.parameters, self._model.facts).most
        return self._map_passes[key]

    def call(self, explainer: str, seed: int) -> ExplainerCall:
        """An explainer or control as it is measured."""
        return ExplainerCall(*self._model.measured[explainer], seed=seed)

    def _served(self, measurement: Measurement) -> Served | None:
        """The map that the caller was given, if it is what would be made."""
        name = measurement.explainer
        return None if self._tolerances[name] else measurement.sample.served.get(name)

    def make(self, measurements: Sequence[Measurement]) -> Steps[None]:
        """Makes the maps of a group of measurements, as of `together`."""
        started, saved = time.monotonic(), Tally()
        tallies = [Tally() for _ in measurements]
        served = self._served(measurements[0])
        if served is not None:
            made = {measurements[0].sample.target: (served.saliency, served.status)}
            self._made(measurements[0], made, served.seed, served.pass_count, MetricRun(EXPLAIN, 0.0, 0))
            return
        steps = [self._explanation(*each) for each in zip(measurements, tallies, strict=True)]
        maps: Sequence[Saliency]
        if len(steps) == 1:
            maps = [(yield from steps[0])]
        else:
            maps = yield from alongside(steps[0], steps[1], saved.add)
        seconds = time.monotonic() - started
        for each, tally, saliency, free in zip(measurements, tallies, maps, (0, saved.passes), strict=False):
            targets = self._targets(each).tolist()
            made = dict(zip(targets, zip(saliency.maps, saliency.statuses, strict=True), strict=True))
            run = MetricRun(EXPLAIN, seconds, tally.passes - free)
            self._made(each, made, each.sample.key.seed, tally.passes, run)

    def _explanation(self, measurement: Measurement, tally: Tally) -> Generator[Work, Any, Saliency]:
        sample, call = measurement.sample, self.call(measurement.explainer, measurement.sample.key.seed)
        context = Context(self._model.activation, call.seed, self._model.facts.units)
        steps = call.explainer.explain(sample.image, self._targets(measurement), call.parameters, context)
        return until_good(steps, self._tolerances[measurement.explainer], tally.add)

    def _targets(self, measurement: Measurement) -> IntArray:
        """The class to explain, and the least probable one where a metric needs it and it takes no more passes."""
        sample = measurement.sample
        wanted = [metric for metric, _ in self._measured if Need.CLASSES in metric.needs]
        least = int(sample.logits.argmin())
        both = least != sample.target and any(metric.name in measurement.planned for metric in wanted)
        if both and self.map_passes(measurement.explainer, 2) == self.map_passes(measurement.explainer):
            return np.array([sample.target, least], np.int32)
        return np.array([sample.target], np.int32)

    def _made(
        self,
        measurement: Measurement,
        made: Mapping[int, tuple[FloatArray, MapStatus]],
        seed: int,
        passes: int,
        run: MetricRun,
    ) -> None:
        """Fills in a map that was made, with the maps of other classes from the same passes."""
        sample, name = measurement.sample, measurement.explainer
        saliency, status = made[sample.target]
        definition = self._definitions[name]
        measurement.runs.append(replace(run, failure=failure_of(status)))
        if not status.believed:
            measurement.withheld = status
            measurement.disbelieved = ScoreRecord(
                name, EXPLAIN, sample.target, 0.0, ScoreStatus.OK, time.time(), run.seconds, run.pass_count, definition
            )
            return
        call = self.call(name, seed)
        parameters = call.parameters.model_dump(mode="json")
        measurement.map = MapRecord(name, sample.target, parameters, seed, status, saliency, passes, definition)
        shared = measurement.shared
        measurement.instance = Instance(sample.image, sample.target, saliency, call, (), sample.logits, shared, made)

    def score(self, measurement: Measurement, metrics: Collection[str], passes: int = 0) -> Steps[None]:
        """Measures a map by some metrics; does nothing where there is none.

        Args:
            measurement: A measurement with its map.
            metrics: The metrics.
            passes: Passes for all explainers, which the first metric's are counted with.
        """
        sample, record, instance = measurement.sample, measurement.map, measurement.instance
        if record is None or instance is None:
            return
        # The seed is the sample's: noise that a metric adds differs from sample to sample, too.
        context = Context(self._model.activation, sample.key.seed, self._model.facts.units)
        for metric, values in self._measured:
            if metric.name not in metrics:
                continue
            started, tally = time.monotonic(), Tally(passes)
            score = yield from whole(metric.measure(instance, values, context), tally.add)
            of_score = self._score_definition(record.definition, metric, values)
            found = record_of(record.explainer, metric, sample.target, score, started, tally.passes, of_score)
            measurement.scores.append(found)
            measurement.runs.append(run_of(found))
            passes = 0

    def cover(self, sample: Sample, shared: dict[Hashable, FloatArray]) -> Steps[None]:
        """Has the passes made that all maps of a sample need: of the wholly covered picture, under each fill."""
        blank = np.zeros(sample.image.shape[1:], np.float32)
        instance = Instance(sample.image, sample.target, blank, logits=sample.logits, shared=shared)
        yield from self.covered(instance, sample.key.seed)

    def covered(self, instance: Instance, seed: int = 0) -> Steps[None]:
        """As `cover`, for an instance."""
        context = Context(self._model.activation, seed, self._model.facts.units)
        for fill in sorted(self.fills):
            yield from wholly_covered(instance, context, fill)

    def free_maps(self, names: Sequence[str]) -> set[str]:
        """Which of some explainers have their maps from the passes of another one."""
        called = self._model.measured
        return {each for each in names if any(share_passes(called[other], called[each]) for other in names)}


def shares(metric: Metric[Any]) -> bool:
    """Whether a metric finds passes of perturbed pictures in `Instance.shared`, and leaves its own there."""
    return isinstance(metric, Faithfulness)


def _runs_nothing(*arguments: Any) -> Any:
    raise ValueError("metrics of localization ask for no passes")
