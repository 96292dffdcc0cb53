"""How samples get on: which runs each one needs, and what follows when one of them has ended."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.engine.work import FloatArray, Kind, MaskedForward, OodScore, ood_score
from xai_sidecar.evaluator.agenda import COSTLY, FIRST, LATER, Agenda, Run
from xai_sidecar.evaluator.costs import Costs
from xai_sidecar.evaluator.keeping import Keeper
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.measurement import EvaluatedModel, Measurer
from xai_sidecar.evaluator.records import Sample, SampleState
from xai_sidecar.evaluator.runs import Measurement
from xai_sidecar.evaluator.spending import Spending
from xai_sidecar.metrics.base import Need
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.telemetry import EXPLAIN

_MOST_OPEN = 12
"""Samples that are measured at a time: so many get their first scores before the first one gets all others."""

_COSTLY = 12
"""How many times the passes of its first scores a map may take and still come with those of cheap ones: most explainers
are known, and `auto` can act, before the costliest ones have taken as many passes as all others."""

_MOST_WAITING = 4
"""Runs of one kind that may wait. Of a kind that is run too rarely to keep up, some samples are not measured: which
ones depends on time alone."""


@dataclass(eq=False)
class _Measured:
    """A sample that is being measured.

    Attributes:
        sample: The sample.
        number: Its number, in the order in which they were begun.
        open: Runs that have not ended.
        scored: Whether one of them gave a score.
        covering: Whether the passes that all its maps need are still being made.
        passes: Those passes, until a map is charged for them.
        shared: Their logits.
        held: Maps that wait for them.
        maps: Maps by explainer or control, of those that can be believed.
    """

    sample: Sample
    number: int
    open: int = 0
    scored: bool = False
    covering: bool = False
    passes: int = 0
    shared: dict[Any, Any] = field(default_factory=dict)
    held: list[Measurement] = field(default_factory=list)
    maps: dict[str, FloatArray] = field(default_factory=dict)


class Progress:
    """The samples that are being measured, from the first run to the last; for one thread.

    Args:
        measurer: Makes the measurements.
        model: The model.
        settings: The evaluator's section of the config.
        keeper: Takes what comes of it.
        quality: The scores so far.
        on_maps: Called with a sample and its maps, by explainer or control, once it is measured.
        thorough: Whether everything is measured of each sample, however much it costs.
    """

    def __init__(
        self,
        measurer: Measurer,
        model: EvaluatedModel,
        settings: EvaluatorConfig,
        keeper: Keeper,
        quality: LiveQuality,
        on_maps: Callable[[Sample, Mapping[str, FloatArray]], object] = lambda sample, maps: None,
        *,
        thorough: bool = False,
    ) -> None:
        self._thorough = thorough
        self._measurer = measurer
        self._model = model
        self._keeper = keeper
        self._quality = quality
        self._on_maps = on_maps
        costs, auto = Costs(measurer, model, settings), settings.auto
        self._lead = costs.lead
        self._spending = Spending(
            costs,
            measurer.compared,
            auto.weights,
            auto.vetoes,
            auto.min_samples,
            quality.statistics,
            quality.differences,
        )
        self._most_passes = _COSTLY * costs.first_passes
        self._passes_of_maps: dict[str, int] = {}  # of the last one of each explainer that was begun or made
        self._agenda = Agenda()
        self._numbers = itertools.count()
        self._open: set[_Measured] = set()

    @property
    def open_count(self) -> int:
        """Samples that have been begun and not ended."""
        return len(self._open)

    @property
    def has_room(self) -> bool:
        """Whether another sample may be begun."""
        return len(self._open) < _MOST_OPEN and self._agenda.has_room(MaskedForward.kind)

    def next(self, last_stage: int) -> Run | None:
        """The next run to submit; see `Agenda.next`."""
        return self._agenda.next(last_stage)

    def runs(self, take: Callable[[], Sample | None]) -> Iterator[Run]:
        """The runs to submit now: first scores, then those of new samples while there is room, then all others.

        Args:
            take: Gives the next sample; None of none.
        """
        while True:
            run = self.next(FIRST)
            if run is None and self.has_room and (sample := take()) is not None:
                self.begin(sample)
                continue
            if (run := run or self.next(LATER)) is None:
                return
            yield run

    def ended(self, run: Run, completed: Any) -> None:
        """Takes what a run came to.

        Args:
            run: One that `next` gave.
            completed: The result of its job; None where it failed.
        """
        measured = run.measured
        self._agenda.ended(run)
        if run.kind == OodScore.kind:
            if completed is not None:
                self._keeper.keep_ood(measured.sample, completed.value)
        elif not run.measurements:
            self._covered(measured, 0 if completed is None else completed.pass_count)
        elif run.metrics is None:
            self._made(measured, run, completed is None)
        else:
            self._scored(measured, run.measurements[0], run.metrics, completed is None)
        measured.open -= 1
        if not measured.open:
            self._conclude(measured)

    def begin(self, sample: Sample) -> None:
        """Begins to measure a sample."""
        measured = _Measured(sample, next(self._numbers))
        self._open.add(measured)
        measurements = [
            self._measurer.plan(sample, name, self._worthwhile(sample, name))
            for name in self._measurer.explainers(sample)
            if self._thorough
            or (self._spending.measures(sample.key, name) and self._keeps_up(self._kind(name), FIRST, COSTLY))
        ]
        if self._measurer.fills and any(set(each.planned) & set(self._lead) for each in measurements):
            measured.covering = True
            self._add(measured, Run(measured.number, FIRST, MaskedForward.kind))
        for group in self._measurer.together(measurements):
            self._add(measured, Run(measured.number, self._stage(group), self._kind(group[0].explainer), group))
        if sample.ood is not None:
            self._quality.put_ood(sample.key, sample.time, sample.ood, sample.weight)
        elif self._model.facts.has_ood:
            self._add(measured, Run(measured.number, FIRST, OodScore.kind))
        if not measured.open:
            self._conclude(measured)

    def _kind(self, explainer: str) -> Kind:
        """The kind of passes that maps take; controls, which take none, count with those that may always run."""
        call = self._measurer.call(explainer, 0)
        return call.explainer.kind(call.parameters) if self._measurer.map_passes(explainer) else MaskedForward.kind

    def _worthwhile(self, sample: Sample, explainer: str) -> Collection[str]:
        """The metrics that are worth what they cost on a sample."""
        metrics = self._measurer.metrics
        return metrics if self._thorough else self._spending.metrics(sample.key, explainer, metrics)

    def _stage(self, group: Sequence[Measurement]) -> int:
        """The stage of maps. An explainer's first one comes with those of all others, whatever it takes."""
        passes = [self._passes_of_maps.get(each.explainer, 0) for each in group]
        for each in group:
            self._passes_of_maps.setdefault(each.explainer, self._measurer.map_passes(each.explainer))
        return COSTLY if max(passes) > self._most_passes else FIRST

    def _keeps_up(self, kind: Kind, *stages: int) -> bool:
        waiting = sum(self._agenda.waiting(kind, stage) for stage in stages)
        return self._thorough or kind == MaskedForward.kind or waiting < _MOST_WAITING

    def _add(self, measured: _Measured, run: Run) -> None:
        measured.open += 1
        if self._thorough:  # one sample after the other, as far as that fills batches: what ends early loses few
            run.stage = FIRST
        run.measured = measured
        self._agenda.add(run)

    def steps(self, run: Run) -> Any:
        """The computation of a run."""
        measured = run.measured
        if run.kind == OodScore.kind:
            return ood_score(measured.sample.image[np.newaxis])
        if not run.measurements:
            return self._measurer.cover(measured.sample, measured.shared)
        if run.metrics is None:
            return self._measurer.make(run.measurements)
        passes, measured.passes = measured.passes, 0
        return self._measurer.score(run.measurements[0], run.metrics, passes)

    def _covered(self, measured: _Measured, passes: int) -> None:
        measured.covering, measured.passes = False, passes
        for measurement in measured.held:
            self._score(measured, measurement)
        measured.held.clear()

    def _made(self, measured: _Measured, run: Run, failed: bool) -> None:
        """Keeps the maps that were made, and goes on with them; of several that failed, each is made alone."""
        if failed and len(run.measurements) > 1:
            for each in run.measurements:
                self._add(measured, Run(measured.number, run.stage, self._kind(each.explainer), [each]))
            return
        for measurement in run.measurements:
            if failed:
                measurement.fail()
            measured.scored |= self._keeper.keep_map(measurement)
            if measurement.map is None:
                continue
            measured.maps[measurement.explainer] = measurement.map.saliency
            self._passes_of_maps[measurement.explainer] = measurement.map.pass_count
            if measured.covering:
                measured.held.append(measurement)
            else:
                self._score(measured, measurement)

    def _score(self, measured: _Measured, measurement: Measurement) -> None:
        """Has a map measured, first by what says the most and takes the same passes."""
        measurement.shared.update(measured.shared)
        lead = tuple(name for name in measurement.planned if name in self._lead)
        if lead:
            self._add(measured, Run(measured.number, FIRST, MaskedForward.kind, [measurement], lead))
        else:
            self._score_further(measured, measurement)

    def _score_further(self, measured: _Measured, measurement: Measurement) -> None:
        kind, perturbing = self._kind(measurement.explainer), {each.name for each in self._measurer.perturbing}
        rest = [name for name in measurement.planned if name not in (EXPLAIN, *self._lead)]
        runs = [(MaskedForward.kind, tuple(name for name in rest if name in perturbing))]
        for name in rest:
            metric = installed_metrics()[name]
            explains = Need.EXPLAINER in metric.needs or not metric.kinds
            if name not in perturbing:
                runs.append((kind if explains else next(iter(metric.kinds)), (name,)))
        late = {each for each, _ in runs if not self._keeps_up(each, LATER)}
        for each, names in runs:
            if names and each not in late:
                self._add(measured, Run(measured.number, LATER, each, [measurement], names))

    def _scored(self, measured: _Measured, measurement: Measurement, metrics: tuple[str, ...], failed: bool) -> None:
        if failed:
            measurement.fail(metrics)
        measured.scored |= self._keeper.keep_scores(measurement, metrics)
        if set(metrics) <= set(self._lead):
            self._score_further(measured, measurement)

    def _conclude(self, measured: _Measured) -> None:
        self._open.discard(measured)
        unscored = SampleState.FAILED if measured.sample.positives else SampleState.NO_POSITIVE
        self._quality.compare()
        self._on_maps(measured.sample, measured.maps)
        self._keeper.end(measured.sample.key, SampleState.SCORED if measured.scored else unscored)
