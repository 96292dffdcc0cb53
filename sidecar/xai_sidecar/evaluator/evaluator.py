"""The background evaluator: measures sampled traffic in the engine's lowest lane, and stores the results."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import structlog

from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.work import FloatArray, ood_score
from xai_sidecar.errors import DeviceLostError, HungError, ShuttingDownError, StoreError
from xai_sidecar.evaluator.annotations import regions
from xai_sidecar.evaluator.ingest import Ingest
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.measurement import EvaluatedModel, Measurement, Measurer, MetricRun, run_of
from xai_sidecar.evaluator.records import GroundTruth, MapRecord, Sample, SampleRecord, SampleState
from xai_sidecar.evaluator.store import Store
from xai_sidecar.evaluator.store_errors import StoreErrors
from xai_sidecar.telemetry import EXPLAIN, EvaluatorTelemetry

_TOGETHER = 2
"""Samples that are measured at a time: while the last map of one is computed, the other keeps the device busy."""

_POLL_SECONDS = 0.5
"""Longest wait for a job or a report, after which new samples are looked for."""

_HOUSEKEEPING_SECONDS = 60.0
"""Longest time between two rounds of expiring and pruning."""

_MOST_FAILURES = 3
"""Ground truths that may fail to be applied before the rest is left for the next round."""

_BLOCKED = "Nothing more is kept, since another program has been reading the store for too long."
_HANGS = "Nothing is measured any more, since too many measurements hang: restart the server."

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class _Measured:
    """A sample that is being measured.

    Attributes:
        sample: The sample.
        open: Jobs that have not ended.
        scored: Whether one of them gave a score.
        maps: Maps by explainer or control, of those that can be believed.
    """

    sample: Sample
    open: int = 0
    scored: bool = False
    maps: dict[str, FloatArray] = field(default_factory=dict)


class Evaluator:
    """Measures samples from `start` to `close`, on a thread of its own.

    Args:
        engine: Runs the model.
        store: Keeps samples, maps, scores and ground truth; `close` closes it.
        model: The model.
        settings: The evaluator's section of the config.
        quality: Rolling windows for the scores.
        telemetry: Counts samples and measurements.
        max_pixels: Most pixels of an annotated mask.
        clock: Unix time in seconds.
        on_maps: Called with a sample and its maps, by explainer or control, once it is measured.

    Attributes:
        ingest: Takes samples and ground truth from calls.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        model: EvaluatedModel,
        settings: EvaluatorConfig,
        quality: LiveQuality,
        telemetry: EvaluatorTelemetry,
        max_pixels: int,
        clock: Callable[[], float] = time.time,
        on_maps: Callable[[Sample, Mapping[str, FloatArray]], object] = lambda sample, maps: None,
    ) -> None:
        self._engine = engine
        self._on_maps = on_maps
        self._store = store
        self._model = model
        self._settings = settings
        self._quality = quality
        self._telemetry = telemetry
        self._clock = clock
        self._measurer = Measurer(model, settings)
        self._store_errors = StoreErrors(store, telemetry)
        self._woken = threading.Event()
        self.ingest = Ingest(
            self._store_errors, model, settings, quality, telemetry, max_pixels, self._woken.set, clock
        )
        waiting = self.ingest.waiting
        telemetry.watch_pending(lambda: waiting.count, lambda: waiting.byte_count)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._main, name="evaluator", daemon=True)
        # The rest belongs to that thread.
        self._jobs: dict[Future[Any], tuple[_Measured, Measurement | None]] = {}

    def start(self) -> None:
        """Restores live quality and pending samples from the store, and starts the thread.

        Raises:
            ConfigError: Another process has the store.
            StoreError: The store cannot be read.
        """
        self._store.claim()
        self._restore()
        costly = self._measurer.too_costly()
        if costly:
            self._quality.note(f"Not measured, for evaluator.max_passes: {', '.join(costly)}.")
            _log.info("too_costly_to_measure", max_passes=self._settings.max_passes, what=costly)
        self._telemetry.interval(self._settings.interval_seconds)
        self._thread.start()

    def close(self, timeout: float = 5.0) -> None:
        """Cancels measurements in progress, and waits until samples and reports that came in are stored.

        Args:
            timeout: Longest time to wait for each of the two, in seconds: the store may not answer.
        """
        self._stopped.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self.ingest.close(timeout)
        self._store.close()

    # ------------------------------------------------------------------------------------------------ its thread

    def _main(self) -> None:
        next_round = next_housekeeping = 0.0
        more = False  # samples may be waiting that have not been looked at in this round
        while not self._stopped.is_set():
            try:
                reported = self._woken.is_set()
                if reported:  # a report that comes from now on is for the next time
                    self._woken.clear()
                now = time.monotonic()
                due = now >= next_round
                if due:
                    next_round, more = now + self._settings.interval_seconds, True
                if due or now >= next_housekeeping:
                    next_housekeeping = now + _HOUSEKEEPING_SECONDS
                    self._housekeep()
                if reported or due:
                    self._apply_truths()
                more = more and self._begin_more()
                self._report_busy()
                self._await(next_round)
            except (DeviceLostError, ShuttingDownError):
                break
            except Exception:
                _log.exception("evaluation_failed")
                self._stopped.wait(_POLL_SECONDS)
        for job in self._jobs:
            job.cancel()

    def _await(self, next_round: float) -> None:
        """Waits for a job, a report or the next round, and finishes the jobs that are done."""
        left = max(0.0, next_round - time.monotonic())
        if not self._jobs:
            self._woken.wait(min(left, _POLL_SECONDS))
            return
        done, _ = wait(self._jobs, min(left, _POLL_SECONDS), FIRST_COMPLETED)
        for job in done:
            self._finish(job, *self._jobs.pop(job))

    def _begin_more(self) -> bool:
        """Starts waiting samples while fewer than `_TOGETHER` are measured; returns False when none is waiting."""
        accepts = self._engine.accepts(Lane.EVALUATE)
        self._quality.note(_HANGS, not accepts)
        while accepts and len({id(measured) for measured, _ in self._jobs.values()}) < _TOGETHER:
            sample = self.ingest.waiting.take(self._clock())
            if sample is None:
                return False
            self._begin(sample)
        return True

    def _begin(self, sample: Sample) -> None:
        measured = _Measured(sample)
        for name in self._measurer.explainers(sample):
            measurement, steps = self._measurer.begin(sample, name)
            self._submit(measured, measurement, steps)
        if sample.ood is not None:
            self._quality.put_ood(sample.key, sample.time, sample.ood)
        elif self._model.facts.has_ood:
            self._submit(measured, None, ood_score(sample.image[np.newaxis]))
        if not measured.open:
            self._conclude(measured)

    def _submit(self, measured: _Measured, measurement: Measurement | None, steps: Any) -> None:
        job: Future[Any]
        try:
            job = self._engine.submit(steps, Lane.EVALUATE)
        except HungError as error:  # too many others hang
            job = Future()
            job.set_exception(error)
        self._jobs[job] = (measured, measurement)
        measured.open += 1

    def _finish(self, job: Future[Any], measured: _Measured, measurement: Measurement | None) -> None:
        sample = measured.sample
        failed = None
        try:
            completed = job.result()
        except (CancelledError, DeviceLostError, ShuttingDownError):
            self._stopped.set()
            return
        except Exception as error:
            _log.warning("measuring_failed", request_id=sample.key.request_id, error=str(error))
            failed = error
        if measurement is not None:
            if failed is not None:
                measurement.fail()
            measured.scored |= self._keep(measurement, measured.maps)
        elif failed is None:
            self._keep_ood(sample, completed.value)
        measured.open -= 1
        if not measured.open:
            self._conclude(measured)

    def _keep(self, measurement: Measurement, maps: dict[str, FloatArray]) -> bool:
        """Stores the map, in `maps`, too, and scores of a measurement; returns whether its sample counts as scored."""
        sample = measurement.sample
        for run in measurement.runs:
            self._count(measurement.explainer, run)
        for score in measurement.scores:
            self._quality.put_score(sample.key, sample.time, score)
        if measurement.disbelieved is not None:
            self._quality.put_score(sample.key, sample.time, measurement.disbelieved)
            with self._store_errors.writing(sample.key):
                self._store.put_scores(sample.key, [measurement.disbelieved])
        if measurement.map is not None:
            maps[measurement.explainer] = measurement.map.saliency
            with self._store_errors.writing(sample.key):
                self._store.add_map(sample.key, measurement.map, measurement.scores)
                truth = self._store.truth(sample.key)
                if truth is not None:
                    self._locate(sample, truth, [measurement.map])
        only_localization = measurement.map is not None and len(measurement.planned) == 1  # which needs ground truth
        return only_localization or any(score.value is not None for score in measurement.scores)

    def _count(self, explainer: str, run: MetricRun) -> None:
        self._telemetry.evaluated(explainer, run.metric, run.seconds, run.pass_count, run.failure)

    def _keep_ood(self, sample: Sample, scored: Any) -> None:
        ood = (float(scored.scores[0]), float(scored.percentiles[0]))
        if np.isfinite(ood).all():
            self._quality.put_ood(sample.key, sample.time, ood)
            with self._store_errors.writing(sample.key):
                self._store.set_ood(sample.key, ood)

    def _conclude(self, measured: _Measured) -> None:
        unscored = SampleState.FAILED if measured.sample.positives else SampleState.NO_POSITIVE
        self._quality.compare()
        self._on_maps(measured.sample, measured.maps)
        self._store_errors.end(measured.sample.key, SampleState.SCORED if measured.scored else unscored)

    # ------------------------------------------------------------------------------------------------ ground truth

    def _apply_truths(self) -> None:
        with self._store_errors.writing():
            failures = 0
            for key in self._store.unapplied_truths(self._model.version):
                try:
                    record, truth = self._store.sample(key), self._store.truth(key)
                    if record is not None and truth is not None:
                        self._apply(record, truth)
                        self._store.mark_applied(key, truth.time)
                except Exception as error:  # one that cannot be applied must not hold up the others
                    _log.warning("truth_not_applied", request_id=key.request_id, error=str(error))
                    failures += 1
                    if isinstance(error, StoreError):
                        self._store_errors.failed(error, key)
                    if failures >= _MOST_FAILURES:
                        raise

    def _apply(self, record: SampleRecord, truth: GroundTruth) -> None:
        """Counts a sample's ground truth, and replaces its scores by metrics of localization."""
        self._quality.put_truth(record.key, record.positives, truth.class_ids)
        self._quality.remove_scores(record.key, self._measurer.localization)
        self._store.remove_scores(record.key, self._measurer.localization)
        maps = [each for each in self._store.maps(record.key) if self._measurer.defines(each)]
        self._locate(record, truth, maps)

    def _locate(self, record: Sample | SampleRecord, truth: GroundTruth, maps: Sequence[MapRecord]) -> None:
        """Scores maps by the metrics of localization, with the annotated objects of the explained class."""
        annotations = [
            thing.annotation
            for thing in truth.objects
            if thing.class_id == record.target
            or (thing.class_id is None and (not truth.class_ids or record.target in truth.class_ids))
        ]
        if not annotations or not self._measurer.localization:
            return
        frame = (record.frame.height, record.frame.width)
        objects = regions(annotations, record.frame)
        for saliency in maps:
            scores = self._measurer.locate(saliency, frame, objects)
            self._store.put_scores(record.key, scores)
            for score in scores:
                self._quality.put_score(record.key, record.time, score)
                self._count(saliency.explainer, run_of(score))

    # ------------------------------------------------------------------------------------------------ housekeeping

    def _restore(self) -> None:
        version, now = self._model.version, self._clock()
        since, most = now - self._settings.window_seconds, self._settings.window_samples
        known = set(self._model.measured)
        for key, sample_time, score in self._store.recent_scores(version, since, most, self._measurer.definitions):
            self._quality.add_sample(key, sample_time)
            if score.explainer in known and score.metric in (*self._settings.metrics, EXPLAIN):
                self._quality.put_score(key, sample_time, score)
        for key, sample_time, ood in self._store.recent_ood(version, since, most):
            self._quality.put_ood(key, sample_time, ood, new=False)
        for truth in self._store.truths(version):
            self._quality.put_truth(*truth)
        self.ingest.restore()
        self._telemetry.store_bytes(self._store.byte_count() + self._store.journal_bytes())
        self._report_busy()

    def _housekeep(self) -> None:
        now = self._clock()
        self.ingest.expire()
        with self._store_errors.writing():
            for key in self._store.prune(now):
                self._quality.remove_truth(key)
            self._telemetry.store_bytes(self._store.byte_count() + self._store.journal_bytes())
            self._quality.note(_BLOCKED, self._store.blocked)
        self._telemetry.round(now)

    def _report_busy(self) -> None:
        self._quality.set_busy(bool(self._jobs or self.ingest.waiting.count))
