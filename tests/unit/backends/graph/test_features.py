"""The features of a graph: what its last dense layer takes, in all the forms in which exporters write one."""

import numpy as np
import onnx
import pytest
import small_graphs
from differences import run_by_reference

from xai_sidecar.backends.graph.features import features_graph
from xai_sidecar.backends.graph.graph import read
from xai_sidecar.backends.graph.tracing import trace
from xai_sidecar.errors import PreconditionError

CHANNELS, CLASSES, SIDE = 4, 3, 5
POOLED = [("GlobalAveragePool", ["x"], ["pooled"], {}), ("Flatten", ["pooled"], ["features"], {"axis": 1})]
ROWS = [
    ("Reshape", ["x", "to_rows"], ["columns"], {}),
    ("Transpose", ["columns"], ["rows"], {"perm": [0, 2, 1]}),
]


def node(kind, inputs, output, **attributes):
    return kind, inputs.split(), [output], attributes


GEMM = node("Gemm", "features rows_of_weights bias", "y", transB=1)
HEADS = {
    "gemm": [*POOLED, GEMM],
    "product and bias": [*POOLED, node("MatMul", "features weights", "z"), node("Add", "z bias", "y")],
    "bias and product": [*POOLED, node("MatMul", "features weights", "z"), node("Add", "bias z", "y")],
    "scaled": [*POOLED, node("Gemm", "features weights", "z"), node("Mul", "z scale", "y")],
    "scaled, the scale first": [*POOLED, node("Gemm", "features weights", "z"), node("Mul", "scale z", "y")],
    "divided": [*POOLED, node("Gemm", "features weights", "z"), node("Div", "z scale", "y")],
    "normalised": [
        *POOLED,
        node("Gemm", "features weights", "z"),
        node("BatchNormalization", "z bias bias bias positive", "y"),
    ],
    "reshaped by its own shape": [
        *POOLED,
        node("Gemm", "features weights", "z"),
        node("Shape", "z", "shape"),
        node("Reshape", "z shape", "y"),
    ],
    "of one position": [
        *ROWS,
        node("ReduceMean", "rows", "one", axes=[1], keepdims=1),
        node("MatMul", "one weights", "z"),
        node("Squeeze", "z second", "y"),
    ],
    "at each position": [
        *ROWS,
        node("MatMul", "rows weights", "z"),
        node("ReduceMean", "z", "y", axes=[1], keepdims=0),
    ],
    "a convolution": [
        node("Conv", "x kernel bias", "maps"),
        node("Relu", "maps", "clipped"),
        node("GlobalAveragePool", "clipped", "means"),
        node("Flatten", "means", "y", axis=1),
    ],
    "a convolution of what is pooled": [
        POOLED[0],
        node("Conv", "pooled kernel bias", "maps"),
        node("Flatten", "maps", "y", axis=1),
    ],
    "a convolution, channels last": [
        node("Conv", "x kernel bias", "maps"),
        node("Transpose", "maps", "last", perm=[0, 2, 3, 1]),
        node("ReduceMean", "last", "y", axes=[1, 2], keepdims=0),
    ],
}

OTHERS = {
    "two branches": [
        *POOLED,
        (*GEMM[:2], ["a"], GEMM[3]),
        node("Gemm", "features weights", "b"),
        node("Add", "a b", "y"),
    ],
    "scaled by what goes by the picture": [
        *POOLED,
        node("Gemm", "features weights", "z"),
        node("ReduceMean", "features", "mean", axes=[1]),
        node("Mul", "z mean", "y"),
    ],
    "no layer": [*POOLED, node("Slice", "features first_axis classes second", "y")],
    "a product with itself": [
        *ROWS,
        node("Transpose", "rows", "turned", perm=[0, 2, 1]),
        node("MatMul", "turned rows", "z"),
        node("ReduceMean", "z", "w", axes=[1], keepdims=0),
        node("Slice", "w first_axis classes second", "y"),
    ],
    "softmax behind": [*POOLED, (*GEMM[:2], ["z"], GEMM[3]), node("Softmax", "z", "y", axis=1)],
    "divided by": [*POOLED, (*GEMM[:2], ["z"], GEMM[3]), node("Div", "scale z", "y")],
    "weights at the left": [
        *POOLED,
        node("Transpose", "features", "turned", perm=[1, 0]),
        node("MatMul", "rows_of_weights turned", "z"),
        node("Transpose", "z", "y", perm=[1, 0]),
    ],
    "features turned": [
        *POOLED,
        node("Transpose", "features", "turned", perm=[1, 0]),
        node("Gemm", "turned weights", "y", transA=1),
    ],
    "several pieces of each class": [
        *POOLED,
        node("MatMul", "features wide", "z"),
        node("Reshape", "z pieces", "parts"),
        node("ReduceMean", "parts", "y", axes=[2], keepdims=0),
    ],
}


def constants():
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((CHANNELS, CLASSES)).astype(np.float32)
    return {
        "weights": weights,
        "rows_of_weights": weights.T.copy(),
        "kernel": weights.T[:, :, None, None].copy(),
        "wide": generator.standard_normal((CHANNELS, 2 * CLASSES)).astype(np.float32),
        "bias": np.array([0.5, 1, -2], np.float32),
        "positive": np.array([1, 2, 3], np.float32),
        "scale": np.array(0.1, np.float32),
        "to_rows": np.array([0, CHANNELS, -1]),
        "pieces": np.array([0, CLASSES, 2]),
        "second": np.array([1]),
        "first_axis": np.array([0]),
        "classes": np.array([CLASSES]),
    }


def traced(nodes):
    used = {name for _, inputs, _, _ in nodes for name in inputs}
    weights = {name: value for name, value in constants().items() if name in used}
    shape = ["batch", CHANNELS, SIDE, SIDE + 1]
    graph = read(onnx.load_from_string(small_graphs.serialised(nodes, {"x": shape}, ["y"], weights)))
    return trace(graph, pictures(1), run_by_reference)


def pictures(count):
    return np.random.default_rng(1).standard_normal((count, CHANNELS, SIDE, SIDE + 1)).astype(np.float32)


@pytest.mark.parametrize("head", HEADS)
def test_features_are_the_means_of_the_channels_whatever_the_head(head):
    graph, values = traced(HEADS[head])
    featured = features_graph(graph, values)
    for count in (1, 3):
        inputs = pictures(count)
        features, logits = run_by_reference(featured, (inputs,))
        np.testing.assert_allclose(features, inputs.mean((2, 3)), atol=1e-6)
        np.testing.assert_array_equal(logits, run_by_reference(graph, (inputs,))[0])


@pytest.mark.parametrize("head", OTHERS)
def test_what_ends_otherwise_is_refused(head):
    with pytest.raises(PreconditionError, match="cannot have an OoD net"):
        features_graph(*traced(OTHERS[head]))
