"""What is loaded before it is asked for is loaded once, and fails where it is asked for."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from small_graphs import HEIGHT, WIDTH, convolution, convolution_by_hand, pictures

from xai_sidecar.backends import loading
from xai_sidecar.backends.graph.backend import GraphBackend
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.backends.runtimes.onnxruntime import OnnxRuntime
from xai_sidecar.backends.runtimes.openvino import OpenVino
from xai_sidecar.backends.runtimes.program import EngineError, LazyModel
from xai_sidecar.config import Config
from xai_sidecar.engine.work import Forward
from xai_sidecar.errors import ConfigError

SIZES = (1, 2)


@pytest.fixture
def source(tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(convolution())
    return GraphSource(model, output="logits", height=HEIGHT, width=WIDTH, batch_sizes=SIZES, cache=tmp_path / "cache")


@pytest.fixture
def loads(monkeypatch):
    """Programs for any batch size, run whole, that were loaded: the engine's name, and how the thread is called."""
    found = []
    for engine in (OpenVino, OnnxRuntime):

        def watched(self, model, load=engine.load, **more):
            if more.get("batch_size") is None and self._calls == 1:
                found.append((self.name, threading.current_thread().name.partition("_")[0]))
            return load(self, model, **more)

        monkeypatch.setattr(engine, "load", watched)
    return found


def check(backend):
    assert backend.warm_up([Forward.kind], lambda line: None) == {}
    (logits,) = backend.run(Forward.kind, (pictures(2),))
    np.testing.assert_allclose(logits, convolution_by_hand(pictures(2))[1], atol=1e-5)


def test_a_first_start_begins_with_each_engine_s_program_once_and_a_later_one_has_them(source, loads):
    check(GraphBackend(source))
    assert sorted(loads) == [("onnxruntime", "loading"), ("openvino", "loading")]
    loads.clear()
    check(GraphBackend(source))
    assert "loading" not in {thread for _, thread in loads}


def test_an_engine_that_fails_early_is_refused_as_ever(source, monkeypatch):
    def fail(self, model, **more):
        raise EngineError("it has a bad day")

    monkeypatch.setattr(OpenVino, "load", fail)
    backend = GraphBackend(source)
    check(backend)
    assert backend.engine.startswith("onnxruntime")
    assert "it has a bad day" in backend._programs[Forward.kind].choice.refused["openvino"]


def config(**model):
    return Config.model_validate({"model": {"name": "net", "input": {"size": 8}, **model}})


def test_a_model_that_is_loaded_early_is_the_one_that_is_given(monkeypatch, tmp_path):
    threads = []
    backend = object()
    monkeypatch.setattr(
        loading, "load_backend", lambda given: threads.append(threading.current_thread().name) or backend
    )
    given = config(onnx=str(tmp_path / "model.onnx"))
    assert loading.load_early(given)(given) is backend
    assert threads == ["device-loading"]


def test_what_is_wrong_is_said_where_the_model_is_asked_for(tmp_path):
    given = config(onnx=str(tmp_path / "missing.onnx"))
    make = loading.load_early(given)
    with pytest.raises(ConfigError, match=r"missing\.onnx"):
        make(given)


def test_a_cell_is_loaded_by_the_thread_that_asks():
    assert loading.load_early(config(factory="models:net")) is loading.load_backend


def test_engines_that_read_a_model_at_the_same_time_have_it_serialised_once():
    made, all_here = [], threading.Barrier(4, timeout=30)

    def serialise():
        made.append(threading.current_thread())
        time.sleep(0.05)  # longer than the others need to ask
        return b"graph"

    def read(model):
        all_here.wait()
        return model.content

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, [LazyModel("digest", serialise)] * 4)) == [b"graph"] * 4
    assert len(made) == 1
