"""Graphs that were exported for one batch size: freed where that can be, and else run as they are, which is said."""

import numpy as np
import onnx
import pytest
import small_graphs

from xai_sidecar.backends.graph.freeing import free_batch
from xai_sidecar.backends.graph.graph import read
from xai_sidecar.backends.graph.loading import prepare
from xai_sidecar.backends.graph.reference import Reference

SHAPE = (3, 4, 4)
PIXELS, CLASSES = 16, 5
generator = np.random.default_rng(0)
WEIGHTS = {
    "flat_head": generator.standard_normal((48, CLASSES)).astype(np.float32),
    "head": generator.standard_normal((3, CLASSES)).astype(np.float32),
}


def freed(nodes, static, **constants):
    """The graph of some nodes freed, and the file's own at its own batch size."""
    given = {**WEIGHTS, **constants}
    used = {name for _, inputs, _, _ in nodes for name in inputs}
    weights = {name: np.asarray(value) for name, value in given.items() if name in used}
    data = small_graphs.serialised(nodes, {"x": [static or "batch", *SHAPE]}, ["y"], weights)
    file = prepare(onnx.load_from_string(data), None, None, SHAPE, "net.onnx")
    assert file.was_static == static
    examples = np.random.default_rng(1).standard_normal((4, *SHAPE)).astype(np.float32)
    return free_batch(file.graph, file.was_static, examples, Reference()), data


def check_free(nodes, static=1, **constants):
    """It takes any number of rows, and each comes out as from the file itself."""
    result, data = freed(nodes, static, **constants)
    assert (result.rows, result.note) == (None, "")
    original = read(onnx.load_from_string(data))
    inputs = np.random.default_rng(2).standard_normal((7, *SHAPE)).astype(np.float32)
    size = static or 1
    expected = [Reference()(original, (np.repeat(inputs[i : i + 1], size, 0),))[0][0] for i in range(len(inputs))]
    for count in (1, 2, 7):
        (output,) = Reference()(result.graph, (inputs[:count],))
        np.testing.assert_allclose(output, np.stack(expected[:count]), atol=1e-5)


def ending(name):
    return ("MatMul", [name, "flat_head"], ["y"], {})


def rows_of_pixels(batch):
    return [
        ("Reshape", ["x", "apart"], ["columns"], {}),
        ("Transpose", ["columns"], ["rows"], {"perm": [0, 2, 1]}),
    ], {"apart": [batch, 3, PIXELS]}


@pytest.mark.parametrize("static", [1, 2, 3])
@pytest.mark.parametrize("shape", [[48], [-1]])
def test_a_reshaping_with_the_batch_size(shape, static):
    check_free([("Reshape", ["x", "flat"], ["z"], {}), ending("z")], static, flat=[static, *shape])


def test_reshapings_without_it_stay():
    check_free([("Reshape", ["x", "flat"], ["z"], {}), ending("z")], 1, flat=[-1, 48])
    check_free([("Flatten", ["x"], ["z"], {}), ending("z")], 1)
    check_free([("Reshape", ["x", "flat"], ["z"], {}), ending("z")], None, flat=[0, 48])


@pytest.mark.parametrize("static", [1, 2])
def test_a_class_token_that_was_joined(static):
    nodes, constants = rows_of_pixels(static)
    token = np.repeat(np.array([[[1.0, -2, 3]]], np.float32), static, axis=0)
    nodes += [
        ("Concat", ["token", "rows"], ["all"], {"axis": 1}),
        ("ReduceMean", ["all"], ["mean"], {"axes": [1], "keepdims": 0}),
        ("MatMul", ["mean", "head"], ["y"], {}),
    ]
    check_free(nodes, static, token=token, **constants)


@pytest.mark.parametrize("static", [1, 2])
def test_a_class_token_that_is_expanded_in_the_graph(static):
    nodes, constants = rows_of_pixels(static)
    nodes += [
        ("Expand", ["token", "as_many"], ["tokens"], {}),
        ("Concat", ["rows", "tokens"], ["all"], {"axis": -2}),
        ("ReduceMax", ["all"], ["most"], {"axes": [1], "keepdims": 0}),
        ("MatMul", ["most", "head"], ["y"], {}),
    ]
    token = np.array([[[1.0, -2, 3]]], np.float32)
    check_free(nodes, static, token=token, as_many=[static, 1, 3], **constants)


OTHERS = {
    "the mean over pictures": [
        ("ReduceMean", ["x"], ["mean"], {"axes": [0], "keepdims": 1}),
        ("Sub", ["x", "mean"], ["z"], {}),
        ("Flatten", ["z"], ["flat"], {}),
        ("Add", ["flat", "one"], ["more"], {}),
        ending("more"),
    ],
    "rows mixed": [
        ("Reshape", ["x", "all_rows"], ["z"], {}),
        ("Softmax", ["z"], ["p"], {"axis": 0}),
        ("Reshape", ["p", "pictures"], ["flat"], {}),
        ending("flat"),
    ],
}


@pytest.mark.parametrize("static", [None, 1])
@pytest.mark.parametrize("case", OTHERS)
def test_rows_that_depend_on_each_other_are_run_one_by_one_and_it_is_said(case, static):
    constants = {"one": np.ones(1, np.float32), "all_rows": [-1, 3], "pictures": [-1, 48]}
    result, _ = freed(OTHERS[case], static, **constants)
    assert result.rows == 1
    assert "takes one picture at a time" in result.note
    assert "free first axis" in result.note
    assert next(iter(result.graph.inputs.values())) == (1, *SHAPE)


def test_a_batch_size_that_cannot_be_changed_stays():
    nodes = [("Reshape", ["x", "flat"], ["z"], {}), ("Add", ["z", "rows"], ["w"], {}), ending("w")]
    rows = np.random.default_rng(3).standard_normal((2, 48)).astype(np.float32)
    result, _ = freed(nodes, 2, flat=[2, 48], rows=rows)
    assert result.rows == 2
    assert "takes 2 pictures at a time" in result.note
    (output,) = Reference()(result.graph, (np.ones((2, *SHAPE), np.float32),))
    assert output.shape == (2, CLASSES)
