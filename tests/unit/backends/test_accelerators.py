"""A device that was asked for and is not there is an error, never a silent CPU."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
from small_graphs import convolution

from xai_sidecar.backends.runtimes import accelerators, engines
from xai_sidecar.backends.runtimes.accelerators import CANN, CUDA, TENSORRT, OnnxRuntimeOnDevice
from xai_sidecar.backends.runtimes.choosing import choose
from xai_sidecar.backends.runtimes.engines import engines_for
from xai_sidecar.backends.runtimes.onnxruntime import OnnxProgram, OnnxRuntime, runtime
from xai_sidecar.backends.runtimes.program import EngineError
from xai_sidecar.backends.runtimes.trial import Examples
from xai_sidecar.errors import ConfigError

# What onnxruntime says of a provider that it was not built with.
pytestmark = pytest.mark.filterwarnings("ignore:Specified provider")
PROVIDERS = pytest.mark.parametrize("provider", [CUDA, TENSORRT, CANN], ids=lambda provider: provider.engine)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")


@pytest.fixture
def built(monkeypatch):
    """As if ONNX Runtime were built with all providers; their libraries are not there."""
    names = [provider.name for provider in (CUDA, TENSORRT, CANN)]
    monkeypatch.setattr(runtime(), "get_available_providers", lambda: [*names, "CPUExecutionProvider"])


@pytest.fixture
def loaded(monkeypatch, built):
    """As if the providers' libraries were there, too; there is no device."""
    monkeypatch.setattr(accelerators, "_not_loaded", lambda library: None)


@PROVIDERS
def test_a_package_without_the_provider_is_named_with_the_one_that_has_it(provider):
    reason = OnnxRuntimeOnDevice(provider).missing()
    version = runtime().__version__
    assert reason.startswith(f"onnxruntime {version} has no {provider.name}: install {provider.package}")
    with pytest.raises(EngineError, match=provider.name):
        OnnxRuntimeOnDevice(provider).load(convolution())


@PROVIDERS
def test_the_library_that_is_missing_is_named(provider, built, capfd):
    reason = OnnxRuntimeOnDevice(provider).missing()
    assert "libonnxruntime_providers_" in reason
    assert "cannot open shared object file" in reason
    assert provider.package in reason
    assert capfd.readouterr() == ("", "")


@PROVIDERS
def test_a_session_that_took_the_cpu_is_found_out(provider, loaded):
    """The real package's way: it warns of a provider that it does not have, and takes the CPU."""
    reason = OnnxRuntimeOnDevice(provider, index=1).missing()
    assert reason.startswith(f"the {provider.name} ")
    assert "device 1" in reason


def test_a_provider_that_fails_for_one_graph_alone_is_found_out(monkeypatch, loaded):
    engine = OnnxRuntimeOnDevice(CUDA)
    engine.__dict__["_missing"] = None  # the small graph ran
    with pytest.raises(EngineError, match=r"CPUExecutionProvider in place of the CUDAExecutionProvider"):
        engine.load(convolution())


def test_without_onnxruntime_the_package_is_named(monkeypatch):
    def absent():
        raise ImportError("No module named 'onnxruntime'")

    monkeypatch.setattr(accelerators, "runtime", absent)
    assert "Install onnxruntime-gpu[cuda,cudnn]" in OnnxRuntimeOnDevice(CUDA).missing()


def test_a_library_that_can_be_loaded_is_no_reason(monkeypatch):
    asked = []
    monkeypatch.setattr(ctypes, "CDLL", lambda path, mode: asked.append(path))
    assert accelerators._not_loaded("libonnxruntime_providers_cuda.so") is None
    assert [Path(path).name for path in asked] == [
        "libonnxruntime_providers_shared.so",
        "libonnxruntime_providers_cuda.so",
    ]


def test_float32_is_float32():
    """Both have a lower precision by default."""
    ((name, cuda), _) = OnnxRuntimeOnDevice(CUDA, 2)._providers("float32")
    assert (name, cuda) == ("CUDAExecutionProvider", {"device_id": "2", "use_tf32": "0"})
    cann = dict(OnnxRuntimeOnDevice(CANN)._providers("float32"))["CANNExecutionProvider"]
    assert cann["precision_mode"] == "must_keep_origin_dtype"
    names = [name for name, _ in OnnxRuntimeOnDevice(TENSORRT)._providers("bfloat16")]
    assert names == ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    half = dict(OnnxRuntimeOnDevice(TENSORRT)._providers("float16"))["TensorrtExecutionProvider"]
    assert (half["trt_fp16_enable"], half["trt_bf16_enable"]) == ("1", "0")
    assert OnnxRuntimeOnDevice(CUDA).precisions == ("float32",)


def test_a_session_says_what_it_runs_on():
    assert OnnxProgram(convolution()).providers == ("CPUExecutionProvider",)


# ---------------------------------------------------------------------------------------- the engines of a device


@pytest.mark.parametrize(
    ("device", "names"), [("gpu:1", ("Tensorrt", "CUDA")), ("gpu", ("CUDA",)), ("ascend", ("CANN",))]
)
def test_a_device_that_is_not_there_is_an_error_of_the_config(device, names):
    with pytest.raises(ConfigError) as caught:
        engines_for(device)
    assert caught.value.field == "model.device"
    assert repr(device) in caught.value.message
    for name in names:
        assert f"{name}ExecutionProvider" in caught.value.message
    assert "install onnxruntime-" in caught.value.message


def test_the_engines_of_a_cpu(monkeypatch):
    """On several CPUs each of them runs batches in parts, too."""
    for count, parts in ((1, 0), (2, 2), (64, 8)):
        monkeypatch.setattr(engines, "usable_cpus", lambda count=count: count)
        whole, divided = engines_for("cpu")[:2], engines_for("cpu")[2:]
        assert [engine.name for engine in whole] == ["openvino", "onnxruntime"]
        assert [(engine.whole, engine._parts) for engine in divided] == [
            (engine.name, parts) for engine in whole if parts
        ]


def test_one_engine_is_enough_and_the_other_ones_absence_is_told(monkeypatch):
    monkeypatch.setattr(engines.OpenVino, "missing", lambda self: "openvino cannot be imported: no module")
    found = engines_for("cpu:0")
    rows = np.ones((2, 3, 8, 12), np.float32)
    expected = OnnxRuntime().load(convolution())((rows,))
    choice = choose(convolution(), found, (1,), Examples((rows,), expected, [1e-3, 1e-3]), seconds=0)
    assert choice.refused == {"openvino": "openvino does not run it: openvino cannot be imported: no module."}
    assert choice.engine.startswith("onnxruntime ")


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_nothing_runs_without_what_says_what_is_right(monkeypatch, device):
    monkeypatch.setattr(engines.OnnxRuntime, "missing", lambda self: f"{self.name} is not installed")
    with pytest.raises(ConfigError, match=r"onnxruntime is not installed.*xai-sidecar\[onnx\]"):
        engines_for(device)


def test_the_one_engine_that_is_wanted(monkeypatch):
    monkeypatch.setattr(engines, "usable_cpus", lambda: 2)
    assert [engine.name for engine in engines_for("cpu", wanted="openvino")] == ["openvino", "openvino-in-parts"]
    monkeypatch.setattr(engines.OpenVino, "missing", lambda self: f"{self.name} is not installed")
    with pytest.raises(ConfigError, match="openvino is not installed"):
        engines_for("cpu", wanted="openvino")
