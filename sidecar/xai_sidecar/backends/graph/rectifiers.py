"""Finds the rectifiers of a graph: zero below zero, and the identity above it, up to a ceiling if they have one."""

from __future__ import annotations

from xai_sidecar.backends.graph.graph import Graph
from xai_sidecar.errors import PreconditionError


def find_rectifiers(graph: Graph) -> frozenset[str]:
    """The names of the outputs of a graph's rectifiers.

    Raises:
        PreconditionError: There are none.
    """
    found = frozenset(node.outputs[0] for node in graph.nodes if node.kind == "Relu")
    if not found:
        raise PreconditionError("This model has no ReLU, which guided backpropagation and deconvolution are about.")
    return found
