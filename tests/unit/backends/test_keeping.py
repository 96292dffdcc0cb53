"""What engines have made is kept whole, or not at all."""

import os
import time

import numpy as np
import onnx
import pytest
import structlog
from onnx.external_data_helper import convert_model_to_external_data
from small_graphs import convolution, convolution_by_hand, elementwise, pictures

from xai_sidecar.backends.runtimes import openvino
from xai_sidecar.backends.runtimes.keeping import EngineCache, cache_key
from xai_sidecar.backends.runtimes.onnxruntime import OnnxRuntime
from xai_sidecar.backends.runtimes.openvino import OpenVino


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_kept_is_found(tmp_path):
    kept = EngineCache(tmp_path)
    assert kept.find("one") is None
    kept.keep("one", b"first")
    kept.keep("two", b"second")
    assert EngineCache(tmp_path).find("one").read_bytes() == b"first"
    kept.keep("one", b"first")  # by another process, say
    assert len(files(tmp_path)) == 2
    kept.keep("one", b"another")
    assert kept.find("one").read_bytes() == b"another"
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("damage", [b"", b"firs", b"First", b"first and more"])
def test_a_damaged_file_is_thrown_away(tmp_path, damage):
    kept = EngineCache(tmp_path)
    kept.keep("one", b"first")
    kept.find("one").write_bytes(damage)
    assert kept.find("one") is None
    assert files(tmp_path) == []


def test_files_of_another_user_are_found_too(tmp_path, monkeypatch):
    EngineCache(tmp_path).keep("one", b"first")

    def refused(path, *times):
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "utime", refused)
    assert EngineCache(tmp_path).find("one").read_bytes() == b"first"


def test_a_half_written_file_is_not_found_and_goes_in_time(tmp_path):
    kept = EngineCache(tmp_path)
    kept.keep("one", b"first")
    half = kept.find("one").with_name("writing-one")
    half.write_bytes(b"fir")
    kept.keep("two", b"second")
    assert half.exists()  # somebody may be writing it
    os.utime(half, (time.time() - 7200,) * 2)
    kept.keep("two", b"second")
    assert not half.exists()


def test_the_least_recently_used_go(tmp_path):
    kept = EngineCache(tmp_path, kept_bytes=25)
    for age, key in ((300, "a"), (200, "b")):
        kept.keep(key, key.encode() * 10)
        os.utime(kept.find(key), (time.time() - age,) * 2)
    kept.find("a")  # is used now
    kept.keep("c", b"c" * 10)
    assert [key for key in "abc" if kept.find(key)] == ["a", "c"]
    kept.keep("d", b"d" * 30)  # more than all that may be kept
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 25


def test_nothing_else_is_removed(tmp_path):
    (tmp_path / "mine").write_bytes(b"x" * 100)
    EngineCache(tmp_path, kept_bytes=1).keep("a", b"a" * 10)
    assert files(tmp_path) == [tmp_path / "mine"]


def test_a_folder_that_cannot_be_written_is_logged_and_done_without(tmp_path):
    (tmp_path / "file").write_text("no folder")
    kept = EngineCache(tmp_path / "file")
    with structlog.testing.capture_logs() as logs:
        kept.keep("one", b"first")
    assert [entry["event"] for entry in logs] == ["engine_cache_not_written"]
    assert kept.find("one") is None


def test_the_key_tells_graphs_and_options_apart(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(convolution())
    keys = [
        cache_key(convolution()),
        cache_key(elementwise("Relu")),
        cache_key(convolution(), 1),
        cache_key(convolution(), "1"),
        cache_key(convolution(), None),
    ]
    assert len(set(keys)) == len(keys)
    assert cache_key(convolution(), 1) == keys[2]
    assert cache_key(path) == keys[0]


def test_the_key_tells_weights_beside_the_model_apart(tmp_path):
    model = onnx.load_from_string(convolution())
    convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save(model, tmp_path / "model.onnx")
    before = cache_key(tmp_path / "model.onnx")
    weights = bytearray((tmp_path / "weights.bin").read_bytes())
    weights[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(weights)
    assert cache_key(tmp_path / "model.onnx") != before


# ---------------------------------------------------------------------------------------- ONNX Runtime's graphs


def settled(engine, *given, **more):
    """A program as it serves."""
    return engine.settle(engine.load(*given, **more))


def test_a_program_that_is_not_chosen_is_not_kept(tmp_path):
    for engine in (OnnxRuntime(EngineCache(tmp_path)), OpenVino(EngineCache(tmp_path))):
        program = engine.load(convolution())
        assert files(tmp_path) == []
        engine.settle(program)
        (path,) = files(tmp_path)
        engine.settle(engine.load(convolution()))
        assert files(tmp_path) == [path]
        path.unlink()


def test_an_optimised_graph_gives_the_same_numbers(tmp_path, capfd):
    plain = OnnxRuntime().load(convolution())
    engine = OnnxRuntime(EngineCache(tmp_path))
    for program in (settled(engine, convolution()), engine.load(convolution())):
        assert (program.inputs, program.outputs) == (plain.inputs, plain.outputs)
        for count in (1, 3):
            for output, expected in zip(program((pictures(count),)), plain((pictures(count),)), strict=True):
                np.testing.assert_array_equal(output, expected)
    (path,) = files(tmp_path)
    names = [node.op_type for node in onnx.load_from_string(path.read_bytes()).graph.node]
    assert "Relu" not in names  # fused with the convolution
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_onnxruntime_does_not_take_is_optimised_anew(tmp_path):
    engine = OnnxRuntime(EngineCache(tmp_path))
    settled(engine, convolution())
    (path,) = files(tmp_path)
    EngineCache(tmp_path).keep(path.name.partition(".")[0], b"whole, and no graph")
    program = settled(engine, convolution())
    np.testing.assert_allclose(program((pictures(2),))[1], convolution_by_hand(pictures(2))[1], 1e-4)
    assert files(tmp_path) == [path]


def test_a_path_is_run_as_it_is(tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(convolution())
    settled(OnnxRuntime(EngineCache(tmp_path / "cache")), model)
    assert files(tmp_path) == [model]


# ---------------------------------------------------------------------------------------- OpenVINO's programs


@pytest.fixture
def compiled(monkeypatch):
    """The batch sizes that were compiled, and not found."""
    made = []
    compile_graph = openvino._compile
    monkeypatch.setattr(
        openvino, "_compile", lambda model, size, options: made.append(size) or compile_graph(model, size, options)
    )
    return made


def run(folder, **options):
    program = settled(OpenVino(EngineCache(folder)), convolution(), **options)
    assert (program.inputs, program.outputs) == (("pictures",), ("channels", "logits"))
    np.testing.assert_allclose(program((pictures(3),))[1], convolution_by_hand(pictures(3))[1], atol=2e-2)


def test_a_second_start_compiles_nothing(tmp_path, compiled):
    for _ in range(2):
        for size in (None, 3):
            run(tmp_path, batch_size=size)
    assert compiled == [None, 3]
    run(tmp_path, threads=1)
    run(tmp_path, precision="float32", threads=1)
    assert compiled == [None, 3, None]


@pytest.mark.parametrize("place", [0, -1])
def test_a_damaged_program_is_compiled_anew(tmp_path, compiled, place):
    run(tmp_path)
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    content[place] ^= 255
    path.write_bytes(content)
    run(tmp_path)
    run(tmp_path)
    assert compiled == [None, None]


def test_a_program_that_openvino_does_not_take_is_compiled_anew(tmp_path, compiled):
    run(tmp_path)
    (path,) = files(tmp_path)
    key = path.name.partition(".")[0]
    path.unlink()
    EngineCache(tmp_path).keep(key, b"whole, and no program")
    run(tmp_path)
    assert compiled == [None, None]
    run(tmp_path)
    assert compiled == [None, None]
