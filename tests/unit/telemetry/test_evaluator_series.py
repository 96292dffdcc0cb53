"""The evaluator's counters: what begins at 0, what appears with its first event, and what each call changes."""

import math
import threading
from itertools import product

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from xai_sidecar.telemetry import EvaluatorTelemetry

E = {"explainer": ["rise", "gradcam"]}
M = {"metric": ["faithfulness/naive", "robustness"]}
DONE = {"metric": ["faithfulness/naive", "robustness", "explain"]}
UNKNOWN = math.nan
SERIES = {
    # name: its labels, and the value that it starts with
    "xai_evaluations_total": ({**E, **DONE, "result": ["done", "failed"]}, 0),
    "xai_samples_total": (
        {"event": ["sampled", "repeated", "dropped", "expired", "lost", "scored", "failed", "no_positive"]},
        0,
    ),
    "xai_evaluator_pending_samples": ({}, 0),
    "xai_evaluator_pending_bytes": ({}, 0),
    "xai_evaluator_last_round_timestamp_seconds": ({}, 0),
    "xai_evaluator_interval_seconds": ({}, UNKNOWN),
    "xai_ood_percentile_count": ({}, 0),
    "xai_ood_score_count": ({}, 0),
    "xai_ood_scored_total": ({}, 0),
    "xai_ood_beyond_threshold_total": ({}, 0),
    "xai_ground_truth_reports_total": ({"result": ["new", "replaced", "repeated"]}, 0),
    "xai_store_bytes": ({}, UNKNOWN),
    "xai_store_failures_total": ({}, 0),
    "xai_auto_choices_total": ({**E, "reason": ["best", "best_of_class", "fallback"]}, 0),
}
LATER = {
    # name: the labels of what appears with its first event
    "xai_evaluation_failures_total": ["explainer", "metric", "reason"],
    "xai_evaluation_seconds_total": ["explainer", "metric"],
    "xai_evaluation_passes_total": ["explainer", "metric"],
}


@pytest.fixture
def telemetry():
    reasons = ["map_constant", "no_objects"]
    return EvaluatorTelemetry(CollectorRegistry(), E["explainer"], M["metric"], reasons, ["no_objects"])


def samples(telemetry, name, labels):
    every = [sample for family in telemetry.registry.collect() for sample in family.samples if sample.name == name]
    assert all(set(sample.labels) == set(labels) for sample in every)
    return {tuple(sample.labels[label] for label in labels): sample.value for sample in every}


def changes(telemetry, run):
    """What a call changes: the new values by series, which is its name and its label values."""

    def snapshot():
        names = {name: labels for name, (labels, _) in SERIES.items()} | LATER
        return {
            (name, *key): value
            for name, labels in names.items()
            for key, value in samples(telemetry, name, labels).items()
        }

    before = snapshot()
    run()
    return {key: value for key, value in snapshot().items() if not same(value, before.get(key, 0))}


def same(one, two):
    return one == two or (math.isnan(one) and math.isnan(two))


@pytest.mark.parametrize("name", SERIES)
def test_what_is_there_from_the_start(telemetry, name):
    labels, value = SERIES[name]
    found = samples(telemetry, name, labels)
    assert found.keys() == set(product(*labels.values()))
    assert all(same(one, value) for one in found.values())


def test_nothing_else_is_there_from_the_start(telemetry):
    names = {
        sample.name
        for family in telemetry.registry.collect()
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_sum", "_created"))
    }
    assert names == set(SERIES)


def test_evaluations(telemetry):
    def some():
        telemetry.evaluated("rise", "explain", 1.5, 1000)
        telemetry.evaluated("rise", "robustness", 0.5, 20, None)
        telemetry.evaluated("rise", "robustness", 0.25, 4, "map_constant")
        telemetry.evaluated("rise", "faithfulness/naive", 0.125, 2, "no_objects")
        telemetry.evaluated("gradcam", "explain", 0.0, 0, "unheard_of")
        telemetry.evaluated("gradcam", "explain", 0.0, 0, "error")

    assert changes(telemetry, some) == {
        ("xai_evaluations_total", "rise", "explain", "done"): 1,
        ("xai_evaluations_total", "rise", "robustness", "done"): 1,
        ("xai_evaluations_total", "rise", "robustness", "failed"): 1,
        ("xai_evaluations_total", "rise", "faithfulness/naive", "not_applicable"): 1,
        ("xai_evaluations_total", "gradcam", "explain", "failed"): 2,
        ("xai_evaluation_seconds_total", "rise", "explain"): 1.5,
        ("xai_evaluation_seconds_total", "rise", "robustness"): 0.75,
        ("xai_evaluation_seconds_total", "rise", "faithfulness/naive"): 0.125,
        ("xai_evaluation_passes_total", "rise", "explain"): 1000,
        ("xai_evaluation_passes_total", "rise", "robustness"): 24,
        ("xai_evaluation_passes_total", "rise", "faithfulness/naive"): 2,
        ("xai_evaluation_failures_total", "rise", "robustness", "map_constant"): 1,
        ("xai_evaluation_failures_total", "rise", "faithfulness/naive", "no_objects"): 1,
        ("xai_evaluation_failures_total", "gradcam", "explain", "error"): 2,
    }


def test_samples_and_the_evaluator(telemetry):
    def some():
        telemetry.event("sampled")
        telemetry.event("sampled", 3)
        telemetry.event("lost", 2)
        telemetry.watch_pending(lambda: 5, lambda: 4096)
        telemetry.round(1.6e9)
        telemetry.interval(60)

    assert changes(telemetry, some) == {
        ("xai_samples_total", "sampled"): 4,
        ("xai_samples_total", "lost"): 2,
        ("xai_evaluator_pending_samples",): 5,
        ("xai_evaluator_pending_bytes",): 4096,
        ("xai_evaluator_last_round_timestamp_seconds",): 1.6e9,
        ("xai_evaluator_interval_seconds",): 60,
    }


def test_ood(telemetry):
    for score, percentile, beyond in ((-0.45, 0.3, True), (0.85, 60.0, False), (0.5, 60.0, False), (2.0, 100.0, False)):
        telemetry.ood(score, percentile, beyond)
    value = telemetry.registry.get_sample_value
    bounds = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 100.0, math.inf)
    counts = (0, 1, 1, 1, 1, 1, 1, 1, 3, 3, 4, 4)
    for bound, count in zip(bounds, counts, strict=True):
        label = "+Inf" if bound == math.inf else str(bound)
        assert value("xai_ood_percentile_bucket", {"le": label}) == count
    assert value("xai_ood_score_bucket", {"le": "-0.5"}) == 0
    assert value("xai_ood_score_bucket", {"le": "-0.4"}) == 1
    assert value("xai_ood_score_bucket", {"le": "0.5"}) == 2
    assert value("xai_ood_score_bucket", {"le": "1.0"}) == 3
    assert value("xai_ood_scored_total") == 4
    assert value("xai_ood_beyond_threshold_total") == 1


def test_ground_truth(telemetry):
    def some():
        for result in ("new", "new", "replaced"):
            telemetry.report(result)

    assert changes(telemetry, some) == {
        ("xai_ground_truth_reports_total", "new"): 2,
        ("xai_ground_truth_reports_total", "replaced"): 1,
    }


def test_the_store_and_auto(telemetry):
    def some():
        telemetry.store_bytes(12345)
        telemetry.store_failed()
        telemetry.chosen("rise", "best_of_class")

    assert changes(telemetry, some) == {
        ("xai_store_bytes",): 12345,
        ("xai_store_failures_total",): 1,
        ("xai_auto_choices_total", "rise", "best_of_class"): 1,
    }


@pytest.mark.parametrize(
    "call",
    [
        lambda telemetry: telemetry.event("sample"),
        lambda telemetry: telemetry.evaluated("lime", "robustness", 1, 1),
        lambda telemetry: telemetry.evaluated("rise", "speed", 1, 1),
        lambda telemetry: telemetry.report("old"),
        lambda telemetry: telemetry.chosen("rise", "luck"),
    ],
)
def test_an_unknown_name_makes_no_new_series(telemetry, call):
    before = generate_latest(telemetry.registry)
    with pytest.raises(KeyError):
        call(telemetry)
    # Without the times at which counters were made there is nothing else in it that could differ.
    assert generate_latest(telemetry.registry) == before


def test_many_threads(telemetry):
    def count():
        for _ in range(500):
            telemetry.event("sampled")
            telemetry.evaluated("rise", "robustness", 0.5, 2, "error")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    value = telemetry.registry.get_sample_value
    assert value("xai_samples_total", {"event": "sampled"}) == 2000
    assert value("xai_evaluation_passes_total", {"explainer": "rise", "metric": "robustness"}) == 4000
