"""The series of serving: what begins at 0, and what is counted where."""

import threading
from itertools import product

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.dispatcher import BatchRecord
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.job import JobOutcome
from xai_sidecar.engine.scheduler import Policy
from xai_sidecar.engine.work import Forward, Kind, forward
from xai_sidecar.errors import DeviceError
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.telemetry import Telemetry

METHODS = {"method": ["Predict", "PredictStream", "ReportGroundTruth", "GetModelInfo"]}
EXPLAINERS = {"explainer": ["rise", "gradcam"]}
KINDS = {
    "kind": [
        "forward",
        "masked_forward",
        "ood_score",
        "masked_ood_score",
        "features",
        "input_gradient",
        "layer_gradient",
    ]
}
LANES = {"lane": ["predict", "explain", "evaluate"]}
SERIES = {
    "xai_ready": {},
    "xai_ready_timestamp_seconds": {},
    "xai_images_total": {},
    "xai_repeats_total": {"how": ["joined", "repeated", "cached"]},
    "xai_images_without_positive_total": {},
    "xai_log_lines_dropped": {},
    "xai_open_images": {},
    "xai_open_explanations": {},
    "xai_open_bytes": {},
    "xai_explanations_total": {**EXPLAINERS, "status": ["complete", "truncated", "skipped"]},
    "xai_explanation_duration_seconds_count": EXPLAINERS,
    "xai_maps_total": {
        **EXPLAINERS,
        "status": ["ok", "all_zero", "zero_gradient", "unreliable", "not_finite", "no_ood_range"],
    },
    "xai_launches_total": KINDS,
    "xai_launch_rows_total": KINDS,
    "xai_launch_padding_rows_total": KINDS,
    "xai_slice_overruns_total": KINDS,
    "xai_device_busy_seconds_total": LANES,
    "xai_queue_rows": LANES,
    "xai_event_loop_lag_seconds_count": {},
    "xai_jobs_total": {**LANES, "outcome": ["done", "truncated", "failed", "expired", "hung", "cancelled"]},
}

LATER = {
    # Histograms that no alert is about appear with their first event.
    "xai_request_duration_seconds_count": METHODS,
    "xai_launch_duration_seconds_count": KINDS,
    "xai_queue_wait_seconds_count": LANES,
}


@pytest.fixture
def telemetry():
    return Telemetry(CollectorRegistry(), EXPLAINERS["explainer"])


def samples(telemetry, name, labels=None):
    """The values of a series by its label values, in the order in which the labels are listed here."""
    labels = labels or SERIES.get(name) or LATER.get(name, {})
    every = [sample for family in telemetry.registry.collect() for sample in family.samples if sample.name == name]
    assert all(set(sample.labels) == set(labels) for sample in every)
    return {tuple(sample.labels[label] for label in labels): sample.value for sample in every}


def changed(telemetry, name):
    """The samples of a series that are not 0."""
    return {labels: value for labels, value in samples(telemetry, name).items() if value}


@pytest.mark.parametrize("name", SERIES)
def test_every_label_value_is_there_from_the_start(telemetry, name):
    assert samples(telemetry, name) == dict.fromkeys(product(*SERIES[name].values()), 0)


def test_all_codes_that_the_server_ends_calls_with_are_there_from_the_start(telemetry):
    codes = {
        "OK", "CANCELLED", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND",
        "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "INTERNAL", "UNAUTHENTICATED", "PERMISSION_DENIED",
    }  # fmt: skip
    found = samples(telemetry, "xai_requests_total", {"method": (), "code": ()})
    assert found == dict.fromkeys(product(METHODS["method"], codes), 0)


def test_all_codes_of_another_protocol_come_with_its_first_call(telemetry):
    telemetry.answered("ModelInfer", "OK", 0.1)
    telemetry.answered("ModelInfer", "OK", 0.1)
    found = samples(telemetry, "xai_requests_total", {"method": (), "code": ()})
    assert found["ModelInfer", "OK"] == 2
    assert found["ModelInfer", "INTERNAL"] == 0
    assert {code for method, code in found if method == "ModelInfer"} == {code for _, code in found}


def test_nothing_else_is_there_from_the_start(telemetry):
    names = {
        sample.name
        for family in telemetry.registry.collect()
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_sum", "_created"))
    }
    assert names == {*SERIES, "xai_requests_total", "xai_model_info"}


def test_a_launch(telemetry):
    masked = Kind("masked_forward")
    telemetry.batch_ran(BatchRecord(masked, Lane.EXPLAIN, 8, 5, 0.03, True, (0.25, 0.5)))
    telemetry.batch_ran(BatchRecord(masked, Lane.EXPLAIN, 4, 4, 0.01, False, ()))
    telemetry.batch_ran(BatchRecord(Forward.kind, Lane.PREDICT, 1, 1, 0.005, False, (0.125,)))
    assert changed(telemetry, "xai_launches_total") == {("masked_forward",): 2, ("forward",): 1}
    assert changed(telemetry, "xai_launch_rows_total") == {("masked_forward",): 9, ("forward",): 1}
    assert changed(telemetry, "xai_launch_padding_rows_total") == {("masked_forward",): 3}
    assert changed(telemetry, "xai_launch_duration_seconds_count") == {("masked_forward",): 2, ("forward",): 1}
    assert changed(telemetry, "xai_slice_overruns_total") == {("masked_forward",): 1}
    assert changed(telemetry, "xai_device_busy_seconds_total") == {
        ("explain",): pytest.approx(0.04),
        ("predict",): 0.005,
    }
    assert changed(telemetry, "xai_queue_wait_seconds_count") == {("explain",): 2, ("predict",): 1}
    value = telemetry.registry.get_sample_value
    assert value("xai_queue_wait_seconds_sum", {"lane": "explain"}) == 0.75
    assert value("xai_queue_wait_seconds_sum", {"lane": "predict"}) == 0.125
    assert value("xai_launch_duration_seconds_sum", {"kind": "masked_forward"}) == pytest.approx(0.04)


def test_the_end_of_a_job(telemetry):
    for lane, outcome in (
        (Lane.PREDICT, JobOutcome.DONE),
        (Lane.EXPLAIN, JobOutcome.TRUNCATED),
        (Lane.EXPLAIN, JobOutcome.TRUNCATED),
        (Lane.EVALUATE, JobOutcome.CANCELLED),
    ):
        telemetry.ended(lane, outcome)
    assert changed(telemetry, "xai_jobs_total") == {
        ("predict", "done"): 1,
        ("explain", "truncated"): 2,
        ("evaluate", "cancelled"): 1,
    }


def test_the_end_of_an_explanation(telemetry):
    telemetry.explained("rise", "complete", (MapStatus.OK, MapStatus.ALL_ZERO, MapStatus.OK), 0.5)
    telemetry.explained("rise", "truncated", (MapStatus.OK,), 0.25)
    telemetry.explained("gradcam", "skipped", (), 0.0)
    assert changed(telemetry, "xai_explanations_total") == {
        ("rise", "complete"): 1,
        ("rise", "truncated"): 1,
        ("gradcam", "skipped"): 1,
    }
    assert changed(telemetry, "xai_maps_total") == {("rise", "ok"): 3, ("rise", "all_zero"): 1}
    assert telemetry.registry.get_sample_value("xai_explanation_duration_seconds_sum", {"explainer": "rise"}) == 0.75


class Doubling:
    """A backend that doubles; what is above 100 it cannot."""

    def warm_up(self, kinds, report):
        return {}

    def costs(self, kind):
        return {1: 0.001, 4: 0.002}

    def run(self, kind, rows):
        if (rows[0] > 100).any():
            raise RuntimeError("too much")
        return (2 * rows[0],)

    def close(self):
        pass


def test_what_an_engine_tells(telemetry):
    engine = Engine(Doubling, observer=telemetry, policy=Policy(slice_seconds=0.0))
    engine.start(lambda backend: []).result(10)

    def twice(rows):
        yield Forward(np.ones((rows, 2), np.float32))
        yield Forward(np.ones((rows, 2), np.float32))

    over = threading.Event()

    def waiting():
        """Cannot be done before its deadline is looked at."""
        yield Forward(np.ones((1, 2), np.float32))
        over.wait(10)
        yield Forward(np.ones((1, 2), np.float32))

    try:
        engine.submit(forward(np.ones((1, 2), np.float32)), Lane.PREDICT).result(10)
        engine.submit(twice(3), Lane.EXPLAIN).result(10)
        with pytest.raises(DeviceError):
            engine.submit(forward(np.full((1, 2), 101, np.float32)), Lane.PREDICT).result(10)
        late = engine.submit(waiting(), Lane.EXPLAIN, deadline=0.0)
        late.add_done_callback(lambda _: over.set())
        assert late.exception(10)
    finally:
        assert engine.close(10)
    rows, waits = (changed(telemetry, f"xai_{name}") for name in ("launch_rows_total", "queue_wait_seconds_count"))
    assert 7 <= rows[("forward",)] <= 8  # of the one that is late, maybe
    assert waits[("predict",)] == 1
    assert 2 <= waits[("explain",)] <= 3, "one for each piece of work, however many launches it takes"
    launches = samples(telemetry, "xai_launches_total")
    assert samples(telemetry, "xai_slice_overruns_total") == launches
    assert changed(telemetry, "xai_jobs_total") == {
        ("predict", "done"): 1,
        ("predict", "failed"): 1,
        ("explain", "done"): 1,
        ("explain", "expired"): 1,
    }
    assert set(changed(telemetry, "xai_device_busy_seconds_total")) == {("predict",), ("explain",)}


def test_becoming_ready(telemetry):
    telemetry.became_ready()
    assert changed(telemetry, "xai_ready") == {(): 1}
    assert samples(telemetry, "xai_ready_timestamp_seconds")[()] > 1.7e9
