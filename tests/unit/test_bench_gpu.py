"""bench.gpu where there is no CUDA device: it says what is missing; and its measurements, rehearsed on the CPU."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2]))

import onnxruntime
from bench import gpu
from bench.resnet import Net, OnnxOperations

from xai_sidecar.engine.work import Forward


@pytest.mark.parametrize(
    ("device", "found", "saying"),
    [
        (
            "gpu:0",
            "the driver finds none",
            "There is no CUDA device: the driver finds none. Run this on a machine with",
        ),
        ("gpu:2", 2, "There is no CUDA device 2, but 2. Count them from 0."),
        ("ascend:0", 1, "'ascend:0' is no CUDA device. Name gpu:0 or another index."),
        ("gpu:x", 1, "'gpu:x' is no CUDA device."),
        ("gpu", 1, "has no CUDAExecutionProvider: install onnxruntime-gpu"),
    ],
)
def test_what_is_missing_is_named_in_a_sentence(device, found, saying, monkeypatch, capsys):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(gpu, "_cuda_devices", lambda: found)
    assert gpu.main(["--device", device]) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.startswith("bench.gpu: ")
    assert saying in errors
    assert errors.endswith(".\n")
    assert errors.count("\n") == 1


def test_no_driver_is_no_device(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(gpu.ctypes, "CDLL", missing)
    assert "libcuda.so.1" in gpu.missing_for("gpu:0")


def test_a_rehearsal_on_the_cpu(monkeypatch, tmp_path, capsys):
    """All kinds of work, with a net that takes no time."""
    monkeypatch.setattr("xai_sidecar.backends.graph.programs._SECONDS", 0.0)
    sizes = gpu.Sizes((1, 2), (1,))
    monkeypatch.setattr(gpu, "Sizes", lambda: sizes)
    path = tmp_path / "figures.json"
    arguments = ["--device", "cpu", "--rounds", "1", "--json", str(path)]
    assert gpu.main(arguments, Net((1,), 2, 16, 3)) == 0
    figures = {figure["name"]: figure for figure in json.loads(path.read_text())}
    compared = {name.removeprefix("conformance, ") for name in figures if name.startswith("conformance")}
    passes = {f"{kind}, batch {size}" for kind in ("forward", "features", "masked forward") for size in (1, 2)}
    rules = {f"{rule}input gradient, batch 1" for rule in ("", "guided ", "deconvolution ")}
    assert compared == passes | rules | {"layer gradient, batch 1"}
    assert all(figure["met"] for figure in figures.values())
    assert figures["predict, batch 2, each"]["value"] > 0
    assert figures["input gradient, batch 1, over predict"]["unit"] == "×"
    assert "RISE's masked pass, batch 2, each" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [2.0, np.nan])
def test_one_wrong_row_is_no_conformance(wrong):
    right = np.ones((3, 4), np.float32)
    other = right.copy()
    other[1] *= wrong
    figure = gpu._agreement(Forward.kind, 3, (other,), (right,), [1e-3])
    assert not figure.met
    assert "row 1" in figure.note
    json.loads(json.dumps(figure.as_dict(), allow_nan=False))
    assert gpu._agreement(Forward.kind, 3, (right * np.float32(1.0001),), (right,), [1e-3]).met


def test_the_net_is_one_that_can_be_measured():
    """Its logits differ by picture, and are neither huge nor all alike."""
    session = onnxruntime.InferenceSession(OnnxOperations().model(Net((2, 2), 4, 32, 5)))
    inputs = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
    (logits,) = session.run(None, {"pictures": inputs})
    assert logits.shape == (4, 5)
    assert 0.01 < logits.std(axis=0).max() < 100
