"""What the first start found out is not found out again."""

import numpy as np
from small_graphs import HEIGHT, WIDTH, convolution, convolution_by_hand, pictures

from xai_sidecar.backends.graph import programs
from xai_sidecar.backends.graph.backend import GraphBackend
from xai_sidecar.backends.graph.expectations import expected_outputs
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.backends.runtimes.keeping import EngineCache
from xai_sidecar.backends.runtimes.onnxruntime import OnnxRuntime
from xai_sidecar.backends.runtimes.openvino import OpenVino
from xai_sidecar.engine.work import Features, Forward


def test_a_second_start_tries_no_engine_that_lost(tmp_path, monkeypatch):
    model = tmp_path / "model.onnx"
    model.write_bytes(convolution())
    source = GraphSource(
        model, output="logits", height=HEIGHT, width=WIDTH, batch_sizes=(1, 4), cache=tmp_path / "cache"
    )
    loaded = []
    for engine in (OpenVino, OnnxRuntime):
        load = engine.load

        def counted(self, model, load=load, **more):
            loaded.append((self.name, more["batch_size"]))
            return load(self, model, **more)

        monkeypatch.setattr(engine, "load", counted)
    kinds = [Forward.kind, Features.kind]
    choices, tried = [], []
    for _ in range(2):
        loaded.clear()
        backend = GraphBackend(source)
        assert backend.warm_up(kinds, lambda line: None) == {}
        programs = [backend._programs[kind].choice.by_size for kind in kinds]
        choices.append([{size: (made.engine, made.fixed) for size, made in by_size.items()} for by_size in programs])
        tried.append(len(loaded))
        (logits,) = backend.run(Forward.kind, (pictures(4),))
        np.testing.assert_allclose(logits, convolution_by_hand(pictures(4))[1], atol=1e-5)
    assert choices[0] == choices[1]
    chosen = [{id(made.program) for made in by_size.values()} for by_size in programs]
    assert tried[1] == sum(map(len, chosen)) < tried[0]


def test_a_second_start_does_not_run_graphs_plainly_again(tmp_path, monkeypatch):
    model = tmp_path / "model.onnx"
    model.write_bytes(convolution())
    source = GraphSource(model, output="logits", height=HEIGHT, width=WIDTH, batch_sizes=(1,), cache=tmp_path / "cache")
    runs = []
    plain = programs.plain_outputs
    monkeypatch.setattr(programs, "plain_outputs", lambda *given: runs.append(1) or plain(*given))
    for expected in (2, 0):
        runs.clear()
        assert GraphBackend(source).warm_up([Forward.kind, Features.kind], lambda line: None) == {}
        assert len(runs) == expected


def test_expectations_are_of_one_graph_and_its_inputs(tmp_path):
    cache = EngineCache(tmp_path)
    fed, right = (np.arange(3, dtype=np.float32),), (np.array([1, np.nan, -np.inf], np.float32), np.ones((2, 3)))

    def never():
        raise AssertionError("it was kept")

    expected_outputs(b"graph", fed, lambda: right, cache, 1)
    for kept, made in zip(expected_outputs(b"graph", fed, never, cache, 1), right, strict=True):
        np.testing.assert_array_equal(kept, made)
        assert kept.dtype == made.dtype
    others = [(b"other", fed, 1), (b"graph", (fed[0] + 1,), 1), (b"graph", (fed[0].astype(np.float64),), 1)]
    for model, inputs, rows in [*others, (b"graph", fed, None)]:
        (other,) = expected_outputs(model, inputs, lambda: (np.zeros(1),), cache, rows)
        assert other.tolist() == [0]
