"""Rules of smooth activations, and of softmax."""

import numpy as np
import pytest
from differences import by_differences, check, gradient_graph, model, run
from onnx import helper

from xai_sidecar.backends.graph.graph import read


def wide(rng, shape):
    return 3 * rng.standard_normal(shape)


@pytest.mark.parametrize(
    "kind, attributes, opset",
    [
        ("Sigmoid", {}, 11),
        ("Tanh", {}, 11),
        ("Softplus", {}, 11),
        ("Softsign", {}, 11),
        ("Mish", {}, 18),
        ("Gelu", {}, 20),
        ("Gelu", {"approximate": "none"}, 20),
        ("Gelu", {"approximate": "tanh"}, 20),
        ("Swish", {}, 24),
        ("Swish", {"alpha": 1.5}, 24),
        ("com.microsoft.Gelu", {}, 17),
        ("com.microsoft.FastGelu", {}, 17),
        ("com.microsoft.QuickGelu", {}, 17),
        ("com.microsoft.QuickGelu", {"alpha": 1.0}, 17),
    ],
)
def test_activations(kind, attributes, opset):
    domain, _, kind = kind.rpartition(".")
    node = helper.make_node(kind, ["x"], ["y"], domain=domain, **attributes)
    check(node, (2, 3), opset=opset, sizes=(1, 3), draw=wide)


@pytest.mark.parametrize("kind", ["BiasGelu", "FastGelu"])
def test_a_bias_is_added_before_an_activation(kind):
    node = helper.make_node(kind, ["x", "bias"], ["y"], domain="com.microsoft")
    check(node, (3, 4), {"bias": np.array([0.5, -1.0, 0.0, 2.0])}, sizes=(2,))
    # The bias is what depends on the input.
    first = helper.make_node("ReduceSum", ["x", "axes"], ["bias"], keepdims=0)
    node = helper.make_node(kind, ["c", "bias"], ["y"], domain="com.microsoft")
    check([first, node], (4,), {"axes": np.array([0]), "c": np.ones((2, 3, 4))}, sizes=(3,))


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [None, 1, 2, -1, -2])
def test_softmax(kind, axis):
    node = helper.make_node(kind, ["x"], ["y"], **({} if axis is None else {"axis": axis}))
    check(node, (3, 2), sizes=(2,))


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [None, 1, 2, -1, -2])
@pytest.mark.parametrize("opset", [11, 12])
def test_softmax_over_several_axes(kind, axis, opset):
    # OpenVINO takes one axis only, in Softmax; so no engine is asked here.
    node = helper.make_node(kind, ["x"], ["y"], **({} if axis is None else {"axis": axis}))
    x, seed = np.random.default_rng(0).standard_normal((2, 2, 3, 2))
    expected = by_differences(read(model(node, (3, 2), opset=opset)), x, seed)
    (gradient,) = run(gradient_graph(node, (3, 2), opset=opset), (x, seed))
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-8)


@pytest.mark.filterwarnings("ignore:.*encountered in")  # of the evaluator
def test_large_numbers_leave_gradients_finite():
    for kind, expected in ("Sigmoid", [0, 0]), ("Tanh", [0, 0]), ("Softplus", [0, 1]), ("Mish", [0, 1]):
        graph = gradient_graph(helper.make_node(kind, ["x"], ["y"]), (2,), opset=18, dtype=np.float32)
        x = np.array([[-200, 200]], np.float32)
        rows = {"x": x, "seed": np.ones_like(x)}
        assert run(graph, tuple(rows[name] for name in graph.inputs))[0].tolist() == [expected], kind
