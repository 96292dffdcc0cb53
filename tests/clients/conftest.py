"""A server of arithmetic, and what it says, worked out here, for clients that others wrote."""

import base64
import importlib.util
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from xai_proto import explanation_pb2 as pb

HERE = Path(__file__).parent


def load(path):
    spec = importlib.util.spec_from_file_location(f"clients_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


integration = load(HERE.parent / "integration" / "conftest.py")

connect = integration.connect
map_of = integration.map_of
misbehaving = integration.misbehaving
only = integration.only
start_misbehaving = integration.start_misbehaving


@pytest.fixture(scope="session")
def server(start_misbehaving):
    with start_misbehaving() as running:
        yield running
        assert running.other_output == []


@pytest.fixture(scope="session")
def expected(server, connect, map_of, misbehaving, tmp_path_factory):
    """Files with inputs and what is to come of them: logits by NumPy alone, maps by the contract's own calls."""
    random = np.random.default_rng(0)
    inputs = random.standard_normal((2, *misbehaving.SHAPE)).astype(np.float32)
    pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    images = [
        pb.Image(model_input=pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=each.shape, data=each.tobytes()))
        for each in inputs
    ]
    explanation = pb.ExplanationRequest(explainer="gradcam", targets=pb.Targets(class_ids=[0, 3]))
    with connect(server.grpc) as stub:
        answer = stub.Predict(pb.PredictRequest(images=images, explanations=[explanation]), timeout=60)
        spec = stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=60).model.input
    normalised = (pixels / 255 - np.array(spec.mean)) / np.array(spec.std)
    found = {
        "inputs": inputs,
        "logits": misbehaving.logits_of(inputs),
        "maps": np.stack([[map_of(each) for each in one.explanations[0].maps] for one in answer.predictions]),
        "pixels": pixels,
        "file_logits": misbehaving.logits_of(normalised.transpose(2, 0, 1)[None].astype(np.float32)),
    }
    folder = tmp_path_factory.mktemp("expected")
    np.savez(folder / "expected.npz", **found, png=np.frombuffer(file.getvalue(), np.uint8))
    values = {name: value.tolist() for name, value in found.items()}
    values["png"] = base64.b64encode(file.getvalue()).decode()
    (folder / "expected.json").write_text(json.dumps(values))
    return SimpleNamespace(npz=folder / "expected.npz", json=folder / "expected.json")
