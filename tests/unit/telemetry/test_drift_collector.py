"""The drift series: nothing at all before there is something to tell."""

from prometheus_client import CollectorRegistry, generate_latest

from xai_sidecar.telemetry import DriftCollector, DriftFigure, DriftFigures


def registered(figures):
    registry = CollectorRegistry()
    registry.register(DriftCollector(lambda: figures))
    return registry


def test_of_nothing_there_is_not_a_line():
    assert generate_latest(registered(DriftFigures())) == b""


def test_all_that_is_known():
    figures = (
        DriftFigure("requests", "rise", "border", "", 0.25, 0.75, 1.5),
        DriftFigure("samples", "rise", "agreement/gradcam", "cat", 0.5, 0.0, 0.0),
    )
    samples = [sample for family in registered(DriftFigures(figures, 3)).collect() for sample in family.samples]
    whole = {"explainer": "rise", "statistic": "border", "source": "requests", "class": ""}
    of_class = {"explainer": "rise", "statistic": "agreement/gradcam", "source": "samples", "class": "cat"}
    assert [(one.name, dict(one.labels), one.value) for one in samples] == [
        ("xai_map_drift", whole, 1.5),
        ("xai_map_drift", of_class, 0.0),
        ("xai_map_statistic", {**whole, "window": "reference"}, 0.25),
        ("xai_map_statistic", {**whole, "window": "current"}, 0.75),
        ("xai_map_statistic", {**of_class, "window": "reference"}, 0.5),
        ("xai_map_statistic", {**of_class, "window": "current"}, 0.0),
        ("xai_drift_dropped_total", {}, 3),
    ]


def test_all_families_are_described():
    described = [family.name for family in DriftCollector(DriftFigures).describe()]
    assert described == ["xai_map_drift", "xai_map_statistic", "xai_drift_dropped"]
