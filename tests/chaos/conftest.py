"""Servers that are treated badly, or that misbehave themselves: processes on sockets, as in the integration tests."""

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest

from xai_proto import explanation_pb2 as pb

HERE = Path(__file__).parent


def load(path):
    spec = importlib.util.spec_from_file_location(f"chaos_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_collection_modifyitems(items):
    """What ill-treats a server has the machine for itself."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.alone)


integration = load(HERE.parent / "integration" / "conftest.py")

connect = integration.connect
eventually = integration.eventually
get = integration.get
map_of = integration.map_of
only = integration.only
photo = integration.photo
read_metrics = integration.read_metrics
read_refusal = integration.read_refusal
refused = integration.refused
sample_cache = integration.sample_cache
sample_config = integration.sample_config


@pytest.fixture(scope="session")
def start_server(sample_config, only):
    """Serves the sample classifier with two explainers, in a `with` statement."""
    return lambda *overrides: integration.serving(sample_config, *only("gradcam", "rise"), *overrides)


@pytest.fixture(scope="session")
def server(start_server):
    """A server of the sample classifier, shared by the tests after which it has to be as it was before."""
    with start_server() as running:
        yield running


@pytest.fixture(scope="session")
def stub(server, connect):
    with connect(server.grpc) as stub:
        yield stub


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

    def check_unharmed(server, request, seconds=10):
        eventually(lambda: not held(server), seconds)
        with connect(server.grpc) as stub:
            answer = stub.Predict(request, timeout=60)
            time.sleep(0.1)  # a launch is counted just after its callers have been answered
            before = launches(server)
            time.sleep(0.4)
            assert launches(server) == before, "the device works though nobody waits"
        assert held(server) == {}
        assert server.process.poll() is None
        assert server.other_output == []
        return answer

    return check_unharmed


@pytest.fixture(scope="session")
def load_helper():
    """A module beside this file, by name."""
    return lambda name: load(HERE / f"{name}.py")


# ------------------------------------------------------------------------------------------------ misbehaving servers


@pytest.fixture(scope="session")
def misbehaving():
    """What the misbehaving servers run, to work out what they should have said."""
    return load(HERE / "misbehaving.py")


@pytest.fixture(scope="session")
def start_misbehaving(tmp_path_factory, only):
    """Serves the model of `misbehaving.py`, in a `with` statement; takes overrides of the config."""
    path = tmp_path_factory.mktemp("misbehaving") / "sidecar.toml"
    path.write_text('[model]\nfactory = "none:none"\ninput.size = 32\n')
    script = (str(HERE / "misbehaving.py"),)
    return lambda *overrides, **options: integration.serving(
        path, *only("gradcam", "rise"), *overrides, program=script, **options
    )


@pytest.fixture(scope="session")
def picture(misbehaving):
    """A model input by number, poisoned or not, as an `Image` message."""

    def picture(number, poison=None):
        array = np.random.default_rng(number).standard_normal(misbehaving.SHAPE).astype(np.float32)
        if poison is not None:
            array[0, 0, 0] = misbehaving.POISONS[poison]
        tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes())
        return pb.Image(model_input=tensor)

    return picture
