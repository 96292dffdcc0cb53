"""Rules of operators that change the shape, the order or the type of what they get."""

import numpy as np
import pytest
from differences import check, gradient_graph, model, run_by_reference
from onnx import TensorProto, helper

from xai_sidecar.backends.graph.derivative import NotDerivableError, derive
from xai_sidecar.backends.graph.graph import read
from xai_sidecar.backends.graph.tracing import trace

node = helper.make_node

SHAPES = {
    "reshape": (node("Reshape", ["x", "c"], ["y"]), [0, -1, 2], 17),
    "reshape, batch not first": (node("Reshape", ["x", "c"], ["y"]), [4, -1, 3], 11),
    "reshape, allowzero": (node("Reshape", ["x", "c"], ["y"], allowzero=1), [-1, 12], 17),
    "flatten": (node("Flatten", ["x"], ["y"]), None, 17),
    "flatten, axis": (node("Flatten", ["x"], ["y"], axis=-2), None, 11),
    "unsqueeze, attribute": (node("Unsqueeze", ["x"], ["y"], axes=[0, -1]), None, 11),
    "unsqueeze, input": (node("Unsqueeze", ["x", "c"], ["y"]), [-1, 1], 13),
    "transpose": (node("Transpose", ["x"], ["y"]), None, 17),
    "transpose, order": (node("Transpose", ["x"], ["y"], perm=[2, 0, 3, 1]), None, 11),
    "identity": (node("Identity", ["x"], ["y"]), None, 17),
    "tile": (node("Tile", ["x", "c"], ["y"]), [1, 3, 1, 2], 11),
    "tile, once": (node("Tile", ["x", "c"], ["y"]), [1, 1, 1, 1], 17),
    "trilu": (node("Trilu", ["x"], ["y"]), None, 17),
    "trilu, lower": (node("Trilu", ["x", "c"], ["y"], upper=0), -1, 14),
    "dropout, attribute": (node("Dropout", ["x"], ["y", "mask"], ratio=0.9), None, 11),
}


@pytest.mark.parametrize(("operator", "constant", "opset"), SHAPES.values(), ids=SHAPES)
def test_shapes(operator, constant, opset):
    """Squared before, so that the gradient differs from element to element."""
    square = node("Mul", ["x", "x"], ["square"])
    operator.input[0] = "square"
    constants = {} if constant is None else {"c": np.array(constant)}
    check([square, operator], (2, 3, 2), constants, opset, sizes=(1, 3), by_engines=opset < 17)


@pytest.mark.parametrize(("opset", "axes"), [(11, [0, -1]), (13, [-1, 0]), (13, None)])
def test_squeeze_undoes_unsqueeze(opset, axes):
    """Axes left out are all of length 1, but for the batch axis's sake none may be free."""
    if opset < 13:
        squeeze, constants = node("Squeeze", ["apart"], ["y"], axes=axes), {}
        unsqueeze = node("Unsqueeze", ["x"], ["apart"], axes=axes)
    else:
        squeeze, constants = node("Squeeze", ["apart", *(["axes"] if axes else [])], ["y"]), {"axes": np.array([0, -1])}
        unsqueeze = node("Unsqueeze", ["x", "axes"], ["apart"])
    check([unsqueeze, squeeze], (2, 3), constants, opset, sizes=(2, 3))


@pytest.mark.parametrize("shape", [(3, 1, 2), (1, 1, 1)])
def test_expand_with_a_constant_shape(shape):
    check(node("Expand", ["x", "c"], ["y"]), shape, {"c": np.array([1, 3, 4, 2])}, sizes=(1, 3))


def test_expand_with_a_shape_computed_at_run_time():
    """As PyTorch exports expand_as: to the shape of another value, with an axis more."""
    nodes = [
        node("ReduceMean", ["x"], ["mean"], axes=[1]),
        node("Unsqueeze", ["x", "zero"], ["more"]),
        node("Shape", ["more"], ["shape"]),
        node("Expand", ["mean", "shape"], ["wide"]),
        node("Mul", ["wide", "x"], ["y"]),
    ]
    check(nodes, (3, 2), {"zero": np.array([0])}, sizes=(1, 3))


@pytest.mark.parametrize(("mode", "opset"), [("DCR", 11), ("CRD", 11), ("DCR", 13), ("CRD", 13)])
def test_depth_to_space(mode, opset):
    check(node("DepthToSpace", ["x"], ["y"], blocksize=2, mode=mode), (8, 2, 1), opset=opset, sizes=(1, 2))


def test_space_to_depth():
    check(node("SpaceToDepth", ["x"], ["y"], blocksize=2), (2, 4, 2), sizes=(1, 2))


@pytest.mark.parametrize("kind", ["Cast", "CastLike"])
def test_gradients_have_the_type_of_their_values(kind):
    """Part of a graph may be less precise than its logits are."""
    single = (
        node("Cast", ["x"], ["single"], to=TensorProto.FLOAT)
        if kind == "Cast"
        else node(kind, ["x", "like"], ["single"])
    )
    nodes = [
        single,
        node("Relu", ["single"], ["rectified"]),
        node("Cast", ["rectified"], ["double"], to=TensorProto.DOUBLE),
        node("Mul", ["double", "double"], ["y"]),
    ]
    rows = np.array([[2.0, -1, 0]]), np.ones((1, 3))
    graph = read(model(nodes, (3,), {"like": np.array(0)}))
    graph.constants["like"] = np.zeros((), np.float32)
    graph, names = derive(*trace(graph, rows[0], run_by_reference), "y", "seed", ["x", "rectified"])
    by_x, by_rectified = run_by_reference(graph.pruned(names), rows)
    assert (by_x.dtype, by_rectified.dtype) == (np.float64, np.float32)
    np.testing.assert_allclose(by_x, [[4.0, 0, 0]])


def test_integers_have_no_gradient():
    nodes = [
        node("Cast", ["x"], ["whole"], to=TensorProto.INT64),
        node("Cast", ["whole"], ["number"], to=TensorProto.DOUBLE),
        node("Mul", ["x", "number"], ["y"]),
    ]
    (gradient,) = run_by_reference(gradient_graph(nodes, (3,)), (np.array([[1.5, -2.5, 0.5]]), np.ones((1, 3))))
    np.testing.assert_allclose(gradient, [[1, -2, 0]])


def test_dropout_in_training_is_refused():
    constants = {"ratio": np.array(0.5), "training": np.array(True)}
    with pytest.raises(NotDerivableError, match=r"Dropout \(y\).*training_mode"):
        gradient_graph(node("Dropout", ["x", "ratio", "training"], ["y"]), (3,), constants)
    constants["training"] = np.array(False)
    check(node("Dropout", ["x", "ratio", "training"], ["y"]), (3,), constants, sizes=(2,))


def test_what_is_computed_of_the_shape_has_no_gradient():
    """A mean written as a sum over a count."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "one"], ["count"]),
        node("Cast", ["count"], ["number"], to=TensorProto.DOUBLE),
        node("Mul", ["x", "number"], ["y"]),
    ]
    (gradient,) = run_by_reference(
        gradient_graph(nodes, (3,), {"one": np.array(1)}), (np.ones((2, 3)), np.ones((2, 3)))
    )
    np.testing.assert_allclose(gradient, np.full((2, 3), 3.0))
