"""Servers that are treated badly, or that misbehave themselves: processes on sockets, as in the integration tests."""

import importlib.util
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def load(path):
    spec = importlib.util.spec_from_file_location(f"chaos_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


integration = load(HERE.parent / "integration" / "conftest.py")

connect = integration.connect
eventually = integration.eventually
get = integration.get
map_of = integration.map_of
misbehaving = integration.misbehaving
only = integration.only
photo = integration.photo
picture = integration.picture
read_metrics = integration.read_metrics
read_refusal = integration.read_refusal
refused = integration.refused
start_misbehaving = integration.start_misbehaving


# ------------------------------------------------------------------------------------------------ unharmed


@pytest.fixture(scope="session")
def check_unharmed(connect, read_metrics, eventually):
    """That a server has nothing left of its callers when they have gone, and works; returns its answer to a request."""
    gauges = [("xai_open_images",), ("xai_open_explanations",), ("xai_open_bytes",)]
    gauges += [("xai_queue_rows", lane) for lane in ("predict", "explain", "evaluate")]

    def held(server):
        metrics = read_metrics(server.http)
        return {gauge: metrics[gauge] for gauge in gauges if metrics[gauge]}

    def launches(server):
        return sum(value for key, value in read_metrics(server.http).items() if key[0] == "xai_launches_total")

    def idle(server):
        before = launches(server)
        time.sleep(0.4)
        return launches(server) == before

    def check_unharmed(server, request, seconds=30):
        eventually(lambda: not held(server), seconds)
        with connect(server.grpc) as stub:
            answer = stub.Predict(request, timeout=60)
            # A launch is counted just after its callers have been answered.
            assert any(idle(server) for _ in range(3)), "the device works though nobody waits"
        assert held(server) == {}
        assert server.process.poll() is None
        assert server.other_output == [], "".join(server.other_output)
        return answer

    return check_unharmed


@pytest.fixture(scope="session")
def load_helper():
    """A module beside this file, by name."""
    return lambda name: load(HERE / f"{name}.py")
