"""A sidecar's metrics, without the sidecar: all series on a port, with values that change."""

import importlib.util
import threading
from itertools import product
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.dispatcher import BatchRecord
from xai_sidecar.engine.job import JobOutcome
from xai_sidecar.engine.work import Forward, Kind
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.telemetry import (
    EXPLAIN,
    DriftCollector,
    DriftFigure,
    DriftFigures,
    EvaluatorTelemetry,
    ModelSeries,
    QualityCollector,
    QualityFigures,
    ScoreFigures,
    Telemetry,
    process_registry,
)

HERE = Path(__file__).parent


def load(path):
    spec = importlib.util.spec_from_file_location(f"deploy_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


queries = load(HERE / "queries.py")
prometheus = load(HERE.parent / "prometheus.py")


PAIRS = list(product(installed_explainers(), installed_metrics()))
FIGURES = QualityFigures(
    "working",
    last_sample=1.7e9,
    scores=dict.fromkeys(PAIRS, ScoreFigures(0.25, 0.0625, 0.625, 0.03125, 100, 1.7e9, 0.125, 0.0625)),
    class_scores={(*pair, "cat"): (0.375, 40) for pair in PAIRS},
    composites={explainer: 0.5 + place / 32 for place, explainer in enumerate(installed_explainers())},
    outlier_share=0.125,
    beats_controls=dict.fromkeys(installed_explainers(), True),
    confusion_counts={"cat": (6, 2, 4, 8), "dog": (0, 0, 0, 20), "other": (0, 0, 0, 0)},
)


DRIFT = DriftFigures((DriftFigure("requests", "gradcam", "border", "", 0.125, 0.25, 0.5),), 3)


def series(figures, drift=DRIFT):
    """All that a server of the model "cats" shows, with what counts its calls and its evaluations."""
    registry, own = process_registry(), CollectorRegistry()
    serving = Telemetry(own, installed_explainers())
    evaluator = EvaluatorTelemetry(own, list(installed_explainers()), list(installed_metrics()), ["map_constant"])
    own.register(QualityCollector(lambda: figures))
    own.register(DriftCollector(lambda: drift))
    registry.register(ModelSeries(own, "cats"))
    return registry, serving, evaluator


class Exposed:
    """All series, served over HTTP.

    Attributes:
        address: host:port of /metrics.
        registry: What is served.
        fresh: What is served by a server that nobody has asked anything yet.
        serving: The series of serving.
        evaluator: The counters of the evaluator.
    """

    def __init__(self):
        self.fresh, _, _ = series(
            QualityFigures("no_traffic", scores=dict.fromkeys(PAIRS, ScoreFigures())), DriftFigures()
        )
        self.registry, self.serving, self.evaluator = series(FIGURES)
        self._set_gauges()
        # What belongs together is counted together: no scrape falls in between.
        self._counting_step = threading.Lock()
        collect = self.registry.collect
        self.registry.collect = lambda: self._collected(collect)
        self._http, self._thread = start_http_server(0, "127.0.0.1", self.registry)
        self.address = f"127.0.0.1:{self._http.server_port}"
        self._stop = threading.Event()
        self._counting = threading.Thread(target=self._count, daemon=True)
        self._counting.start()

    def close(self):
        self._stop.set()
        self._counting.join(10)
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(10)

    def names(self):
        """The names of all series."""
        return {sample.name for family in self.registry.collect() for sample in family.samples}

    def _collected(self, collect):
        with self._counting_step:
            return list(collect())

    def _set_gauges(self):
        self.serving.became_ready()
        self.serving.model.info({"name": "cats", "version": "1", "device": "cpu", "engine": "e", "server_version": "0"})
        self.evaluator.round(1.7e9)
        self.evaluator.interval(60)
        self.evaluator.watch_pending(lambda: 3, lambda: 4096)
        self.evaluator.store_bytes(2**20)

    def _count(self):
        """Every 0.1 s: a request, an explanation by each explainer, an evaluation of each metric; 1 in 4 fails."""
        step = 0
        while not self._stop.wait(0.1):
            step += 1
            with self._counting_step:
                self._count_step(step)

    def _count_step(self, step):
        serving, evaluator = self.serving, self.evaluator
        serving.requests.labels("Predict", "OK").inc()
        serving.request_seconds.labels("Predict").observe(0.02)
        serving.images.inc()
        for lane, kind in ((Lane.PREDICT, Forward.kind), (Lane.EXPLAIN, Kind("masked_forward"))):
            serving.batch_ran(BatchRecord(kind, lane, 8, 6, 0.01, True, (0.002,)))
            serving.ended(lane, JobOutcome.DONE)
        evaluator.ood(0.5, 1 + step % 90, step % 4 == 0)
        for event in ("sampled", "scored"):
            evaluator.event(event)
        evaluator.report("new")
        for explainer in installed_explainers():
            serving.explained(explainer, "complete", (MapStatus.OK,), 20.0 if step % 2 else 0.2)
            evaluator.chosen(explainer, "best")
            evaluator.evaluated(explainer, EXPLAIN, 0.5, 100)
            for metric in installed_metrics():
                evaluator.evaluated(explainer, metric, 0.25, 10, "map_constant" if step % 4 == 0 else None)


@pytest.fixture(scope="session")
def exposed():
    server = Exposed()
    yield server
    server.close()


@pytest.fixture(scope="session")
def scraped(exposed, tmp_path_factory):
    """A Prometheus with the alerts that has scraped the metrics often enough for rates over 4 s."""
    folder = tmp_path_factory.mktemp("prometheus")
    with prometheus.prometheus(folder, [exposed.address], rules=[queries.ALERTS]) as server:
        server.wait_for_scrapes(5)
        yield server


@pytest.fixture(scope="session", name="queries")
def _queries():
    return queries


@pytest.fixture(scope="session")
def promtool():
    return prometheus.binary("promtool")


def pytest_generate_tests(metafunc):
    """One test for each query of the dashboard, and for each rule."""
    if "dashboard_query" in metafunc.fixturenames:
        metafunc.parametrize("dashboard_query", queries.dashboard_queries(), ids=str)
    if "alert" in metafunc.fixturenames:
        alerts = [rule for rule in queries.rules() if "alert" in rule]
        metafunc.parametrize("alert", alerts, ids=[rule["alert"] for rule in alerts])
