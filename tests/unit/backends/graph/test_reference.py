"""Graphs that are run as they stand."""

import numpy as np
import pytest

from xai_sidecar.backends.graph.graph import Graph, Node
from xai_sidecar.backends.graph.reference import Reference


@pytest.mark.parametrize("columns", [3, 300], ids=["small", "shared"])
def test_constants_that_no_node_takes_do_not_matter(columns):
    """Such as those of nodes that were computed beforehand; large ones are shared with the session."""
    weights = np.random.default_rng(0).standard_normal((4, columns)).astype(np.float32)
    graph = Graph(
        nodes=[Node("MatMul", ("x", "w"), ("y",))],
        inputs={"x": (None, 4)},
        outputs=["y"],
        constants={"w": weights, "unused": weights + 1},
        opset=17,
        input_dtypes={"x": np.dtype(np.float32)},
    )
    x = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(Reference()(graph, (x,))[0], weights)
