"""Rules of arithmetic, element by element."""

import numpy as np
import pytest
from differences import check, gradient_graph, run
from onnx import helper

from xai_sidecar.backends.graph.derivative import NotDerivableError

OTHERS = {"rows": (3, 1), "one": (), "more axes": (2, 1, 3, 4)}


def gradient(nodes, x, constants=None, opset=17):
    """The gradient of the sum of y at a row of numbers."""
    x = np.array([x], float)
    graph = gradient_graph(nodes, x.shape[1:], constants, opset, x)
    rows = {"x": x, "seed": np.ones_like(x)}
    return run(graph, tuple(rows[name] for name in graph.inputs))[0][0].tolist()


def far_from_0(rng, shape):
    return rng.uniform(0.2, 3, shape) * rng.choice([-1, 1], shape)


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_arithmetic_with_a_constant(kind, other):
    constant = np.random.default_rng(1).uniform(0.5, 2, other)
    inputs = ["c", "x"] if len(other) == 2 else ["x", "c"]
    # Where the constant has more axes than x, those are not to be confused with the batch.
    check(helper.make_node(kind, inputs, ["y"]), (3, 4), {"c": constant}, sizes=(2,), draw=far_from_0)


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean"])
def test_arithmetic_with_a_part_of_itself(kind):
    part = helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2], keepdims=1)
    scaled = helper.make_node("Mul", ["mean", "c"], ["part"])
    for inputs in (["x", "part"], ["part", "x"])[: 2 if kind in ("Sub", "Div", "Max") else 1]:
        nodes = [part, scaled, helper.make_node(kind, inputs, ["y"])]
        check(nodes, (2, 3), {"c": np.array(3.0)}, sizes=(2,), draw=far_from_0, tolerance=1e-5)


@pytest.mark.parametrize("kind", ["Add", "Mul", "Sum", "Mean", "Max"])
def test_arithmetic_with_itself(kind):
    check(helper.make_node(kind, ["x", "x"], ["y"]), (2, 3), sizes=(2,))


@pytest.mark.parametrize("kind", ["Sum", "Mean", "Max", "Min"])
def test_operations_on_any_number_of_values(kind):
    constants = {"c": np.random.default_rng(1).standard_normal((3, 1)), "d": np.array(0.1)}
    doubled = helper.make_node("Mul", ["x", "d"], ["z"])
    check([doubled, helper.make_node(kind, ["x", "c", "z", "d"], ["y"])], (3, 4), constants, 11, sizes=(2,))
    check(helper.make_node(kind, ["x"], ["y"]), (3, 4), sizes=(2,))


def test_equal_values_share_the_gradient_of_the_largest():
    same = helper.make_node("Identity", ["x"], ["same"])
    for kind, expected in ("Max", [0, 0.5, 1]), ("Min", [1, 0.5, 0]):
        nodes = [helper.make_node(kind, ["x", "c"], ["y"])]
        assert gradient(nodes, [1, 2, 3], {"c": np.array(2.0)}) == expected
        assert gradient([same, helper.make_node(kind, ["x", "c", "same"], ["y"])], [2], {"c": np.array(2.0)}) == [2 / 3]


def test_the_opposite():
    check(helper.make_node("Neg", ["x"], ["y"]), (3, 4), sizes=(2,))


@pytest.mark.parametrize("inputs", (["m", "x", "s"], ["m", "s", "x"], ["m", "s", "c"]))
def test_a_choice_by_a_constant(inputs):
    constants = {"m": np.array([[True, False, True, False]]), "c": np.ones((3, 1)), "f": np.array(3.0)}
    mean = helper.make_node("ReduceMean", ["x"], ["s"], axes=[2], keepdims=1)
    check([mean, helper.make_node("Where", inputs, ["y"])], (3, 4), constants, sizes=(1, 2))


def test_a_choice_by_the_picture_leaves_out_what_was_not_chosen():
    nodes = [
        helper.make_node("Greater", ["x", "one"], ["m"]),
        helper.make_node("Log", ["x"], ["log"]),  # infinite slope at 0, where it is not chosen
        helper.make_node("Where", ["m", "log", "x"], ["y"]),
    ]
    check(nodes, (3, 4), {"one": np.array(1.0)}, sizes=(2,), draw=lambda rng, shape: rng.uniform(0.1, 3, shape))
    assert gradient(nodes, [0.25, 2, 4], {"one": np.array(1.0)}) == [1, 0.5, 0.25]


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_running_sums(exclusive, reverse):
    node = helper.make_node("CumSum", ["x", "axis"], ["y"], exclusive=exclusive, reverse=reverse)
    check(node, (3, 4), {"axis": np.array(-2)}, sizes=(2,))


@pytest.mark.parametrize("kind", ["Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal"])
def test_comparisons_have_no_gradient(kind):
    nodes = [
        helper.make_node(kind, ["x", "c"], ["condition"]),
        helper.make_node("Cast", ["condition"], ["number"], to=1),
        helper.make_node("CastLike", ["number", "x"], ["mask"]),
        helper.make_node("Mul", ["x", "mask"], ["y"]),
    ]
    expected = {"Greater": [0, 0, 1], "Less": [1, 0, 0], "GreaterOrEqual": [0, 1, 1], "LessOrEqual": [1, 1, 0]}
    assert gradient(nodes, [1, 2, 3], {"c": np.array(2.0)}) == expected.get(kind, [0, 1, 0])


def test_a_remainder_is_refused():
    with pytest.raises(NotDerivableError, match=r"The operator Mod .* has no derivative"):
        gradient_graph(helper.make_node("Mod", ["x", "c"], ["y"], fmod=1), (3,), {"c": np.array(2.0)})
