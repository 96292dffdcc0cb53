"""The series of explanation quality: scores of sampled traffic, the evaluator's own health, OoD, ground truth, auto."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_PERCENTILE_BUCKETS = (0.1, 0.5, 1, 2, 5, 10, 25, 50, 75, 90, 100)
_SCORE_BUCKETS = tuple(round(-0.5 + 0.1 * step, 1) for step in range(16))

EXPLAIN = "explain"
"""What stands in the label `metric` of the evaluation counters for making the map."""

OTHER = "other"
"""What stands in the label `class` for all classes without series of their own."""

EVENTS = ("sampled", "repeated", "dropped", "expired", "lost", "scored", "failed", "no_positive")
"""What happens to samples."""

STATES = ("off", "no_traffic", "up_to_date", "working")
"""What the evaluator is doing."""

RESULTS = ("new", "replaced", "repeated")
"""What a report of ground truth changes."""

REASONS = ("best", "best_of_class", "fallback")
"""Why `auto` takes an explainer."""

_OUTCOMES = ("tp", "fp", "fn", "tn")
_ERROR = "error"


class QualityTelemetry:
    """The quality series of one server, all there from the start: counters at 0, unknown gauges NaN, the state off.

    Methods may be called from any thread. Names that are not among those given raise a KeyError, since a series that
    appears later, or one for each typing error, is of no use to alerts.

    Args:
        registry: Where the series go.
        explainers: Those that are measured, or chosen by `auto`.
        metrics: The benchmarks' names.
        classes: The labels of the classes with series of their own, each once; all others share `OTHER`. A class that
            is really called so shows in quotes.
        failure_reasons: Why an evaluation can fail. "error" is always among them, and takes what is not.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        explainers: Sequence[str],
        metrics: Sequence[str],
        classes: Sequence[str],
        failure_reasons: Sequence[str],
    ) -> None:
        if len(set(classes)) < len(classes):
            raise ValueError("a class is listed twice, so that its series would be mixed up")
        self.registry = registry
        names = _class_names(classes)
        self._add_scores(explainers, metrics, names)
        self._add_evaluations(explainers, [*metrics, EXPLAIN], failure_reasons)
        self._add_evaluator()
        self._add_ood()
        self._add_truth(names)
        self._store_bytes = self._gauge("xai_store_bytes", "Size of the store, with its journal.", math.nan)
        self._store_failures = self._counter("xai_store_failures", "Reads and writes of the store that failed.")
        choices = self._counter("xai_auto_choices", "Explainers that auto took, by why.", ["explainer", "reason"])
        self._choices = {key: choices.labels(*key) for key in product(explainers, REASONS)}

    def _add_scores(self, explainers: Sequence[str], metrics: Sequence[str], names: dict[str | None, str]) -> None:
        pair = ["explainer", "metric"]
        window = "of an explainer's maps over the rolling window of samples"
        gauges = [
            self._gauge(name, text, labels=pair)
            for name, text in (
                ("xai_quality_score", f"Mean score {window}."),
                ("xai_quality_score_standard_error", "Standard error of the mean score."),
                ("xai_quality_goodness", f"Mean score {window}, mapped to [0, 1] so that 1 is best."),
                ("xai_quality_goodness_standard_error", "Standard error of the goodness."),
                ("xai_quality_samples", "Samples with a score in the rolling window."),
                ("xai_quality_last_success_timestamp_seconds", "When the last score was measured, as Unix time."),
            )
        ]
        unknown = (math.nan, math.nan, math.nan, math.nan, 0, 0)
        self._quality = {key: [gauge.labels(*key) for gauge in gauges] for key in product(explainers, metrics)}
        for children in self._quality.values():
            _set(children, unknown)
        triple = [*pair, "class"]
        score = self._gauge("xai_quality_class_score", "Mean score over the samples of a class.", labels=triple)
        samples = self._gauge("xai_quality_class_samples", "Samples of a class with a score.", labels=triple)
        self._class_quality = {}
        for explainer, metric, (label, name) in product(explainers, metrics, names.items()):
            children = [score.labels(explainer, metric, name), samples.labels(explainer, metric, name)]
            _set(children, (math.nan, 0))
            self._class_quality[explainer, metric, label] = children
        composite = self._gauge(
            "xai_quality_composite", "Composite goodness in [0, 1] that auto goes by.", labels=["explainer"]
        )
        self._composite = {explainer: composite.labels(explainer) for explainer in explainers}
        _set(list(self._composite.values()), (math.nan,) * len(self._composite))

    def _add_evaluations(self, explainers: Sequence[str], metrics: Sequence[str], reasons: Sequence[str]) -> None:
        pair = ["explainer", "metric"]
        counters = [
            self._counter(name, text, pair)
            for name, text in (
                ("xai_evaluations", "Measurements that ended, failed ones included; metric explain: making the map."),
                ("xai_evaluation_seconds", "Time that measurements took, waiting included."),
                ("xai_evaluation_passes", "Rows that went through the model for measurements."),
            )
        ]
        failures = self._counter("xai_evaluation_failures", "Measurements without a score, by why.", [*pair, "reason"])
        keys = list(product(explainers, metrics))
        self._evaluations = {key: [counter.labels(*key) for counter in counters] for key in keys}
        self._failures = {
            (*key, reason): failures.labels(*key, reason)
            for key in keys
            for reason in dict.fromkeys((*reasons, _ERROR))
        }

    def _add_evaluator(self) -> None:
        samples = self._counter("xai_samples", "What happened to samples of live traffic.", ["event"])
        self._events = {event: samples.labels(event) for event in EVENTS}
        self._pending = [
            self._gauge("xai_evaluator_pending_samples", "Samples that wait to be evaluated.", 0),
            self._gauge("xai_evaluator_pending_bytes", "Memory taken by samples that wait.", 0),
        ]
        states = self._gauge("xai_evaluator_state", "1 for what the evaluator is doing, else 0.", labels=["state"])
        self._states = {state: states.labels(state) for state in STATES}
        self.state(STATES[0])
        self._sampled = self._gauge(
            "xai_evaluator_last_sample_timestamp_seconds", "When the last sample was taken, as Unix time.", 0
        )
        self._round = self._gauge(
            "xai_evaluator_last_round_timestamp_seconds", "When the last round of evaluation ended, as Unix time.", 0
        )
        self._interval = self._gauge(
            "xai_evaluator_interval_seconds", "Time from one round of evaluation to the next.", math.nan
        )

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
        self._outlier_share = self._gauge(
            "xai_ood_outlier_share", "Share of the rolling window's samples that are out of distribution.", math.nan
        )

    def _add_truth(self, names: dict[str | None, str]) -> None:
        reports = self._counter("xai_ground_truth_reports", "Reports of ground truth, by what they change.", ["result"])
        self._reports = {result: reports.labels(result) for result in RESULTS}
        outcomes = self._gauge(
            "xai_outcomes",
            "Kept samples with known labels, by class and outcome: true or false positive or negative.",
            labels=["class", "outcome"],
        )
        self._outcomes = {
            label: [outcomes.labels(name, outcome) for outcome in _OUTCOMES] for label, name in names.items()
        }

    def event(self, name: str, count: int = 1) -> None:
        """Counts samples to which one of `EVENTS` happened."""
        self._events[name].inc(count)

    def pending(self, count: int, bytes: int) -> None:  # noqa: A002
        """Tells how many samples wait, and the memory that they take."""
        _set(self._pending, (count, bytes))

    def state(self, name: str) -> None:
        """Tells which of `STATES` the evaluator is in."""
        self._states[name].set(1)
        for other, gauge in self._states.items():
            if other != name:
                gauge.set(0)

    def sampled(self, time: float) -> None:
        """Tells when the last sample was taken, as Unix time."""
        self._sampled.set(time)

    def round(self, time: float) -> None:
        """Tells when the last round of evaluation ended, as Unix time."""
        self._round.set(time)

    def interval(self, seconds: float) -> None:
        """Tells the time from one round to the next."""
        self._interval.set(seconds)

    def quality(
        self,
        explainer: str,
        metric: str,
        mean: float | None,
        standard_error: float | None,
        goodness: float | None,
        goodness_se: float | None,
        count: int,
        updated: float | None,
    ) -> None:
        """Tells the quality of an explainer by a metric over the window.

        Args:
            explainer: Whose maps.
            metric: By which benchmark.
            mean: Of the scores; None without samples.
            standard_error: Of the mean; None below two samples.
            goodness: The mean mapped to [0, 1].
            goodness_se: Its standard error.
            count: Samples in the window.
            updated: When the last score was measured, as Unix time; None if never.
        """
        _set(self._quality[explainer, metric], (mean, standard_error, goodness, goodness_se, count, updated or 0))

    def class_quality(
        self, explainer: str, metric: str, class_label: str | None, mean: float | None, count: int
    ) -> None:
        """Tells the mean score of one of the classes, or, for None or `OTHER`, of all without series of their own."""
        _set(self._class_quality[explainer, metric, class_label], (mean, count))

    def composite(self, explainer: str, value: float | None) -> None:
        """Tells the composite goodness of an explainer; None if it is not known."""
        _set([self._composite[explainer]], (value,))

    def evaluated(self, explainer: str, metric: str, seconds: float, passes: int, failure: str | None = None) -> None:
        """Counts a measurement, or, for the metric `EXPLAIN`, a map that was made.

        Args:
            explainer: Whose map.
            metric: By which benchmark.
            seconds: What it took, waiting included.
            passes: Rows that went through the model for it.
            failure: Why there is no score; None if there is one.
        """
        for counter, amount in zip(self._evaluations[explainer, metric], (1, seconds, passes), strict=True):
            counter.inc(amount)
        if failure is not None:
            error = self._failures[explainer, metric, _ERROR]
            self._failures.get((explainer, metric, failure), error).inc()

    def ood(self, score: float, percentile: float, beyond: bool) -> None:
        """Counts a picture with an OoD score, its percentile in [0, 100], and whether it is beyond the threshold."""
        self._ood_score.observe(score)
        self._ood_percentile.observe(percentile)
        self._ood_scored.inc()
        self._ood_beyond.inc(beyond)

    def outlier_share(self, value: float | None) -> None:
        """Tells the share of the window's samples beyond the threshold; None without samples."""
        _set([self._outlier_share], (value,))

    def outcomes(self, class_label: str | None, tp: int, fp: int, fn: int, tn: int) -> None:
        """Tells the outcomes of one of the classes, or, for None or `OTHER`, of all without series of their own."""
        _set(self._outcomes[class_label], (tp, fp, fn, tn))

    def report(self, result: str) -> None:
        """Counts a report of ground truth, by one of `RESULTS`."""
        self._reports[result].inc()

    def store_bytes(self, count: int) -> None:
        """Tells the size of the store."""
        self._store_bytes.set(count)

    def store_failed(self) -> None:
        """Counts a read or write of the store that failed."""
        self._store_failures.inc()

    def chosen(self, explainer: str, reason: str) -> None:
        """Counts a choice of `auto`, for one of `REASONS`."""
        self._choices[explainer, reason].inc()

    def _gauge(self, name: str, text: str, value: float = 0, *, labels: Sequence[str] = ()) -> Gauge:
        gauge = Gauge(name, text, labels, registry=self.registry)
        if not labels:
            gauge.set(value)
        return gauge

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(name, text, labels, registry=self.registry)


def _class_names(classes: Sequence[str]) -> dict[str | None, str]:
    """What stands in the label `class`, by the class's own; None is the rest, as is `OTHER` unless a class has it."""
    names: dict[str | None, str] = {}
    for label in classes:
        name = label
        while name == OTHER or name in names.values() or (name != label and name in classes):
            name = f'"{name}"'
        names[label] = name
    if OTHER not in names:
        names[OTHER] = OTHER
    names[None] = OTHER
    return names


def _set(gauges: Sequence[Gauge], values: Sequence[float | None]) -> None:
    for gauge, value in zip(gauges, values, strict=True):
        gauge.set(math.nan if value is None else value)
