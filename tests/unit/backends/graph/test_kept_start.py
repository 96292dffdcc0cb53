"""A later start takes from an earlier one what follows from the same things, and loads no program that is wrong."""

from dataclasses import replace
from importlib import metadata

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import convert_model_to_external_data
from small_graphs import HEIGHT, WIDTH, convolution, convolution_by_hand, convolution_weights, pictures

from xai_sidecar.backends.graph import backend as module
from xai_sidecar.backends.graph import kept_start, loaded
from xai_sidecar.backends.graph.backend import GraphBackend
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.backends.runtimes.keeping import EngineCache
from xai_sidecar.backends.runtimes.onnxruntime import OnnxRuntime
from xai_sidecar.backends.runtimes.openvino import OpenVino
from xai_sidecar.engine.work import Forward, Kind
from xai_sidecar.errors import ConfigError, PreconditionError

GRADIENT, LAYER = Kind("input_gradient"), Kind("layer_gradient", layer="positive")
KINDS = [Forward.kind, GRADIENT]
TARGETS = np.array([3], np.int32)


@pytest.fixture
def source(tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(convolution())
    return GraphSource(model, output="logits", height=HEIGHT, width=WIDTH, batch_sizes=(1, 2), cache=tmp_path / "cache")


@pytest.fixture
def reads(monkeypatch):
    """The files that were read as graphs."""
    found = []
    read = loaded.load_file
    monkeypatch.setattr(loaded, "load_file", lambda path, *more: found.append(path) or read(path, *more))
    return found


def started(source):
    backend = GraphBackend(source)
    assert backend.warm_up(KINDS, lambda line: None) == {}
    return backend


def gradient_by_hand(target=3, scale=1.0):
    """Of `convolution` for the first picture: what each position with a positive output sends back."""
    weights, inputs = convolution_weights(), pictures(1)
    padded = np.pad(inputs, ((0, 0), (0, 0), (1, 1), (1, 1)))
    back = np.zeros_like(padded, np.float64)
    for channel, kernel in enumerate(weights["kernel"] * scale):
        for row in range(HEIGHT):
            for column in range(WIDTH):
                window = np.s_[0, :, row : row + 3, column : column + 3]
                if (padded[window] * kernel).sum() > 0:
                    back[window] += kernel * weights["head"][channel, target] / (HEIGHT * WIDTH)
    return back[:, :, 1:-1, 1:-1]


def check(backend, scale=1.0):
    """Both kinds give what is right of the net whose kernel is multiplied by something positive."""
    (logits,) = backend.run(Forward.kind, (pictures(2),))
    np.testing.assert_allclose(logits, scale * convolution_by_hand(pictures(2))[1], atol=1e-5)
    gradient, _ = backend.run(GRADIENT, (pictures(1), TARGETS))
    np.testing.assert_allclose(gradient, gradient_by_hand(scale=scale), atol=1e-6)


def doubled():
    """The same net with a kernel twice as large."""
    model = onnx.load_from_string(convolution())
    for tensor in model.graph.initializer:
        if tensor.name == "kernel":
            tensor.CopyFrom(onnx.numpy_helper.from_array(2 * convolution_weights()["kernel"], "kernel"))
    return model.SerializeToString()


def test_a_later_start_reads_no_graph_and_knows_the_same(source, reads):
    first = started(source)
    assert len(reads) == 1
    reads.clear()
    second = started(source)
    assert reads == []
    for name in ("version", "weights", "class_count", "layers", "refused_layers", "default_layer", "engine"):
        assert getattr(second, name) == getattr(first, name)
    check(second)
    for kind in KINDS:
        assert set(second.costs(kind)) == set(first.costs(kind))
        assert all(0 < seconds <= first.costs(kind)[size] for size, seconds in second.costs(kind).items())


def test_a_layer_on_demand_is_made_from_the_file_when_it_is_asked_for(source, reads):
    started(source)
    second = started(source)
    reads.clear()
    outputs, gradients, _ = second.run(LAYER, (pictures(1), TARGETS))
    assert len(reads) == 1
    head = convolution_weights()["head"][:, 3] / (HEIGHT * WIDTH)
    np.testing.assert_allclose(gradients, np.broadcast_to(head[None, :, None, None], outputs.shape), atol=1e-6)
    reads.clear()
    third = started(source)
    third.run(LAYER, (pictures(1), TARGETS))
    assert reads == []  # this, too, is kept


@pytest.mark.parametrize("what", ["file", "engine", "library", "code", "sizes", "threads", "layout", "cpu"])
def test_where_anything_is_another_the_graph_is_read_anew(what, source, reads, monkeypatch):
    started(source)
    reads.clear()
    if what == "file":
        source.path.write_bytes(doubled())
    elif what == "engine":
        monkeypatch.setattr(OpenVino, "version", "9.9")
    elif what == "library":
        version = metadata.version
        monkeypatch.setattr(kept_start, "version", lambda name: "9.9" if name == "onnx" else version(name))
    elif what == "code":
        monkeypatch.setattr(kept_start, "code_digest", lambda folder: "another")
    elif what == "cpu":
        monkeypatch.setattr("xai_sidecar.backends.runtimes.keeping._cpu", lambda: "another")
    else:
        changes = {"sizes": {"batch_sizes": (1, 2, 3)}, "threads": {"threads": 1}, "layout": {"preparation": "other"}}
        source = replace(source, **changes[what])
    check(started(source), 2.0 if what == "file" else 1.0)
    assert len(reads) == 1


def test_data_beside_the_file_count_as_it_does(tmp_path, source, reads):
    def write(content):
        model = onnx.load_from_string(content)
        convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
        (tmp_path / "weights.bin").unlink(missing_ok=True)
        onnx.save(model, source.path)

    write(convolution())
    before = source.path.read_bytes()
    started(source)
    reads.clear()
    check(started(source))
    assert reads == []
    write(doubled())
    assert source.path.read_bytes() == before  # only the data are others
    check(started(source), 2.0)
    assert len(reads) == 1


def compiled(source):
    """What engines have compiled, the smallest first: it is neither a record nor what a graph gave."""
    paths = (source.cache / "engine-graphs").iterdir()
    return sorted((path for path in paths if path.read_bytes()[:1] not in b"{["), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_program_of_another_net_is_found_out(engine, tmp_path, source, reads):
    source = replace(source, batch_sizes=(1,), forward_engine=engine)
    other = replace(source, path=tmp_path / "other.onnx", cache=tmp_path / "others")
    other.path.write_bytes(doubled())
    for each in (source, other):
        started(each)
    for right, wrong in zip(compiled(source), compiled(other), strict=True):
        assert right.read_bytes() != wrong.read_bytes()
        EngineCache(source.cache).keep(right.name.partition(".")[0], wrong.read_bytes())
    reads.clear()
    backend = started(source)
    (logits,) = backend.run(Forward.kind, (pictures(1),))
    np.testing.assert_allclose(logits, convolution_by_hand(pictures(1))[1], atol=1e-5)
    assert len(reads) == 1


def test_where_what_was_expected_is_wrong_or_unreadable_the_graph_is_made_anew(source, reads):
    started(source)
    kept = EngineCache(source.cache)
    for damage in (lambda content: content[:-4] + b"\0\0\x80\x7f", lambda content: content[:-4]):
        changed = 0
        for path in list((source.cache / "engine-graphs").iterdir()):
            content = path.read_bytes()
            if content.startswith(b'{"digest"'):
                kept.keep(path.name.partition(".")[0], damage(content))
                changed += 1
        assert changed == len(KINDS)
        reads.clear()
        check(started(source))
        assert len(reads) == 1
        reads.clear()
        check(started(source))
        assert reads == []  # and kept, right this time


def test_where_a_compiled_program_is_gone_its_graph_is_made_anew(source, reads):
    started(source)
    for path in compiled(source):
        path.unlink()
    reads.clear()
    check(started(source))
    assert len(reads) == 1


@pytest.mark.parametrize("cached", [False, True])
def test_a_backend_that_serves_has_no_weights_of_the_file_in_memory(source, cached, reads):
    source = source if cached else replace(source, cache=None)
    backend = started(source)
    assert {"kernel", "head"}.isdisjoint(backend._classifier._loaded.classifier.graph.constants)
    reads.clear()
    outputs, _, _ = backend.run(LAYER, (pictures(1), TARGETS))
    assert len(reads) == 1
    np.testing.assert_allclose(outputs.mean((2, 3)), convolution_by_hand(pictures(1))[0], atol=1e-5)
    assert {"kernel", "head"}.isdisjoint(backend._classifier._loaded.classifier.graph.constants)
    check(backend)


@pytest.mark.parametrize("known", [False, True])
def test_a_layer_of_another_file_than_at_the_start_is_refused(source, known):
    backend = started(source)
    if known:  # that its graph was read at the start or not
        backend = started(source)
    source.path.write_bytes(doubled())
    with pytest.raises(PreconditionError, match="another one than at the start"):
        backend.run(LAYER, (pictures(1), TARGETS))
    check(backend)


def test_a_file_that_is_gone_is_said_to_be(source):
    started(source)
    source.path.unlink()
    with pytest.raises(ConfigError, match="there is no file"):
        GraphBackend(source)


def test_a_program_that_is_run_as_it_stands_is_not_kept(source, monkeypatch, reads):
    for engine in (OpenVino, OnnxRuntime):
        monkeypatch.setattr(engine, "load", lambda self, model, **more: lambda rows: tuple(rows))
    for _ in range(2):
        reads.clear()
        backend = started(source)
        assert backend.engine.endswith("unoptimised")
        assert len(reads) == 1
        check(backend)


def test_a_precision_that_gained_too_little_is_not_tried_again_where_all_is_the_same(source, monkeypatch, reads):
    def too_little(*given):
        raise PreconditionError("bfloat16 gains little here")

    monkeypatch.setattr(module, "check_gain", too_little)
    reduced = replace(Forward.kind, precision="bfloat16")
    refused = []
    for _ in range(2):
        reads.clear()
        refused.append(GraphBackend(source).warm_up([*KINDS, reduced], lambda line: None))
    assert set(refused[0]) == {reduced}
    assert refused[1] == refused[0]
    assert reads == []
    GraphBackend(replace(source, threads=1)).warm_up([*KINDS, reduced], lambda line: None)
    assert len(reads) == 1
