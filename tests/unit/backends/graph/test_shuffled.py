"""Files whose weights are in disorder: what is shuffled, what is left, and that nothing else changes."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_graphs import serialised

from xai_sidecar.backends.graph.shuffled import write_shuffled

GENERATOR = np.random.default_rng(0)
WEIGHTS = {
    "kernel": GENERATOR.normal(size=(4, 3, 3, 3)).astype(np.float32),
    "bias": np.arange(4, dtype=np.float32),
    "scale": np.arange(1, 5, dtype=np.float32).reshape(4, 1, 1),
    "head": GENERATOR.normal(size=(4, 5)).astype(np.float32),
}


@pytest.fixture
def path(tmp_path):
    """A convolution with a bias, a product with a constant, a mean, and a product with a matrix."""
    path = tmp_path / "net.onnx"
    nodes = [
        ("Conv", ["x", "kernel", "bias"], ["maps"], {}),
        ("Mul", ["maps", "scale"], ["scaled"], {}),
        ("GlobalAveragePool", ["scaled"], ["means"], {}),
        ("Flatten", ["means"], ["flat"], {"axis": 1}),
        ("MatMul", ["flat", "head"], ["y"], {}),
    ]
    path.write_bytes(serialised(nodes, {"x": ["batch", 3, 8, 8]}, ["y"], WEIGHTS))
    return path


def weights_of(path):
    return {each.name: numpy_helper.to_array(each) for each in onnx.load_model(str(path)).graph.initializer}


def test_weights_and_biases_have_their_values_in_another_order(path, tmp_path):
    before = path.read_bytes()
    assert write_shuffled(path, tmp_path / "out.onnx", seed=1) == 3
    assert path.read_bytes() == before
    found = weights_of(tmp_path / "out.onnx")
    for name, values in WEIGHTS.items():
        assert found[name].shape == values.shape
        np.testing.assert_array_equal(np.sort(found[name], axis=None), np.sort(values, axis=None))
        assert np.array_equal(found[name], values) == (name == "scale")


def test_the_seed_decides_the_order(path, tmp_path):
    for seed in (1, 1, 2):
        write_shuffled(path, tmp_path / f"{seed}.onnx", seed)
    assert not np.array_equal(weights_of(tmp_path / "1.onnx")["kernel"], weights_of(tmp_path / "2.onnx")["kernel"])


def test_weights_in_constant_nodes_and_in_other_files_are_found(path, tmp_path):
    model = onnx.load_model(str(path))
    (head,) = (each for each in model.graph.initializer if each.name == "head")
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["head"], value=head))
    model.graph.initializer.remove(head)
    outside = {"save_as_external_data": True, "location": "data", "size_threshold": 0}
    onnx.save_model(model, str(tmp_path / "apart.onnx"), **outside)
    assert (tmp_path / "data").stat().st_size > 0
    assert write_shuffled(tmp_path / "apart.onnx", tmp_path / "out.onnx") == 3
    (tmp_path / "data").unlink()  # the copy stands alone
    shuffled = onnx.load_model(str(tmp_path / "out.onnx"))
    assert not np.array_equal(numpy_helper.to_array(shuffled.graph.node[0].attribute[0].t), WEIGHTS["head"])
    assert not np.array_equal(weights_of(tmp_path / "out.onnx")["kernel"], WEIGHTS["kernel"])


def test_a_graph_without_weights_has_nothing_to_shuffle(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(serialised([("Relu", ["x"], ["y"], {})], {"x": ["batch", 4]}, ["y"]))
    assert write_shuffled(path, tmp_path / "out.onnx") == 0
