"""Rules of operators that take or put elements by indices."""

import numpy as np
import pytest
from differences import check, gradient_graph
from onnx import helper

from xai_sidecar.backends.graph.derivative import NotDerivableError

node = helper.make_node
SQUARE = node("Mul", ["x", "x"], ["square"])


def integers(**constants):
    return {name: np.asarray(value, np.int64) for name, value in constants.items()}


INDICES = {
    "one": (1, 1),
    "last one": (-1, -2),
    "in a row": ([1, 2], 1),
    "another order": ([2, 0, -1], 1),
    "every element in another order": ([3, 0, 2, 1], 2),
    "some twice": ([0, -1, 0], 1),
    "many times": ([1, 1, 1, -3, 1, 0], -1),
    "a table": ([[0, 3], [2, -1], [3, 0]], 2),
    "many times, another axis": ([1, 1, 1, 1, 1, 0], 1),
}


@pytest.mark.parametrize(("indices", "axis"), INDICES.values(), ids=INDICES)
def test_gather(indices, axis):
    nodes = [SQUARE, node("Gather", ["square", "indices"], ["y"], axis=axis)]
    check(nodes, (4, 4, 2)[: 3 if axis == 1 else 2], integers(indices=indices), opset=11, sizes=(1, 3))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gather_by_indices_that_are_computed(axis):
    """What is largest in each row, taken of all rows."""
    nodes = [
        SQUARE,
        node("ArgMax", ["x"], ["largest"], axis=-1, keepdims=0),
        node("Mod", ["largest", "two"], ["indices"]),
        node("Reshape", ["square", "shape"], ["joined"]),
        node("Gather", ["joined", "indices"], ["y"], axis=axis),
    ]
    check(nodes, (2, 3), integers(two=2, shape=[2, -1, 3]), opset=16, sizes=(2, 3))
    with pytest.raises(NotDerivableError, match=r"Gather \(y\).*opset 16"):
        gradient_graph(nodes, (2, 3), integers(two=2, shape=[2, -1, 3]), opset=13)


def test_gather_of_rows_is_refused():
    with pytest.raises(NotDerivableError, match=r"Gather \(y\).*batch size \(axis\)"):
        gradient_graph(node("Gather", ["x", "indices"], ["y"]), (3,), integers(indices=[0]))


def test_gather_elements():
    """The largest element of each row, twice: indices are computed on the way."""
    nodes = [
        SQUARE,
        node("ArgMax", ["x"], ["largest"], axis=-1),
        node("Concat", ["largest", "largest"], ["indices"], axis=-1),
        node("GatherElements", ["square", "indices"], ["y"], axis=2),
    ]
    check(nodes, (2, 4), opset=16, sizes=(1, 3))
    with pytest.raises(NotDerivableError, match=r"GatherElements \(y\).*opset 16"):
        gradient_graph(nodes, (2, 4), opset=13)


def test_gather_nd():
    """Elements of the picture are taken by their places, its axes put first for that."""
    nodes = [
        SQUARE,
        node("Transpose", ["square"], ["t"], perm=[1, 2, 0]),
        node("GatherND", ["t", "indices"], ["y"]),
    ]
    check(nodes, (2, 3), integers(indices=[[0, 1], [1, 2], [0, 1]]), opset=16, sizes=(1, 3))
    largest = node("ArgMax", ["x"], ["largest"], axis=1)
    with pytest.raises(NotDerivableError, match=r"GatherND \(y\).*batch_dims"):
        gradient_graph([largest, node("GatherND", ["x", "largest"], ["y"], batch_dims=1)], (3,))


@pytest.mark.parametrize(("reduction", "opset"), [(None, 11), ("add", 16)])
def test_scatter_elements(reduction, opset):
    """Elements take the place of others, or are added to them, at indices computed on the way."""
    attributes = {"reduction": reduction} if reduction else {}
    nodes = [
        SQUARE,
        node("ArgMax", ["x"], ["largest"], axis=-1),
        node("ReduceMean", ["x"], ["mean"], axes=[-1]),
        node("ScatterElements", ["square", "largest", "mean"], ["y"], axis=-1, **attributes),
    ]
    check(nodes, (2, 4), opset=opset, sizes=(1, 3))


@pytest.mark.parametrize(("reduction", "opset"), [(None, 11), ("add", 16)])
def test_scatter_nd(reduction, opset):
    attributes = {"reduction": reduction} if reduction else {}
    nodes = [
        SQUARE,
        node("Transpose", ["square"], ["t"], perm=[1, 2, 0]),
        node("Gather", ["t", "first"], ["updates"]),
        node("ScatterND", ["t", "indices", "updates"], ["y"], **attributes),
    ]
    check(nodes, (2, 3), integers(indices=[[1], [0]], first=[0, 1]), opset=opset, sizes=(1, 3))


def test_other_reductions_are_refused():
    nodes = node("ScatterND", ["x", "indices", "x"], ["y"], reduction="max")
    constants = integers(indices=[[0], [1]])
    with pytest.raises(NotDerivableError, match=r"ScatterND \(y\).*reduction max"):
        gradient_graph(nodes, (3,), constants, 18)


def test_one_hot():
    """Small changes of the indices change nothing."""
    nodes = [
        node("Floor", ["x"], ["indices"]),
        node("OneHot", ["indices", "depth", "values"], ["rows"], axis=1),
        node("ReduceMax", ["rows"], ["mask"], axes=[2]),
        node("Squeeze", ["mask", "two"], ["flat"]),
        node("Concat", ["flat", "x"], ["y"], axis=1),
    ]
    constants = integers(depth=3, two=[2]) | {"values": np.array([0.0, 1.0])}
    check(nodes, (3,), constants, sizes=(1, 2), draw=lambda rng, shape: rng.integers(0, 3, shape) + 0.5)
