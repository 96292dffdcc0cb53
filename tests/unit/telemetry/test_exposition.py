"""What /metrics shows: the model's name on all that is ours, nothing that is not known, and a bounded size."""

import math
import shutil
import subprocess
from itertools import product
from wsgiref.util import setup_testing_defaults

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest, make_wsgi_app
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from xai_sidecar.evaluator.controls import CONTROLS
from xai_sidecar.evaluator.runs import FAILURES, NOT_APPLICABLE
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.telemetry import (
    DriftCollector,
    DriftFigures,
    EvaluatorTelemetry,
    ModelSeries,
    QualityCollector,
    QualityFigures,
    ScoreFigures,
    Telemetry,
    process_registry,
)

CLASSES = [f"class number {number}" for number in range(20)]
EXPLAINERS = list(installed_explainers())[:7]
METRICS = list(installed_metrics())[:7]
"""So many are built in; what more of them would show is no matter of how it is shown."""


def exposed(figures, model="efficientnet-lite0"):
    """All series of a server, and the registry that its own are in."""
    registry, own = process_registry(), CollectorRegistry()
    telemetry = Telemetry(own, EXPLAINERS)
    telemetry.became_ready()
    telemetry.model.info({"name": model, "version": "0123456789ab", "device": "cpu", "engine": "engine 1.0"})
    EvaluatorTelemetry(own, EXPLAINERS, METRICS, FAILURES, NOT_APPLICABLE, CONTROLS)
    own.register(QualityCollector(lambda: figures))
    own.register(DriftCollector(DriftFigures))
    registry.register(ModelSeries(own, model))
    return registry, telemetry


def of_nothing():
    return QualityFigures(
        "no_traffic",
        scores=dict.fromkeys(product(EXPLAINERS, METRICS), ScoreFigures()),
        composites=dict.fromkeys((*EXPLAINERS, *CONTROLS)),
        confusion_counts=dict.fromkeys([*CLASSES, "other"], (0, 0, 0, 0)),
    )


def of_all():
    pairs = list(product((*EXPLAINERS, *CONTROLS), METRICS))
    return QualityFigures(
        "up_to_date",
        1.7e9,
        dict.fromkeys(pairs, ScoreFigures(0.25, 0.125, 0.75, 0.0625, 40, 1.7e9, 0.5, 0.25)),
        {(*pair, name): (0.5, 2) for pair, name in product(product(EXPLAINERS, METRICS), CLASSES)},
        dict.fromkeys((*EXPLAINERS, *CONTROLS), 0.5),
        0.125,
        dict.fromkeys(CLASSES, (1, 2, 3, 4)),
    )


def test_a_fresh_server_of_twenty_classes_shows_less_than_61_kb():
    registry, _ = exposed(of_nothing())
    for text in (generate_latest(registry), generate_openmetrics(registry)):
        assert len(text) < 61_000
        assert b"_created" not in text
        assert b"NaN" not in text


def test_what_is_measured_appears():
    before, after = (
        {
            (sample.name, *sample.labels.values())
            for family in exposed(figures)[0].collect()
            for sample in family.samples
        }
        for figures in (of_nothing(), of_all())
    )
    assert after > before
    # Five figures of each explainer and metric, two of each class besides, the counts of predictions, and two more;
    # those of explainers' samples were there before, those of the four controls were not.
    assert len(after - before) == 11 * 7 * 7 + 4 * 7 + 7 * 7 * 2 * 20 + 11 + 20 * 4 + 1


def test_all_of_ours_have_the_model_and_nothing_else_has():
    registry, telemetry = exposed(of_all())
    telemetry.request_seconds.labels("Predict").observe(0.1)
    names = set()
    for family in registry.collect():
        for sample in family.samples:
            ours = sample.name.startswith("xai_")
            assert sample.labels.get("model") == ("efficientnet-lite0" if ours else None), sample
            names.add(ours)
    assert names == {True, False}


def test_labels_samples_and_types_stay_as_they_are():
    registry = CollectorRegistry()
    Counter("a", "A.", ["kind"], registry=registry).labels("x").inc(2)
    Gauge("b", "B.", registry=registry).set(0)
    Gauge("unknown", "U.", registry=registry).set(math.nan)
    Histogram("c", "C.", buckets=(1,), registry=registry).observe(0.5)
    Info("d", "D.", registry=registry).info({"name": "n"})
    outer = CollectorRegistry()
    outer.register(ModelSeries(registry, 'the "m"'))
    families = {family.name: family for family in text_string_to_metric_families(generate_latest(outer).decode())}
    assert {name: family.type for name, family in families.items()} == {
        "a": "counter", "b": "gauge", "unknown": "gauge", "c": "histogram", "d_info": "gauge",
    }  # fmt: skip
    m = {"model": 'the "m"'}
    assert [(one.name, one.labels, one.value) for family in families.values() for one in family.samples] == [
        ("a_total", {"kind": "x", **m}, 2),
        ("b", m, 0),
        ("c_bucket", {"le": "1.0", **m}, 1),
        ("c_bucket", {"le": "+Inf", **m}, 1),
        ("c_count", m, 1),
        ("c_sum", m, 0.5),
        ("d_info", {"name": "n", **m}, 1),
    ]
    again = generate_latest(outer)
    assert again == generate_latest(outer), "labels are not added twice"


@pytest.mark.parametrize("name", ["xai_ready", "process_cpu_seconds_total"])
def test_a_series_can_be_asked_for_by_name(name):
    environ = {"QUERY_STRING": f"name[]={name}"}
    setup_testing_defaults(environ)
    text = b"".join(make_wsgi_app(exposed(of_nothing())[0])(environ, lambda status, headers: None)).decode()
    assert {line.split("{")[0].split()[0] for line in text.splitlines() if line[0] != "#"} == {name}


def test_prometheus_finds_nothing_to_complain_about():
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing; on Debian: apt install prometheus"
    registry, telemetry = exposed(of_all())
    telemetry.request_seconds.labels("Predict").observe(0.1)
    text = generate_latest(registry)
    names = {family.name for family in text_string_to_metric_families(text.decode())}
    assert {"xai_quality_score", "xai_request_duration_seconds"} <= names
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    bad = subprocess.run([promtool, "check", "metrics"], input=b"# TYPE a_b counter\na_b 1\n", capture_output=True)
    assert bad.returncode != 0, "it can complain"
