"""Rules of powers, roots, exponentials and other functions of single elements."""

import numpy as np
import pytest
from differences import check, gradient_graph, run
from onnx import helper


def positive(rng, shape):
    return rng.uniform(0.2, 3, shape)


def far_from_0(rng, shape):
    return rng.uniform(0.2, 3, shape) * rng.choice([-1, 1], shape)


def gradient(nodes, x, constants=None, opset=17):
    """The gradient of the sum of y at a row of numbers."""
    x = np.array([x], float)
    graph = gradient_graph(nodes, x.shape[1:], constants, opset, x)
    rows = {"x": x, "seed": np.ones_like(x)}
    return run(graph, tuple(rows[name] for name in graph.inputs))[0][0]


@pytest.mark.parametrize(
    "kind, draw",
    [
        ("Exp", None),
        ("Log", positive),
        ("Sqrt", positive),
        ("Reciprocal", far_from_0),
        ("Abs", far_from_0),
        ("Sin", None),
        ("Cos", None),
        ("Erf", None),
    ],
)
def test_functions(kind, draw):
    check(helper.make_node(kind, ["x"], ["y"]), (2, 3), sizes=(1, 3), draw=draw)


def test_the_gradient_of_an_absolute_value_is_0_at_0():
    assert gradient(helper.make_node("Abs", ["x"], ["y"]), [-2, 0, 3]).tolist() == [-1, 0, 1]


@pytest.mark.parametrize("exponent", [1, 2, 3, 4, -1, -2, -3])
def test_integer_powers_of_numbers_of_either_sign(exponent):
    node = helper.make_node("Pow", ["x", "e"], ["y"])
    check(node, (2, 3), {"e": np.array(float(exponent))}, sizes=(2,), draw=far_from_0, tolerance=1e-5)


@pytest.mark.parametrize("exponent", [0.5, -0.5, 1.7, -2.5])
def test_fractional_powers(exponent):
    node = helper.make_node("Pow", ["x", "e"], ["y"])
    check(node, (2, 3), {"e": np.array([exponent])}, sizes=(2,), draw=positive, tolerance=1e-5)


def test_an_exponent_may_be_an_integer():
    check(helper.make_node("Pow", ["x", "e"], ["y"]), (2, 3), {"e": np.array([4])}, sizes=(2,), draw=far_from_0)


def test_exponents_are_broadcast():
    check(helper.make_node("Pow", ["x", "e"], ["y"]), (3,), {"e": np.array([[[2.0]], [[0.0]]])}, 11, draw=positive)
    check(helper.make_node("Pow", ["x", "e"], ["y"]), (3,), {"e": np.array([1, 0, 2])}, 12, draw=far_from_0)


@pytest.mark.filterwarnings("ignore:.*encountered in")  # of the evaluator
def test_a_base_is_a_constant():
    check(helper.make_node("Pow", ["b", "x"], ["y"]), (2, 3), {"b": np.array(2.5)}, sizes=(2,))
    check(helper.make_node("Pow", ["b", "x"], ["y"]), (3,), {"b": np.array([[[2.5]], [[0.5]]])}, sizes=(2,))
    assert gradient(helper.make_node("Pow", ["b", "x"], ["y"]), [0, 2], {"b": np.array(0.0)}).tolist() == [0, 0]


def test_base_and_exponent_depend_on_the_picture():
    shifted = helper.make_node("Add", ["x", "c"], ["e"])
    nodes = [shifted, helper.make_node("Pow", ["x", "e"], ["y"])]
    check(nodes, (2, 3), {"c": np.array([[0.7], [-1.0]])}, sizes=(2,), draw=positive)


@pytest.mark.filterwarnings("ignore:.*encountered in")  # of the evaluator
def test_powers_at_0():
    node = helper.make_node("Pow", ["x", "e"], ["y"])
    assert gradient(node, [0, 3], {"e": np.array(2.0)}).tolist() == [0, 6]
    assert gradient(node, [0, 0, 0], {"e": np.array([0.0, 1.0, 2.0])}).tolist() == [0, 1, 0]
    nodes = [helper.make_node("Identity", ["x"], ["e"]), helper.make_node("Pow", ["c", "e"], ["y"])]
    np.testing.assert_allclose(gradient(nodes, [0, 2, 1], {"c": np.array([0.0, 0.0, np.e])}), [0, 0, np.e])


def test_nothing_depends_on_a_power_of_0():
    nodes = [helper.make_node("Pow", ["x", "e"], ["p"]), helper.make_node("Add", ["x", "p"], ["y"])]
    check(nodes, (2, 3), {"e": np.array(0.0)}, sizes=(2,), draw=far_from_0)
