"""A sidecar's metrics, without the sidecar: both telemetries on a port, with values that change."""

import importlib.util
import threading
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
from xai_sidecar.telemetry import EXPLAIN, QualityTelemetry, Telemetry

HERE = Path(__file__).parent


def load(path):
    spec = importlib.util.spec_from_file_location(f"deploy_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


queries = load(HERE / "queries.py")
prometheus = load(HERE.parent / "prometheus.py")


class Exposed:
    """Both telemetries, served over HTTP.

    Attributes:
        address: host:port of /metrics.
        registry: What is served.
        serving: Today's telemetry.
        quality: That of the evaluator.
    """

    def __init__(self):
        self.registry = CollectorRegistry()
        self.serving = Telemetry(self.registry, installed_explainers())
        reasons = ["map_constant", "error"]
        self.quality = QualityTelemetry(
            self.registry, list(installed_explainers()), list(installed_metrics()), ["cat", "dog"], reasons
        )
        self._set_gauges()
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

    def _set_gauges(self):
        self.serving.became_ready()
        self.serving.model.info({"name": "cats", "version": "1", "device": "cpu", "engine": "e", "server_version": "0"})
        quality = self.quality
        for place, explainer in enumerate(installed_explainers()):
            quality.composite(explainer, 0.5 + place / 32)
            for metric in installed_metrics():
                quality.quality(explainer, metric, 0.25, 0.0625, 0.625, 0.03125, 100, 1.7e9)
                quality.class_quality(explainer, metric, "cat", 0.375, 40)
        quality.state("working")
        quality.sampled(1.7e9)
        quality.round(1.7e9)
        quality.interval(60)
        quality.pending(3, 4096)
        quality.store_bytes(2**20)
        quality.outlier_share(0.125)
        quality.outcomes("cat", 6, 2, 4, 8)

    def _count(self):
        """Every 0.1 s: a request, an explanation by each explainer, an evaluation of each metric; 1 in 4 fails."""
        serving, quality, step = self.serving, self.quality, 0
        while not self._stop.wait(0.1):
            step += 1
            serving.requests.labels("Predict", "OK").inc()
            serving.request_seconds.labels("Predict").observe(0.02)
            serving.images.inc()
            for lane, kind in ((Lane.PREDICT, Forward.kind), (Lane.EXPLAIN, Kind("masked_forward"))):
                serving.batch_ran(BatchRecord(kind, lane, 8, 6, 0.01, True, (0.002,)))
                serving.ended(lane, JobOutcome.DONE)
            quality.ood(0.5, 1 + step % 90, step % 4 == 0)
            for event in ("sampled", "scored"):
                quality.event(event)
            quality.report("new")
            for explainer in installed_explainers():
                serving.explained(explainer, "complete", (MapStatus.OK,), 20.0 if step % 2 else 0.2)
                quality.chosen(explainer, "best")
                quality.evaluated(explainer, EXPLAIN, 0.5, 100)
                for metric in installed_metrics():
                    quality.evaluated(explainer, metric, 0.25, 10, "map_constant" if step % 4 == 0 else None)


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
