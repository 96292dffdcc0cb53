"""OpenVINO as an engine."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from small_graphs import convolution, convolution_by_hand, elementwise, pictures

from xai_sidecar.backends.runtimes import openvino
from xai_sidecar.backends.runtimes.openvino import OpenVino
from xai_sidecar.backends.runtimes.program import EngineError, described


def test_the_package_has_a_name():
    assert OpenVino().missing() is None
    assert re.fullmatch(r"openvino \d+\.\d+\.\d+", described(OpenVino()))
    assert OpenVino().precisions[0] == "float32"


def test_without_the_package_there_is_a_reason(monkeypatch):
    openvino._core.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert "openvino" in OpenVino().missing()
    with pytest.raises(EngineError, match="openvino"):
        OpenVino().load(convolution())


@pytest.mark.parametrize(("threads", "expected"), [(1, 1), (3, 3), (None, 5)])
def test_threads_are_as_many_as_asked_for_or_as_cpus(monkeypatch, threads, expected):
    monkeypatch.setattr(openvino, "usable_cpus", lambda: 5)
    asked = []
    compile_ = openvino._compile
    monkeypatch.setattr(openvino, "_compile", lambda *given: asked.append(given[-1]) or compile_(*given))
    OpenVino().load(convolution(), threads=threads)
    assert asked[0]["INFERENCE_NUM_THREADS"] == expected
    monkeypatch.undo()
    compiled = OpenVino().load(convolution(), threads=1)._compiled
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("ENABLE_CPU_PINNING") is False


# The limit is read once in a process.
SCRIPT = """
import os, sys, numpy as np
from pathlib import Path
from xai_sidecar.backends.runtimes.openvino import OpenVino
engine = OpenVino()
assert engine.missing() is None
print(os.environ.get("ONEDNN_MAX_CPU_ISA"))
for precision in engine.precisions:
    engine.load(Path(sys.argv[1]), precision=precision)((np.ones((2, 3, 8, 12), np.float32),))
"""


@pytest.mark.parametrize("limit", ["AVX2", None])
def test_the_limit_that_mindspore_needs_does_not_reach_it(tmp_path, limit):
    """Its oneDNN would refuse the precisions that its plug-in says it has, and lose half of its speed."""
    model = tmp_path / "model.onnx"
    model.write_bytes(convolution())
    environment = {key: value for key, value in os.environ.items() if key != "ONEDNN_MAX_CPU_ISA"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(model)],
        env={**environment, "HOME": str(tmp_path / "home")} | ({"ONEDNN_MAX_CPU_ISA": limit} if limit else {}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(limit)  # MindSpore, imported later, finds it
    assert not (tmp_path / "home").exists()  # no telemetry, no notes


def test_it_takes_nan_for_zero_in_a_relu():
    """Which is why it is not believed where the reference says NaN."""
    (output,) = OpenVino().load(elementwise("Relu"))((np.array([[np.nan, 1, -1, np.inf]], np.float32),))
    np.testing.assert_array_equal(output, [[0, 1, 0, np.inf]])


def test_importing_it_reports_to_nobody_and_forks_no_process():
    code = """
import os, sys
events = []
sys.addaudithook(lambda event, _: events.append(event) if event in ("os.fork", "socket.connect") else None)
from xai_sidecar.backends.runtimes.openvino import OpenVino
print(OpenVino().missing(), events, [name for name in sys.modules if "telemetry" in name or "ovc" in name])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None [] []"


class Compiled:
    """Stands for a compiled model; `memory` as if it had run."""

    memory, busy = True, False

    def release_memory(self):
        if self.busy:
            raise RuntimeError("in a busy state")
        self.memory = False


def test_the_two_programs_that_ran_last_keep_their_memory():
    working = openvino._WorkingMemory()
    a, b, c = (Compiled() for _ in range(3))
    for each in (a, b, a, b):
        working.used(each)
    assert (a.memory, b.memory) == (True, True)
    working.used(c)
    assert (a.memory, b.memory, c.memory) == (False, True, True)
    working.used(c)
    assert (b.memory, c.memory) == (True, True)


def test_a_program_that_is_running_gives_its_memory_back_another_time():
    working = openvino._WorkingMemory()
    a, b, c = (Compiled() for _ in range(3))
    a.busy = True
    for each in (a, b, c):
        working.used(each)
    assert a.memory
    a.busy = False
    working.used(c)
    assert (a.memory, b.memory, c.memory) == (False, True, True)


def test_a_program_that_is_gone_is_no_matter():
    working = openvino._WorkingMemory()
    a, b = Compiled(), Compiled()
    working.used(a)
    working.used(Compiled())
    working.used(b)
    assert (a.memory, b.memory) == (True, True)
    assert len(working._latest) == 2


def test_programs_whose_memory_was_taken_are_right():
    programs = [OpenVino().load(convolution(), threads=1) for _ in range(4)]
    for count in (1, 4, 2):
        for program in programs:
            _, logits = program((pictures(count),))
            np.testing.assert_allclose(logits, convolution_by_hand(pictures(count))[1], atol=1e-5)
    with ThreadPoolExecutor(4) as pool:  # some are running when it is their turn to give it back
        results = list(pool.map(lambda program: program((pictures(4),))[1], programs * 20))
    for logits in results:
        np.testing.assert_allclose(logits, convolution_by_hand(pictures(4))[1], atol=1e-5)
