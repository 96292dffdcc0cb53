"""What the first start found out is not found out again."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from small_graphs import HEIGHT, WIDTH, convolution, convolution_by_hand, pictures

from xai_sidecar.backends.graph import programs
from xai_sidecar.backends.graph.backend import GraphBackend
from xai_sidecar.backends.graph.graph import read
from xai_sidecar.backends.graph.kept_runs import GraphDigests, KeptRuns, decoded
from xai_sidecar.backends.graph.reference import Reference
from xai_sidecar.backends.graph.rules import RULES
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.backends.runtimes.keeping import EngineCache
from xai_sidecar.backends.runtimes.onnxruntime import OnnxRuntime
from xai_sidecar.backends.runtimes.openvino import OpenVino
from xai_sidecar.engine.work import Features, Forward, Kind


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


KINDS = [Forward.kind, Features.kind, Kind("input_gradient"), Kind("layer_gradient", layer="positive")]


@pytest.fixture
def source(tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(convolution())
    return GraphSource(model, output="logits", height=HEIGHT, width=WIDTH, batch_sizes=(1,), cache=tmp_path / "cache")


def started(source):
    """A backend that has started, and the reasons why it does not support some kinds."""
    backend = GraphBackend(source)
    return backend, backend.warm_up(KINDS, lambda line: None)


def results(backend):
    rows = pictures(1), np.array([3], np.int32)
    return [array for kind in KINDS for array in backend.run(kind, rows)]


def test_a_second_start_runs_no_graph_plainly_and_writes_none(source, monkeypatch):
    runs, written = [], []
    plain, write = Reference.__call__, programs.write
    monkeypatch.setattr(Reference, "__call__", lambda *given: runs.append(1) or plain(*given))
    monkeypatch.setattr(programs, "write", lambda graph: written.append(1) or write(graph))
    first, refused = started(source)
    assert refused == {}
    assert (len(runs) > 10, len(written)) == (True, len(KINDS))
    runs.clear()
    written.clear()
    second, refused = started(source)
    assert (refused, runs, written) == ({}, [], [])
    assert second.version == first.version
    assert second.default_layer == first.default_layer == "positive"
    for found, right in zip(results(second), results(first), strict=True):
        np.testing.assert_array_equal(found, right)


def test_what_is_damaged_is_made_again(source):
    first, _ = started(source)
    for path in (source.cache / "engine-graphs").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    second, refused = started(source)
    assert refused == {}
    for found, right in zip(results(second), results(first), strict=True):
        np.testing.assert_allclose(found, right, atol=1e-6)


def test_a_wrong_derivative_is_refused_at_every_start_and_served_once_it_is_mended(source, monkeypatch):
    right = RULES["Relu"]
    monkeypatch.setitem(RULES, "Relu", lambda node, gradients, emit: [gradients[0]])
    for _ in range(2):
        _, refused = started(source)
        assert set(refused) == {Kind("input_gradient")}
        assert "not what small changes do" in refused[Kind("input_gradient")]
    monkeypatch.setitem(RULES, "Relu", right)
    assert started(source)[1] == {}


def test_what_a_graph_gave_is_found_as_it_was(tmp_path):
    given = (
        np.array([[1, np.nan], [-np.inf, -0.0]], np.float32),
        np.zeros((2, 0, 3)),
        np.array(7),
        np.array([True, False]),
        np.arange(4, dtype=np.uint8).reshape(2, 2).T,
    )
    runs = []

    def run(graph, rows):
        runs.append(graph)
        return tuple(array.copy() for array in given)

    graph, rows = read(onnx.load_from_string(convolution())), (pictures(2),)
    for _ in range(2):  # two processes
        kept = KeptRuns(run, EngineCache(tmp_path), GraphDigests())
        for found, right in zip(kept(graph, rows), given, strict=True):
            np.testing.assert_array_equal(found, right)
            assert (found.dtype, found.shape) == (right.dtype, right.shape)
            found[...] = 0  # it is the caller's
    assert len(runs) == 1


def test_what_a_graph_gave_is_of_that_graph_and_its_inputs(tmp_path, monkeypatch):
    runs = []
    graph, rows = read(onnx.load_from_string(convolution())), (pictures(2),)
    kept = KeptRuns(lambda *given: runs.append(given) or (np.zeros(1),), EngineCache(tmp_path), GraphDigests())
    kept(graph, rows)
    weights = {**graph.constants, "head": graph.constants["head"] + 1}
    padding = [
        replace(node, attributes={"pads": (1, 1, 1, 2)}) if node.kind == "Conv" else node for node in graph.nodes
    ]
    others = [
        (replace(graph.copy(), constants=weights), rows),
        (replace(graph.copy(), nodes=padding), rows),
        (replace(graph.copy(), outputs=["logits"]), rows),
        (replace(graph.copy(), opset=18), rows),
        (replace(graph.copy(), inputs={"pictures": (2, 3, HEIGHT, WIDTH)}), rows),
        (graph, (rows[0] + 1,)),
        (graph, (rows[0][:1],)),
        (graph, (rows[0].astype(np.float64),)),
    ]
    for count, given in enumerate(others, start=2):
        kept(*given)
        assert len(runs) == count
    monkeypatch.setattr(OnnxRuntime, "version", "0.1")
    kept(graph, rows)
    assert len(runs) == len(others) + 2


def test_large_outputs_and_texts_are_not_kept(tmp_path):
    runs = []
    graph = read(onnx.load_from_string(convolution()))
    for output in (np.zeros(2_000_000, np.float32), np.array(["a", "b"])):
        kept = KeptRuns(
            lambda *given, output=output: runs.append(1) or (output,), EngineCache(tmp_path), GraphDigests()
        )
        for _ in range(2):
            np.testing.assert_array_equal(kept(graph, (pictures(1),))[0], output)
    assert len(runs) == 4


@pytest.mark.parametrize("content", [b"", b"3\n", b'[["<f4", [2]]]\n1234567', b'[["<f4", [2]]]\n123456789', b"\xff\n"])
def test_what_another_release_has_written_is_not_read(content):
    assert decoded(content) is None
