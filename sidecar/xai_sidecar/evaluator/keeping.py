"""Keeps what measuring comes to: maps, scores and OoD scores, and what ground truth makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import structlog

from xai_sidecar.errors import StoreError
from xai_sidecar.evaluator.annotations import regions
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.measurement import Measurer
from xai_sidecar.evaluator.records import GroundTruth, MapRecord, Sample, SampleKey, SampleRecord, SampleState
from xai_sidecar.evaluator.runs import Measurement, MetricRun, run_of
from xai_sidecar.evaluator.store import Store
from xai_sidecar.evaluator.store_errors import StoreErrors
from xai_sidecar.metrics.srg import Srg
from xai_sidecar.telemetry import EvaluatorTelemetry

_MOST_FAILURES = 3
"""Ground truths that may fail to be applied before the rest is left for the next round."""

_log = structlog.get_logger(__name__)


class Keeper:
    """Puts results into the store, the rolling windows and the counters as soon as they are there, on one thread.

    Args:
        store_errors: The store.
        measurer: Makes the measurements.
        quality: Rolling windows for the scores.
        telemetry: Counts measurements.
    """

    def __init__(
        self, store_errors: StoreErrors, measurer: Measurer, quality: LiveQuality, telemetry: EvaluatorTelemetry
    ) -> None:
        self._store_errors = store_errors
        self._measurer = measurer
        self._quality = quality
        self._telemetry = telemetry

    @property
    def _store(self) -> Store:
        return self._store_errors.store

    def keep_map(self, measurement: Measurement) -> bool:
        """Keeps a map, located where there is ground truth; returns whether the sample counts as scored by it alone."""
        sample = measurement.sample
        for run in measurement.runs:
            self._count(measurement.explainer, run)
        said = measurement.disbelieved
        if said is not None and measurement.withheld is not None:
            self._quality.put_score(sample.key, sample.time, said, sample.weight)
            with self._store_errors.writing(sample.key):
                explained = said.explainer, said.target, measurement.withheld, said.pass_count
                self._store.put_withheld(sample.key, *explained, [said])
        if measurement.map is None:
            return False
        with self._store_errors.writing(sample.key):
            self._store.add_map(sample.key, measurement.map, ())
            truth = self._store.truth(sample.key)
            if truth is not None:
                self._locate(sample, truth, [measurement.map])
        return len(measurement.planned) == 1  # only localization, which needs ground truth

    def keep_scores(self, measurement: Measurement, metrics: Sequence[str]) -> bool:
        """Keeps scores of a map by some metrics; returns whether there is one."""
        sample = measurement.sample
        for run in measurement.runs:
            if run.metric in metrics:
                self._count(measurement.explainer, run)
        scores = [score for score in measurement.scores if score.metric in metrics]
        for score in scores:
            self._quality.put_score(sample.key, sample.time, score, sample.weight)
        if scores:
            with self._store_errors.writing(sample.key):
                # The curves of SRG are what others are made of, too, unless these have a protocol of their own.
                alike = Srg.name in measurement.planned
                kept = [replace(each, curves=()) if alike and each.metric != Srg.name else each for each in scores]
                self._store.put_scores(sample.key, kept)
        return any(score.value is not None for score in scores)

    def end(self, key: SampleKey, state: SampleState) -> None:
        """See `StoreErrors.end`."""
        self._store_errors.end(key, state)

    def keep_ood(self, sample: Sample, scored: Any) -> None:
        """Keeps a sample's OoD score and percentile, if they are finite."""
        ood = (float(scored.scores[0]), float(scored.percentiles[0]))
        if np.isfinite(ood).all():
            self._quality.put_ood(sample.key, sample.time, ood, sample.weight)
            with self._store_errors.writing(sample.key):
                self._store.set_ood(sample.key, ood)

    def apply_truths(self, model_version: str) -> None:
        """Applies the ground truth that has been reported and not been applied yet."""
        with self._store_errors.writing():
            failures = 0
            for key in self._store.unapplied_truths(model_version):
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
        self._quality.put_truth(record.key, record.positives, truth.class_ids, record.weight)
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
                self._quality.put_score(record.key, record.time, score, record.weight)
                self._count(saliency.explainer, run_of(score))

    def _count(self, explainer: str, run: MetricRun) -> None:
        self._telemetry.evaluated(explainer, run.metric, run.seconds, run.pass_count, run.failure)
