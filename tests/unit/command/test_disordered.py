"""A served ONNX file with its weights in disorder beside it."""

import pytest
from small_graphs import HEIGHT, WIDTH, convolution_weights, serialised

from xai_sidecar.backends.loading import load_backend
from xai_sidecar.command.disordered import try_weights
from xai_sidecar.config import parse_config
from xai_sidecar.engine.engine import Engine
from xai_sidecar.errors import ConfigError
from xai_sidecar.serving.model import start_model

GRADIENTS = ("gradient", "guided_backprop", "deconvolution", "gradcam")


def config_of(folder, nodes, weights):
    """The config of a file of these nodes, for pictures and logits of two classes."""
    path = folder / "net.onnx"
    path.write_bytes(serialised(nodes, {"x": ["batch", 3, HEIGHT, WIDTH]}, ["y"], weights))
    model = {"onnx": str(path), "input": {"size": [HEIGHT, WIDTH]}, "batch_sizes": [1]}
    off = [f"explainers.{name}.enabled=false" for name in ("rise", "rise_plus", "occlusion")]
    return parse_config({"model": model}, [f"model.compile_cache={folder}/cache", *off])


@pytest.fixture
def started(request):
    """A model and its engine, on their own threads until the test ends."""

    def started(config):
        engine = Engine(lambda: load_backend(config))
        request.addfinalizer(lambda: engine.close(10))
        return start_model(engine, config, lambda line: None).result(60), engine

    return started


def test_maps_of_a_net_that_has_learnt_something(started, tmp_path, monkeypatch):
    nodes = [
        ("Conv", ["x", "kernel"], ["maps"], {"pads": [1, 1, 1, 1]}),
        ("Relu", ["maps"], ["positive"], {}),
        ("GlobalAveragePool", ["positive"], ["means"], {}),
        ("Flatten", ["means"], ["channels"], {"axis": 1}),
        ("MatMul", ["channels", "head"], ["y"], {}),
    ]
    model, engine = started(config_of(tmp_path, nodes, convolution_weights()))
    steps = []
    found = try_weights(model, engine, steps.append).weight_dependence
    assert set(found) == set(GRADIENTS)
    assert found["gradient"].picture_count == 4
    assert abs(found["gradient"].correlation) < 0.9
    assert any("in disorder" in step for step in steps)
    # The second time nothing is loaded.
    monkeypatch.setattr("xai_sidecar.command.disordered.load_backend", None)
    assert try_weights(model, engine, steps.append).weight_dependence == found


def test_a_cell_is_refused(make_model, tmp_path):
    with pytest.raises(ConfigError, match="ONNX files alone") as caught:
        try_weights(make_model(f"model.compile_cache={tmp_path}"), None, print)
    assert caught.value.field == "model.onnx"
