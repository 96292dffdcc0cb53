"""The quality metrics: every series from the start, what changes them, and what Prometheus' own linter says."""

import math
import shutil
import subprocess
import threading
from itertools import product

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from xai_sidecar.telemetry import QualityTelemetry, Telemetry

E = {"explainer": ["rise", "gradcam"]}
M = {"metric": ["faithfulness/naive", "robustness"]}
DONE = {"metric": ["faithfulness/naive", "robustness", "explain"]}
CLASSES = {"class": ["cat", "dog", "other"]}
UNKNOWN = math.nan
SERIES = {
    # name: its labels, and the value that it starts with
    "xai_quality_score": ({**E, **M}, UNKNOWN),
    "xai_quality_score_standard_error": ({**E, **M}, UNKNOWN),
    "xai_quality_goodness": ({**E, **M}, UNKNOWN),
    "xai_quality_goodness_standard_error": ({**E, **M}, UNKNOWN),
    "xai_quality_samples": ({**E, **M}, 0),
    "xai_quality_last_success_timestamp_seconds": ({**E, **M}, 0),
    "xai_quality_class_score": ({**E, **M, **CLASSES}, UNKNOWN),
    "xai_quality_class_samples": ({**E, **M, **CLASSES}, 0),
    "xai_quality_composite": (E, UNKNOWN),
    "xai_evaluations_total": ({**E, **DONE}, 0),
    "xai_evaluation_failures_total": ({**E, **DONE, "reason": ["map_constant", "too_costly", "error"]}, 0),
    "xai_evaluation_seconds_total": ({**E, **DONE}, 0),
    "xai_evaluation_passes_total": ({**E, **DONE}, 0),
    "xai_samples_total": (
        {"event": ["sampled", "repeated", "dropped", "expired", "lost", "scored", "failed", "no_positive"]},
        0,
    ),
    "xai_evaluator_pending_samples": ({}, 0),
    "xai_evaluator_pending_bytes": ({}, 0),
    "xai_evaluator_last_sample_timestamp_seconds": ({}, 0),
    "xai_evaluator_last_round_timestamp_seconds": ({}, 0),
    "xai_evaluator_interval_seconds": ({}, UNKNOWN),
    "xai_ood_percentile_count": ({}, 0),
    "xai_ood_score_count": ({}, 0),
    "xai_ood_scored_total": ({}, 0),
    "xai_ood_beyond_threshold_total": ({}, 0),
    "xai_ood_outlier_share": ({}, UNKNOWN),
    "xai_outcomes": ({**CLASSES, "outcome": ["tp", "fp", "fn", "tn"]}, 0),
    "xai_ground_truth_reports_total": ({"result": ["new", "replaced", "repeated"]}, 0),
    "xai_store_bytes": ({}, UNKNOWN),
    "xai_store_failures_total": ({}, 0),
    "xai_auto_choices_total": ({**E, "reason": ["best", "best_of_class", "fallback"]}, 0),
}


def make(classes=("cat", "dog"), registry=None):
    reasons = ["map_constant", "too_costly"]
    return QualityTelemetry(registry or CollectorRegistry(), E["explainer"], M["metric"], classes, reasons)


@pytest.fixture
def telemetry():
    return make()


def samples(telemetry, name, labels):
    every = [sample for family in telemetry.registry.collect() for sample in family.samples if sample.name == name]
    assert all(set(sample.labels) == set(labels) for sample in every)
    return {tuple(sample.labels[label] for label in labels): sample.value for sample in every}


def changes(telemetry, run):
    """What a call changes: the new values by series, which is its name and its label values."""

    def snapshot():
        names = {name: labels for name, (labels, _) in SERIES.items()} | {"xai_evaluator_state": {"state": []}}
        return {
            (name, *key): value
            for name, labels in names.items()
            for key, value in samples(telemetry, name, labels).items()
        }

    before = snapshot()
    run()
    return {key: value for key, value in snapshot().items() if not same(value, before[key])}


def same(one, two):
    return one == two or (math.isnan(one) and math.isnan(two))


@pytest.mark.parametrize("name", SERIES)
def test_every_series_is_there_from_the_start(telemetry, name):
    labels, value = SERIES[name]
    found = samples(telemetry, name, labels)
    assert found.keys() == set(product(*labels.values()))
    assert all(same(one, value) for one in found.values())


def test_no_series_is_forgotten_here(telemetry):
    names = {
        sample.name
        for family in telemetry.registry.collect()
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_sum", "_created"))
    }
    assert names == {*SERIES, "xai_evaluator_state"}


def test_the_state_starts_off_and_is_one_at_a_time(telemetry):
    states = {"state": []}
    rest = {("no_traffic",): 0, ("up_to_date",): 0, ("working",): 0}
    assert samples(telemetry, "xai_evaluator_state", states) == {("off",): 1, **rest}
    for state in ("working", "up_to_date", "up_to_date", "no_traffic", "off"):
        telemetry.state(state)
        found = samples(telemetry, "xai_evaluator_state", states)
        assert {key for key, value in found.items() if value} == {(state,)}
        assert sum(found.values()) == 1


def test_quality(telemetry):
    key = ("rise", "robustness")
    assert changes(telemetry, lambda: telemetry.quality(*key, 0.25, 0.125, 0.75, 0.0625, 40, 1.7e9)) == {
        ("xai_quality_score", *key): 0.25,
        ("xai_quality_score_standard_error", *key): 0.125,
        ("xai_quality_goodness", *key): 0.75,
        ("xai_quality_goodness_standard_error", *key): 0.0625,
        ("xai_quality_samples", *key): 40,
        ("xai_quality_last_success_timestamp_seconds", *key): 1.7e9,
    }
    telemetry.quality(*key, None, None, None, None, 0, None)
    for name in [
        name for name in SERIES if name.startswith("xai_quality_") and SERIES[name][0].keys() == {**E, **M}.keys()
    ]:
        assert same(samples(telemetry, name, {**E, **M})[key], SERIES[name][1]), "as at the start"


def test_a_mean_of_zero_is_not_unknown(telemetry):
    telemetry.quality("rise", "robustness", 0.0, 0.0, 0.0, 0.0, 2, 0.0)
    telemetry.composite("rise", 0.0)
    telemetry.outlier_share(0.0)
    assert samples(telemetry, "xai_quality_score", {**E, **M})["rise", "robustness"] == 0
    assert samples(telemetry, "xai_quality_composite", E)[("rise",)] == 0
    assert samples(telemetry, "xai_ood_outlier_share", {})[()] == 0


def test_quality_of_classes(telemetry):
    key = ("gradcam", "faithfulness/naive")
    assert changes(telemetry, lambda: telemetry.class_quality(*key, "dog", 0.5, 7)) == {
        ("xai_quality_class_score", *key, "dog"): 0.5,
        ("xai_quality_class_samples", *key, "dog"): 7,
    }
    rest = {("xai_quality_class_score", *key, "other"): 0.25, ("xai_quality_class_samples", *key, "other"): 9}
    assert changes(telemetry, lambda: telemetry.class_quality(*key, None, 0.25, 9)) == rest
    assert changes(make(), lambda: None) == {}
    again = make()
    assert changes(again, lambda: again.class_quality(*key, "other", 0.25, 9)) == rest


@pytest.mark.parametrize(
    ("classes", "shown"),
    [
        (["cat", "other"], ["cat", '"other"']),
        (["other", '"other"'], ['""other""', '"other"']),
        (['"other"', "other"], ['"other"', '""other""']),
    ],
)
def test_a_class_called_other_is_not_the_rest(classes, shown):
    telemetry = make(classes)
    for place, label in enumerate([*classes, None]):
        telemetry.outcomes(label, place, 10, 10, 10)
    found = samples(telemetry, "xai_outcomes", SERIES["xai_outcomes"][0])
    assert {key: value for key, value in found.items() if key[1] == "tp"} == {
        (name, "tp"): place for place, name in enumerate([*shown, "other"])
    }
    assert set(samples(telemetry, "xai_quality_class_samples", {**E, **M, **CLASSES})) == set(
        product(*E.values(), *M.values(), [*shown, "other"])
    )


def test_a_class_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        make(["crane", "cat", "crane"])


def test_composite(telemetry):
    assert changes(telemetry, lambda: telemetry.composite("gradcam", 0.625)) == {
        ("xai_quality_composite", "gradcam"): 0.625
    }
    telemetry.composite("gradcam", None)
    assert math.isnan(samples(telemetry, "xai_quality_composite", E)[("gradcam",)])


def test_evaluations(telemetry):
    def some():
        telemetry.evaluated("rise", "explain", 1.5, 1000)
        telemetry.evaluated("rise", "robustness", 0.5, 20, None)
        telemetry.evaluated("rise", "robustness", 0.25, 4, "map_constant")
        telemetry.evaluated("gradcam", "explain", 0.0, 0, "unheard_of")
        telemetry.evaluated("gradcam", "explain", 0.0, 0, "error")

    assert changes(telemetry, some) == {
        ("xai_evaluations_total", "rise", "explain"): 1,
        ("xai_evaluations_total", "rise", "robustness"): 2,
        ("xai_evaluations_total", "gradcam", "explain"): 2,
        ("xai_evaluation_seconds_total", "rise", "explain"): 1.5,
        ("xai_evaluation_seconds_total", "rise", "robustness"): 0.75,
        ("xai_evaluation_passes_total", "rise", "explain"): 1000,
        ("xai_evaluation_passes_total", "rise", "robustness"): 24,
        ("xai_evaluation_failures_total", "rise", "robustness", "map_constant"): 1,
        ("xai_evaluation_failures_total", "gradcam", "explain", "error"): 2,
    }


def test_samples_and_the_evaluator(telemetry):
    def some():
        telemetry.event("sampled")
        telemetry.event("sampled", 3)
        telemetry.event("lost", 2)
        telemetry.pending(5, 4096)
        telemetry.sampled(1.7e9)
        telemetry.round(1.6e9)
        telemetry.interval(60)

    assert changes(telemetry, some) == {
        ("xai_samples_total", "sampled"): 4,
        ("xai_samples_total", "lost"): 2,
        ("xai_evaluator_pending_samples",): 5,
        ("xai_evaluator_pending_bytes",): 4096,
        ("xai_evaluator_last_sample_timestamp_seconds",): 1.7e9,
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
    assert changes(telemetry, lambda: telemetry.outlier_share(0.25)) == {("xai_ood_outlier_share",): 0.25}
    telemetry.outlier_share(None)
    assert math.isnan(value("xai_ood_outlier_share"))


def test_ground_truth(telemetry):
    def some():
        telemetry.outcomes("dog", 1, 2, 3, 4)
        for result in ("new", "new", "replaced"):
            telemetry.report(result)

    assert changes(telemetry, some) == {
        ("xai_outcomes", "dog", "tp"): 1,
        ("xai_outcomes", "dog", "fp"): 2,
        ("xai_outcomes", "dog", "fn"): 3,
        ("xai_outcomes", "dog", "tn"): 4,
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
        lambda telemetry: telemetry.state("idle"),
        lambda telemetry: telemetry.quality("rise", "speed", 1, 1, 1, 1, 1, 1),
        lambda telemetry: telemetry.class_quality("rise", "robustness", "cow", 1, 1),
        lambda telemetry: telemetry.outcomes("cow", 1, 1, 1, 1),
        lambda telemetry: telemetry.composite("lime", 1),
        lambda telemetry: telemetry.evaluated("lime", "robustness", 1, 1),
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


def test_prometheus_finds_nothing_to_complain_about():
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing; on Debian: apt install prometheus"
    telemetry = make()
    Telemetry(telemetry.registry, E["explainer"])
    telemetry.ood(0.5, 50.0, False)
    telemetry.quality("rise", "robustness", 0.5, None, 0.5, None, 1, 1.7e9)
    text = generate_latest(telemetry.registry)
    names = {family.name for family in text_string_to_metric_families(text.decode())}
    assert {"xai_quality_score", "xai_request_duration_seconds"} <= names
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    bad = subprocess.run([promtool, "check", "metrics"], input=b"# TYPE a_b counter\na_b 1\n", capture_output=True)
    assert bad.returncode != 0, "it can complain"
