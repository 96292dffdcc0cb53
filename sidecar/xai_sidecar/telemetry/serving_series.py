"""The series of serving: calls, explanations, what the device does. The registry is handed in: tests share none."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.dispatcher import BatchRecord
from xai_sidecar.engine.job import JobOutcome
from xai_sidecar.engine.work import KIND_NAMES
from xai_sidecar.errors import SidecarError
from xai_sidecar.explainers.base import MapStatus

_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_EXPLANATION_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_LAUNCH_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

_WAIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)

STAGES = ("complete", "truncated", "skipped")
"""How explanations end."""

QUALITY_METHODS = (
    "ListSamples",
    "GetSample",
    "WatchSamples",
    "GetQuality",
    "GetQualityHistory",
    "GetClassMaps",
)

OPEN_INFERENCE_METHODS = ("ModelInfer", "ModelReady", "ModelMetadata")
"""Of the Open Inference Protocol, those that are about a model. The others are asked by probes."""

_INFER = "ModelInfer"
_SERVING_METHODS = ("Predict", "PredictStream", "ReportGroundTruth", "GetModelInfo")

METHODS = (*_SERVING_METHODS, *QUALITY_METHODS, *OPEN_INFERENCE_METHODS)

_NAMES = {lane: lane.name.lower() for lane in Lane}

REPEATS = ("joined", "repeated", "cached")
"""How calls are answered without work of their own."""

M = TypeVar("M", Counter, Gauge, Histogram)


class Telemetry:
    """The series of one server. All label values come from fixed sets.

    Counters begin at 0 for every label set, and so does the histogram that an alert is about: `increase()` does not see
    the event with which a series appears. The other histograms, a dozen series for each label set, appear with what
    they are about, and so do the counts of calls that only read samples, and those of a protocol that may never be
    used, with all codes of its method at the first call; quantiles of many do without the first.

    Args:
        registry: Where the series go.
        explainers: The names of the explainers.
    """

    def __init__(self, registry: CollectorRegistry, explainers: Iterable[str]) -> None:
        self.registry = registry
        self._series: dict[tuple[Any, ...], Any] = {}
        self.ready = Gauge("xai_ready", "1 when the server takes requests, else 0.", registry=registry)
        self.ready_timestamp = Gauge(
            "xai_ready_timestamp_seconds", "When the server became ready, as Unix time.", registry=registry
        )
        self.model = Info("xai_model", "The model served.", registry=registry)
        self.requests = Counter(
            "xai_requests", "Calls that ended, by method and gRPC status code.", ["method", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            "xai_request_duration_seconds",
            "Time from receiving a call to answering it.",
            ["method"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self.repeats = Counter(
            "xai_repeats",
            "Calls answered without work of their own: by joining that of the same call, by its answer, kept, "
            "or by the response cache.",
            ["how"],
            registry=registry,
        )
        self.images = Counter("xai_images", "Pictures classified.", registry=registry)
        self.without_positive = Counter(
            "xai_images_without_positive",
            "Pictures on which no class reached the probability from which on it counts as predicted; with sigmoid.",
            registry=registry,
        )
        self.explanations = Counter(
            "xai_explanations",
            "Explanations that ended, by explainer and whether they are whole.",
            ["explainer", "status"],
            registry=registry,
        )
        self.explanation_seconds = Histogram(
            "xai_explanation_duration_seconds",
            "Time from submitting an explanation to its end.",
            ["explainer"],
            buckets=_EXPLANATION_BUCKETS,
            registry=registry,
        )
        self.maps = Counter(
            "xai_maps", "Saliency maps computed, by explainer and status.", ["explainer", "status"], registry=registry
        )
        self.launches = Counter(
            "xai_launches", "Batches run on the device, by kind of work.", ["kind"], registry=registry
        )
        self.launch_rows = Counter("xai_launch_rows", "Rows in batches, without padding.", ["kind"], registry=registry)
        self.launch_padding = Counter(
            "xai_launch_padding_rows", "Rows in batches that were padding.", ["kind"], registry=registry
        )
        self.launch_seconds = Histogram(
            "xai_launch_duration_seconds",
            "Time of one batch on the device.",
            ["kind"],
            buckets=_LAUNCH_BUCKETS,
            registry=registry,
        )
        self.slice_overruns = Counter(
            "xai_slice_overruns",
            "Batches that took longer than a slice, by kind; of one row, or on a machine slower than measured.",
            ["kind"],
            registry=registry,
        )
        self.busy_seconds = Counter(
            "xai_device_busy_seconds", "Time that the device spent on batches, by lane.", ["lane"], registry=registry
        )
        self.queue_rows = Gauge(
            "xai_queue_rows", "Rows that wait for the device, by lane.", ["lane"], registry=registry
        )
        self.queue_wait = Histogram(
            "xai_queue_wait_seconds",
            "Time that a task waited for its first batch on the device, by lane.",
            ["lane"],
            buckets=_WAIT_BUCKETS,
            registry=registry,
        )
        self.jobs = Counter(
            "xai_jobs",
            "Computations that ended, by lane and outcome: done, truncated, failed, expired, hung or cancelled.",
            ["lane", "outcome"],
            registry=registry,
        )
        self.open_bytes = Gauge(
            "xai_open_bytes", "Estimated memory of requests in progress, in bytes.", registry=registry
        )
        self.open_images = Gauge("xai_open_images", "Pictures in requests in progress.", registry=registry)
        self.open_explanations = Gauge(
            "xai_open_explanations", "Explanations in requests in progress.", registry=registry
        )
        self.loop_lag = Histogram(
            "xai_event_loop_lag_seconds",
            "By how much the event loop was late for a timer, ten times a second: what every call waits for it.",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )
        self.log_lines_dropped = Gauge(
            "xai_log_lines_dropped", "Lines of the log dropped since nobody reads stderr.", registry=registry
        )
        for how in REPEATS:
            self.repeats.labels(how)
        for method in _SERVING_METHODS:
            self._begin(method)
        for explainer in explainers:
            for stage in STAGES:
                self.explanations.labels(explainer, stage)
            self.explanation_seconds.labels(explainer)
            for status in MapStatus:
                self.maps.labels(explainer, status.name.lower())
        for kind in KIND_NAMES:
            self.launches.labels(kind)
            self.launch_rows.labels(kind)
            self.launch_padding.labels(kind)
            self.slice_overruns.labels(kind)
        for lane in _NAMES.values():
            self.busy_seconds.labels(lane)
            self.queue_rows.labels(lane)
            for outcome in JobOutcome:
                self.jobs.labels(lane, outcome.value)

    def batch_ran(self, record: BatchRecord) -> None:
        """Counts a batch; see `Observer`."""
        kind, lane = record.kind.name, record.lane
        self._of(self.launches, kind).inc()
        self._of(self.launch_rows, kind).inc(record.row_count)
        self._of(self.launch_padding, kind).inc(record.size - record.row_count)
        self._of(self.launch_seconds, kind).observe(record.seconds)
        self._of(self.busy_seconds, _NAMES[lane]).inc(record.seconds)
        if record.overrun:
            self._of(self.slice_overruns, kind).inc()
        for seconds in record.waits:
            self._of(self.queue_wait, _NAMES[lane]).observe(seconds)

    def predicted(self, positive_count: int) -> None:
        """Counts a picture with the number of classes that count as predicted."""
        self.images.inc()
        if not positive_count:
            self.without_positive.inc()

    def ended(self, lane: Lane, outcome: JobOutcome) -> None:
        """Counts a job; see `Observer`."""
        self._of(self.jobs, _NAMES[lane], outcome.value).inc()

    def answered(self, method: str, code: str, seconds: float) -> None:
        """Counts a call of one of `METHODS` that has ended with a status."""
        if method == _INFER and (id(self.requests), method, "OK") not in self._series:
            self._begin(method)
        self._of(self.requests, method, code).inc()
        self._of(self.request_seconds, method).observe(seconds)

    def explained(self, explainer: str, stage: str, statuses: Iterable[MapStatus], seconds: float) -> None:
        """Counts an explanation, of one of `STAGES`, and its maps."""
        self.explanations.labels(explainer, stage).inc()
        if seconds:  # not skipped
            self.explanation_seconds.labels(explainer).observe(seconds)
        for status in statuses:
            self.maps.labels(explainer, status.name.lower()).inc()

    def _begin(self, method: str) -> None:
        """Has the counts of a method's calls begin, by every code that they may end with."""
        for code in ("OK", "CANCELLED", *_error_codes()):
            self._of(self.requests, method, code)

    def _of(self, metric: M, *labels: str) -> M:
        """A metric's series of some labels; to look one up anew takes as long as all else that is counted of a call."""
        key = (id(metric), *labels)
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = metric.labels(*labels)
        return found

    def became_ready(self) -> None:
        """Marks the server ready, as of now."""
        self.ready.set(1)
        self.ready_timestamp.set(time.time())


def _error_codes() -> list[str]:
    """The status codes of the error tree, without repetition."""
    found, trees = dict.fromkeys([SidecarError.code]), SidecarError.__subclasses__()
    while trees:
        error = trees.pop()
        found[error.code] = None
        trees += error.__subclasses__()
    return list(found)
