"""Rules of sums, means, norms and extremes over axes."""

import numpy as np
import pytest
from differences import check, engines, gradient_graph, run
from onnx import helper

from xai_sidecar.backends.graph.derivative import NotDerivableError

node = helper.make_node
KINDS = ["Sum", "Mean", "Max", "Min", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"]


def positive(rng, shape):
    return rng.uniform(0.5, 2, shape)


def reduced(kind, opset, axes, x="x", y="y", **attributes):
    """A reduction's node, and its constants: axes are an attribute or an input."""
    if opset >= (13 if kind == "Sum" else 18):
        constants = {} if axes is None else {"axes": np.array(axes)}
        return node(f"Reduce{kind}", [x, *constants], [y], **attributes), constants
    return node(f"Reduce{kind}", [x], [y], **attributes, **({} if axes is None else {"axes": axes})), {}


@pytest.mark.parametrize("kind", KINDS)
def test_over_the_picture(kind):
    """Axes are an input, and stay."""
    operator, constants = reduced(kind, 18, [-1, 2])
    check(operator, (2, 3, 2), constants, 18, sizes=(1, 3), draw=positive)


@pytest.mark.parametrize("kind", KINDS)
def test_over_one_axis_that_goes(kind):
    """Axes are an attribute."""
    operator, constants = reduced(kind, 11, [-2], keepdims=0)
    by_engines = kind in ("Mean", "Max", "L2")  # the same operations as above but for those that put the axis back
    check(operator, (3, 2), constants, 11, sizes=(2,), draw=positive, by_engines=by_engines)


@pytest.mark.parametrize("kind", ["Sum", "Mean", "Max"])
@pytest.mark.parametrize(("opset", "axes"), [(11, None), (18, None), (18, [0])])
def test_over_the_batch(kind, opset, axes):
    operator, constants = reduced(kind, opset, axes)
    check(operator, (3,), constants, opset, sizes=(1, 3))


@pytest.mark.parametrize("kind", ["Sum", "Max"])
def test_over_nothing(kind):
    attributes = {"noop_with_empty_axes": 1}
    nodes = [node("Mul", ["x", "x"], ["square"]), node(f"Reduce{kind}", ["square"], ["y"], **attributes)]
    check(nodes, (3,), opset=18, sizes=(2,))


def test_norms_over_nothing_are_refused():
    with pytest.raises(NotDerivableError, match=r"ReduceL1 \(y\).*noop_with_empty_axes"):
        gradient_graph(node("ReduceL1", ["x"], ["y"], noop_with_empty_axes=1), (3,), opset=18)


@pytest.mark.parametrize("kind", ["Max", "Min"])
def test_equal_extremes_share_the_gradient(kind):
    """As in PyTorch's amax and amin, and MindSpore's ReduceMax and ReduceMin."""
    sign = 1 if kind == "Max" else -1
    x, seed = sign * np.array([[1, 2, 2, 0], [3, 3, 3, 1]], np.float32), np.array([[6.0], [9.0]], np.float32)
    graph = gradient_graph(node(f"Reduce{kind}", ["x"], ["y"], axes=[1]), (4,), dtype=np.float32)
    for engine in engines(graph):
        np.testing.assert_allclose(engine(x=x, seed=seed), [[0, 3, 3, 0], [3, 3, 3, 0]], rtol=1e-6)


@pytest.mark.parametrize("kind", ["L1", "L2", "SumSquare"])
def test_norms_at_zero(kind):
    graph = gradient_graph(node(f"Reduce{kind}", ["x"], ["y"], axes=[1]), (3,))
    np.testing.assert_array_equal(*run(graph, (np.zeros((2, 3)), np.ones((2, 1)))), np.zeros((2, 3)))


def test_axes_computed_on_the_way_are_refused():
    nodes = [node("ArgMax", ["x"], ["axes"], axis=0, keepdims=0), node("ReduceSum", ["x", "axes"], ["y"])]
    with pytest.raises(NotDerivableError, match=r"ReduceSum \(y\).*axes"):
        gradient_graph(nodes, (1,), example=np.ones((1, 1)))


def test_products_are_refused():
    with pytest.raises(NotDerivableError, match=r"ReduceProd \(y\)"):
        gradient_graph(node("ReduceProd", ["x"], ["y"], axes=[1]), (3,))
