"""The evaluator's counters: what became of samples, measurements, OoD scores, ground truth, the store and `auto`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_PERCENTILE_BUCKETS = (0.1, 0.5, 1, 2, 5, 10, 25, 50, 75, 90, 100)
_SCORE_BUCKETS = tuple(round(-0.5 + 0.1 * step, 1) for step in range(16))

EXPLAIN = "explain"
"""Value of the label `metric` of the evaluation counters for making the map."""

EVENTS = ("sampled", "repeated", "dropped", "expired", "lost", "scored", "failed", "no_positive")
"""What happens to samples."""

RESULTS = ("new", "replaced", "repeated")
"""What a report of ground truth changes."""

REASONS = ("best", "best_of_class", "fallback")
"""Why `auto` takes an explainer."""

_DONE, _FAILED, _NOT_APPLICABLE = "done", "failed", "not_applicable"
"""How measurements end: with a score (or a map), without one, or with nothing in the sample to measure."""

_ERROR = "error"


class EvaluatorTelemetry:
    """Counts what the evaluator does.

    Counters that alerts are about begin at 0 for every label set: `increase()` does not see the event with which a
    series appears. Seconds, passes and reasons of failures, which are too many label sets for that, appear with their
    first event; what happened then is in `xai_evaluations_total`.

    Methods may be called from any thread. Names that are not among those given raise a KeyError: a series for each
    typing error is of no use.

    Args:
        registry: Where the series go.
        explainers: Those that are measured, and chosen by `auto`.
        metrics: The names of the metrics.
        failure_reasons: Why a measurement can be without a score. "error" is always among them, and takes what is not.
        not_applicable: Those of them that are no failure: the sample has nothing for the metric to measure.
        controls: What is measured beside the explainers, and never chosen. Its series come with its first measurement.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        explainers: Sequence[str],
        metrics: Sequence[str],
        failure_reasons: Sequence[str],
        not_applicable: Collection[str] = (),
        controls: Iterable[str] = (),
    ) -> None:
        self.registry = registry
        self._reasons = frozenset((*failure_reasons, _ERROR))
        self._not_applicable = frozenset(not_applicable)
        self._add_evaluations(product(explainers, (*metrics, EXPLAIN)))
        self._measured |= frozenset(product(controls, (*metrics, EXPLAIN)))
        self._add_evaluator()
        self._add_ood()
        reports = self._counter("xai_ground_truth_reports", "Reports of ground truth, by what they change.", "result")
        self._reports = {result: reports.labels(result) for result in RESULTS}
        self._store_bytes = self._gauge("xai_store_bytes", "Size of the store, with its journal.")
        self._store_failures = self._counter("xai_store_failures", "Reads and writes of the store that failed.")
        choices = self._counter("xai_auto_choices", "Explainers that auto took, by why.", "explainer", "reason")
        self._choices = {key: choices.labels(*key) for key in product(explainers, REASONS)}

    def _add_evaluations(self, keys: Iterable[tuple[str, str]]) -> None:
        pair = ("explainer", "metric")
        self._evaluations = self._counter(
            "xai_evaluations",
            "Measurements that ended: done, failed, or not_applicable to the sample; metric explain: making the map.",
            *pair,
            "result",
        )
        self._seconds = self._counter("xai_evaluation_seconds", "Time that measurements took, waiting included.", *pair)
        self._passes = self._counter(
            "xai_evaluation_passes", "Rows that went through the model for measurements.", *pair
        )
        self._failures = self._counter(
            "xai_evaluation_failures", "Measurements without a score, by why.", *pair, "reason"
        )
        self._measured = frozenset(keys)
        for key, result in product(self._measured, (_DONE, _FAILED)):
            self._evaluations.labels(*key, result)

    def _add_evaluator(self) -> None:
        samples = self._counter("xai_samples", "What happened to samples of live traffic.", "event")
        self._events = {event: samples.labels(event) for event in EVENTS}
        self._pending_samples = self._gauge("xai_evaluator_pending_samples", "Samples that wait to be evaluated.", 0)
        self._pending_bytes = self._gauge("xai_evaluator_pending_bytes", "Memory taken by samples that wait.", 0)
        self._round = self._gauge(
            "xai_evaluator_last_round_timestamp_seconds",
            "When the last round of evaluation ended, as Unix time; 0 if none has.",
            0,
        )
        self._interval = self._gauge("xai_evaluator_interval_seconds", "Time from one round of evaluation to the next.")

    def _add_ood(self) -> None:
        self._ood_percentile = Histogram(
            "xai_ood_percentile",
            "Share of held-out training pictures, in percent, with a lower OoD score than the picture.",
            buckets=_PERCENTILE_BUCKETS,
            registry=self.registry,
        )
        self._ood_score = Histogram(
            "xai_ood_score",
            "OoD score; higher is more like the training pictures.",
            buckets=_SCORE_BUCKETS,
            registry=self.registry,
        )
        self._ood_scored = self._counter("xai_ood_scored", "Pictures with an OoD score.")
        self._ood_beyond = self._counter(
            "xai_ood_beyond_threshold", "Pictures that are out of distribution by the threshold."
        )

    def event(self, name: str, count: int = 1) -> None:
        """Counts samples to which one of `EVENTS` happened."""
        self._events[name].inc(count)

    def watch_pending(self, count: Callable[[], int], byte_count: Callable[[], int]) -> None:
        """Shows samples that wait, and the memory that they take, as of whenever /metrics is read."""
        self._pending_samples.set_function(count)
        self._pending_bytes.set_function(byte_count)

    def round(self, time: float) -> None:
        """Sets when the last round of evaluation ended, Unix time in seconds."""
        self._round.set(time)

    def interval(self, seconds: float) -> None:
        """Sets the time from one round to the next."""
        self._interval.set(seconds)

    def evaluated(self, explainer: str, metric: str, seconds: float, passes: int, failure: str | None = None) -> None:
        """Counts a measurement, or, for the metric `EXPLAIN`, a map that was made.

        Args:
            explainer: Explainer of the map.
            metric: The metric's name.
            seconds: Time that it took, waiting included.
            passes: Rows that went through the model for it.
            failure: Why there is no score; None if there is one.
        """
        key = (explainer, metric)
        if key not in self._measured:
            raise KeyError(key)
        result = _DONE if failure is None else _NOT_APPLICABLE if failure in self._not_applicable else _FAILED
        self._evaluations.labels(*key, result).inc()
        self._seconds.labels(*key).inc(seconds)
        self._passes.labels(*key).inc(passes)
        if failure is not None:
            self._failures.labels(*key, failure if failure in self._reasons else _ERROR).inc()

    def ood(self, score: float, percentile: float, beyond: bool) -> None:
        """Counts a picture with an OoD score, its percentile in [0, 100], and whether it is beyond the threshold."""
        self._ood_score.observe(score)
        self._ood_percentile.observe(percentile)
        self._ood_scored.inc()
        self._ood_beyond.inc(beyond)

    def report(self, result: str) -> None:
        """Counts a report of ground truth, by one of `RESULTS`."""
        self._reports[result].inc()

    def store_bytes(self, count: int) -> None:
        """Sets the size of the store in bytes."""
        self._store_bytes.set(count)

    def store_failed(self) -> None:
        """Counts a read or write of the store that failed."""
        self._store_failures.inc()

    def chosen(self, explainer: str, reason: str) -> None:
        """Counts a choice of `auto`, for one of `REASONS`."""
        self._choices[explainer, reason].inc()

    def _gauge(self, name: str, text: str, value: float = math.nan) -> Gauge:
        """A gauge; NaN, which /metrics leaves out, until it is known."""
        gauge = Gauge(name, text, registry=self.registry)
        gauge.set(value)
        return gauge

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)
