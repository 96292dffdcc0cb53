"""ONNX Runtime as an engine."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from small_graphs import convolution, elementwise, serialised

from xai_sidecar.backends.runtimes import onnxruntime
from xai_sidecar.backends.runtimes.memory import give_back_memory
from xai_sidecar.backends.runtimes.onnxruntime import OnnxRuntime
from xai_sidecar.backends.runtimes.program import EngineError, described


def running_threads():
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_are_as_many_as_asked_for(threads):
    before = running_threads()
    program = OnnxRuntime().load(convolution(), threads=threads)
    assert running_threads() - before == threads - 1  # the caller's is the first
    del program
    assert running_threads() == before


def test_threads_are_as_many_as_cpus(monkeypatch):
    monkeypatch.setattr(onnxruntime, "usable_cpus", lambda: 4)
    before = running_threads()
    program = OnnxRuntime().load(convolution())
    assert running_threads() - before == 3
    del program


def test_an_error_is_raised_and_not_printed(capfd, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fours = serialised(
        [("Reshape", ["rows", "shape"], ["fours"], {})], {"rows": ["batch", 6]}, ["fours"], {"shape": np.array([-1, 4])}
    )
    program = OnnxRuntime().load(fours)
    assert [output.shape for output in program((np.zeros((2, 6), np.float32),))] == [(3, 4)]
    with pytest.raises(Exception, match="Reshape"):
        program((np.zeros((3, 6), np.float32),))
    with pytest.raises(EngineError, match="Protobuf") as caught:
        OnnxRuntime().load(b"no model")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_the_runtime_has_a_name():
    assert OnnxRuntime().missing() is None
    assert re.fullmatch(r"onnxruntime \d+\.\d+\.\d+", described(OnnxRuntime()))


def test_without_the_runtime_there_is_a_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "onnxruntime" in OnnxRuntime().missing()
    with pytest.raises(EngineError, match="onnxruntime"):
        OnnxRuntime().load(convolution())


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.fixture
def wide():
    """A small row in, 30 MB of products for 750 of them, one number out."""
    return serialised(
        [
            ("MatMul", ["x", "weights"], ["products"], {}),
            ("Exp", ["products"], ["powers"], {}),
            ("ReduceSum", ["powers"], ["sum"], {"keepdims": 0}),
        ],
        {"x": ["batch", 1]},
        ["sum"],
        {"weights": np.zeros((1, 10_000), np.float32)},
    )


ROWS = (np.zeros((750, 1), np.float32),)


def test_programs_compute_in_the_same_memory(wide):
    programs = [OnnxRuntime().load(wide, threads=1) for _ in range(6)]
    assert programs[0](ROWS)[0] == 7_500_000
    before = resident()
    for program in programs[1:]:
        program(ROWS)
    assert resident() - before < 40_000_000  # with memory of their own, 150 MB and more


def test_that_memory_is_given_back(wide):
    program = OnnxRuntime().load(wide, threads=1)
    program((np.zeros((3000, 1), np.float32),))
    before = resident()
    give_back_memory()
    assert resident() < before - 60_000_000
    assert program(ROWS)[0] == 7_500_000


def test_a_cpu_has_no_bfloat16_for_it():
    with pytest.raises(EngineError, match="bfloat16"):
        OnnxRuntime().load(convolution(), precision="bfloat16")


def test_it_keeps_no_notes_of_what_it_runs(tmp_path):
    model = tmp_path / "relu.onnx"
    model.write_bytes(elementwise("Relu"))
    script = (
        "import numpy as np, pathlib, sys\n"
        "from xai_sidecar.backends.runtimes.onnxruntime import OnnxRuntime\n"
        "program = OnnxRuntime().load(pathlib.Path(sys.argv[1]))\n"
        "print(program((np.array([[-1, 2, 0, 0]], np.float32),)))\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ORT_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", script, str(model)],
        env={**environment, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "2." in done.stdout
    assert [path for path in home.rglob("*") if path.is_file()] == []
