"""Rules of activations that are made of straight lines, or of a straight line and a curve."""

import numpy as np
import pytest
from differences import check, gradient_graph, run
from onnx import helper


def gradient(node, x, constants=None, opset=17):
    """The gradient of the sum of y at a row of numbers."""
    x = np.array([x], float)
    graph = gradient_graph(node, x.shape[1:], constants, opset, x)
    rows = {"x": x, "seed": np.ones_like(x)}
    return run(graph, tuple(rows[name] for name in graph.inputs))[0][0]


def wide(rng, shape):
    """From -6 to 6, away from the whole and half numbers where the activations have kinks."""
    whole = rng.integers(-12, 12, shape)
    return (whole + rng.uniform(0.1, 0.9, shape)) / 2


@pytest.mark.parametrize(
    "kind, attributes, opset",
    [
        ("Relu", {}, 11),
        ("ThresholdedRelu", {"alpha": 0.5}, 17),
        ("ThresholdedRelu", {"alpha": -1.0}, 17),
        ("LeakyRelu", {}, 11),
        ("LeakyRelu", {"alpha": 0.2}, 17),
        ("LeakyRelu", {"alpha": -0.5}, 17),
        ("Elu", {}, 11),
        ("Elu", {"alpha": 0.5}, 22),
        ("Elu", {"alpha": -0.5}, 17),
        ("Selu", {}, 11),
        ("Selu", {"alpha": 1.5, "gamma": 0.5}, 17),
        ("Selu", {"alpha": -1.5, "gamma": 2.0}, 17),
        ("Celu", {}, 12),
        ("Celu", {"alpha": 2.0}, 17),
        ("Celu", {"alpha": -2.0}, 17),
        ("HardSigmoid", {}, 11),
        ("HardSigmoid", {"alpha": 0.25, "beta": 0.25}, 17),
        ("HardSwish", {}, 22),
    ],
)
def test_activations(kind, attributes, opset):
    check(helper.make_node(kind, ["x"], ["y"], **attributes), (2, 3), opset=opset, sizes=(1, 3), draw=wide)


@pytest.mark.parametrize(
    "kind, attributes, points, expected",
    [
        ("Relu", {}, [-1, 0, 1], [0, 0, 1]),
        ("ThresholdedRelu", {}, [0, 1, 2], [0, 0, 1]),
        ("LeakyRelu", {"alpha": 0.25}, [-1, 0, 1], [0.25, 0.25, 1]),
        ("Elu", {"alpha": 0.5}, [0, 1], [0.5, 1]),
        ("Celu", {"alpha": 0.5}, [0, 1], [1, 1]),
        ("Selu", {"alpha": 0.5, "gamma": 2.0}, [0, 1], [1, 2]),
        ("HardSigmoid", {"alpha": 0.5, "beta": 0.5}, [-2, -1, 0, 1, 2], [0, 0, 0.5, 0, 0]),
        ("HardSwish", {}, [-4, -3, 0, 3, 4], [0, 0, 0.5, 1, 1]),
    ],
)
def test_at_a_kink_the_gradient_is_that_of_pytorch(kind, attributes, points, expected):
    # HardSigmoid as of PyTorch's hardsigmoid, HardSwish as of its hardswish of late.
    node = helper.make_node(kind, ["x"], ["y"], **attributes)
    np.testing.assert_allclose(gradient(node, points), expected, rtol=1e-7)


@pytest.mark.parametrize(
    "bounds, expected",
    [
        (["low", "high"], [0, 0, 1, 0, 0]),
        (["low"], [0, 0, 1, 1, 1]),
        (["", "high"], [1, 1, 1, 0, 0]),
        ([], [1, 1, 1, 1, 1]),
    ],
)
@pytest.mark.parametrize("opset", [11, 17])
def test_the_gradient_passes_between_the_bounds_of_a_clip_and_not_at_them(bounds, expected, opset):
    constants = {"low": np.array(-1.0), "high": np.array(6.0)}
    node = helper.make_node("Clip", ["x", *bounds], ["y"])
    constants = {name: value for name, value in constants.items() if name in bounds}
    assert gradient(node, [-2, -1, 0, 6, 7], constants, opset).tolist() == expected
    check(node, (2, 3), constants, opset, sizes=(2,), draw=wide)


@pytest.mark.parametrize(
    "slope",
    [np.array([0.25]), np.array([0.1, -0.5, 2.0]).reshape(3, 1, 1), np.array([0.1, 0.0, 0.3, 0.4]), np.array(-1.0)],
    ids=["one", "each channel", "last axis", "negative"],
)
def test_a_slope_is_broadcast(slope):
    check(helper.make_node("PRelu", ["x", "slope"], ["y"]), (3, 2, 4), {"slope": slope}, 11, sizes=(2,), draw=wide)


def test_a_slope_of_0_passes_nothing_and_a_slope_goes_for_0():
    node = helper.make_node("PRelu", ["x", "slope"], ["y"])
    assert gradient(node, [-1, 0, 1], {"slope": np.array([0.0])}).tolist() == [0, 0, 1]
    assert gradient(node, [-1, 0, 1], {"slope": np.array([0.25])}).tolist() == [0.25, 0.25, 1]


def test_a_slope_depends_on_the_picture():
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["slope"], axes=[2], keepdims=1),
        helper.make_node("PRelu", ["x", "slope"], ["y"]),
    ]
    check(nodes, (3, 4), sizes=(1, 2), draw=wide)
