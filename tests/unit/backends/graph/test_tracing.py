"""What is found of a graph's values by running it, and which of them become constants."""

import numpy as np
import pytest
from differences import check, model, run
from onnx import TensorProto, helper

from xai_sidecar.backends.graph.graph import read
from xai_sidecar.backends.graph.tracing import trace

node = helper.make_node


def traced(nodes, shape, constants=None, opset=17, rows=None):
    constants = {name: np.asarray(value) for name, value in (constants or {}).items()}
    graph = read(model(nodes, shape, constants, opset))
    example = np.random.default_rng(0).standard_normal((1, *shape))
    folded, values = trace(graph, example, run, rows)
    # The same, whatever the batch size.
    for size in (rows,) if rows else (1, 2, 5):
        x = np.random.default_rng(size).standard_normal((size, *shape))
        for one, other in zip(run(graph, (x,)), run(folded, (x,)), strict=True):
            np.testing.assert_array_equal(one, other)
    return folded, values


def kinds(graph):
    return [each.kind for each in graph.nodes]


def flattening(rest):
    """As PyTorch exports x.view(x.size(0), ...)."""
    return [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "zero"], ["size"], axis=0),
        node("Unsqueeze", ["size", "axis"], ["first"]),
        node("Concat", ["first", *rest], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["y"]),
    ]


@pytest.mark.parametrize("rest", [["six", "two"], ["six", "minus"], ["minus"]])
def test_a_shape_with_the_batch_size_in_it_becomes_a_constant(rest):
    constants = {"zero": 0, "axis": [0], "six": [6], "two": [2], "minus": [-1]}
    graph, values = traced(flattening(rest), (3, 4), constants)
    assert kinds(graph) == ["Reshape"]
    expected = [-1, 12] if len(rest) == 1 else [-1, 6, 2]
    assert graph.constants[graph.nodes[0].inputs[1]].tolist() == expected
    assert values.shapes["y"] == (None, *expected[1:])


def test_what_is_used_as_a_shape_and_otherwise_stays_otherwise():
    """The batch size is a target's part, and shows in the result, too."""
    nodes = [
        *flattening(["six", "two"])[:-1],
        node("Reshape", ["x", "target"], ["apart"]),
        node("Cast", ["size"], ["number"], to=TensorProto.DOUBLE),
        node("Mul", ["apart", "number"], ["y"]),
    ]
    graph, _ = traced(nodes, (3, 4), {"zero": 0, "axis": [0], "six": [6], "two": [2]})
    assert kinds(graph) == ["Shape", "Gather", "Reshape", "Cast", "Mul"]


def test_windows_that_are_merged_with_the_batch():
    """As Swin has it: (n, 4, 4, 2) → (4n, 4, 2) → (n, 4, 4, 2), with the batch size worked out of the first axis."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Split", ["shape", "ones"], ["n", "h", "w", "c"], axis=0),
        node("Div", ["h", "two"], ["rows"]),
        node("Div", ["w", "two"], ["columns"]),
        node("Concat", ["n", "rows", "two", "columns", "two", "c"], ["apart"], axis=0),
        node("Reshape", ["x", "apart"], ["blocks"]),
        node("Transpose", ["blocks"], ["ordered"], perm=[0, 1, 3, 2, 4, 5]),
        node("Concat", ["minus", "four", "c"], ["merged"], axis=0),
        node("Reshape", ["ordered", "merged"], ["windows"]),
        node("Mul", ["windows", "windows"], ["changed"]),
        node("Shape", ["changed"], ["window_shape"]),
        node("Gather", ["window_shape", "zero"], ["count"], axis=0),
        node("Div", ["count", "four"], ["batch"]),
        node("Concat", ["batch", "rows", "columns", "two", "two", "minus"], ["back"], axis=0),
        node("Reshape", ["changed", "back"], ["again"]),
        node("Transpose", ["again"], ["in_order"], perm=[0, 1, 3, 2, 4, 5]),
        node("Concat", ["batch", "h", "w", "minus"], ["whole"], axis=0),
        node("Reshape", ["in_order", "whole"], ["y"]),
    ]
    constants = {"ones": [1, 1, 1, 1], "two": [2], "four": [4], "minus": [-1], "zero": [0]}
    graph, values = traced(nodes, (4, 4, 2), constants)
    assert kinds(graph) == ["Reshape", "Transpose", "Reshape", "Mul", "Reshape", "Transpose", "Reshape"]
    assert values.shapes["windows"] == (None, 4, 2)
    assert values.shapes["y"] == (None, 4, 4, 2)
    check(nodes, (4, 4, 2), {name: np.array(value) for name, value in constants.items()}, sizes=(1, 3))


def test_an_operator_some_of_whose_results_are_the_same_still_makes_the_others():
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Split", ["shape", "ones"], ["n", "c"], axis=0),
        node("Expand", ["row", "shape"], ["rows"]),
        node("Concat", ["c", "n"], ["turned"], axis=0),
        node("Reshape", ["rows", "turned"], ["y"]),
    ]
    graph, _ = traced(nodes, (3,), {"ones": [1, 1], "row": [[1.0, 2, 3]]})
    assert len({name for each in graph.nodes for name in each.outputs} & set(graph.constants)) == 0


def test_what_the_picture_shows_is_no_shape():
    """The place of the brightest pixel is a small integer, the same in both runs for a picture that is not."""
    nodes = [
        node("ArgMax", ["x"], ["brightest"], axis=1, keepdims=0),
        node("Gather", ["table", "brightest"], ["y"]),
    ]
    graph, values = traced(nodes, (5,), {"table": np.arange(5) ** 2})
    assert kinds(graph) == ["ArgMax", "Gather"]
    assert values.dtypes["brightest"] == np.int64


def test_a_length_that_goes_by_what_the_picture_shows_is_no_constant():
    """How many pixels are bright, as the shape of their places."""
    nodes = [
        node("Relu", ["x"], ["bright"]),
        node("NonZero", ["bright"], ["places"]),
        node("Size", ["places"], ["count"]),
        node("Cast", ["count"], ["number"], to=TensorProto.DOUBLE),
        node("Mul", ["x", "number"], ["y"]),
    ]
    graph, values = traced(nodes, (4,))
    assert "Size" in kinds(graph)
    assert values.shapes["places"] == (2, None)


def test_what_is_drawn_at_random_is_no_constant():
    graph = read(
        model([node("RandomNormal", [], ["noise"], shape=[1], dtype=1, seed=1.0), node("Identity", ["x"], ["y"])], (1,))
    )
    graph.outputs = ["noise"]
    folded, _ = trace(graph, np.ones((1, 1)), run)
    assert kinds(folded) == ["RandomNormal"]


def test_weights_that_are_prepared_are_prepared_once():
    nodes = [node("Transpose", ["w"], ["t"]), node("MatMul", ["x", "t"], ["y"])]
    graph, values = traced(nodes, (3,), {"w": np.ones((2, 3))})
    assert kinds(graph) == ["MatMul"]
    assert values.shapes["t"] == (3, 2)


def test_a_token_for_each_row():
    """A class token is repeated as often as there are pictures, which is known at run time only."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "first"], ["n"], axis=0),
        node("Concat", ["n", "minus", "minus"], ["wish"], axis=0),
        node("Equal", ["wish", "minus"], ["is_open"]),
        node("Where", ["is_open", "ones", "wish"], ["target"]),
        node("Expand", ["token", "target"], ["tokens"]),
        node("Concat", ["tokens", "x"], ["y"], axis=1),
    ]
    constants = {"first": [0], "minus": [-1], "ones": [1, 1, 1], "token": np.ones((1, 1, 2))}
    _, values = traced(nodes, (3, 2), constants)
    assert values.shapes["tokens"] == (None, 1, 2)
    check(
        [*nodes[:-1], node("Mul", ["x", "x"], ["s"]), node("Concat", ["tokens", "s"], ["y"], axis=1)],
        (3, 2),
        {name: np.array(value) for name, value in constants.items()},
        sizes=(1, 3),
    )


def test_one_batch_size_alone():
    graph, values = traced(flattening(["six", "two"]), (3, 4), {"zero": 0, "axis": [0], "six": [6], "two": [2]}, rows=2)
    assert graph.constants[graph.nodes[0].inputs[1]].tolist() == [2, 6, 2]
    assert values.shapes["x"] == (2, 3, 4)


@pytest.mark.parametrize("opset", [11, 13])
def test_axes_that_are_squeezed_without_a_name(opset):
    """One row is a row, too."""
    nodes = [node("GlobalAveragePool", ["x"], ["pooled"]), node("Squeeze", ["pooled"], ["y"])]
    graph, values = trace(read(model(nodes, (3, 2, 2), opset=opset)), np.ones((1, 3, 2, 2)), run)
    assert values.shapes["y"] == (None, 3)
    assert [run(graph, (np.ones((size, 3, 2, 2)),))[0].shape for size in (1, 2)] == [(1, 3), (2, 3)]
