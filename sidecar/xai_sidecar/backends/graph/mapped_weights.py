"""Weights of a graph in a file in memory, for graphs that are seldom looked at once programs were made of them."""

from __future__ import annotations

from dataclasses import replace

from xai_sidecar.backends.graph.graph import Graph
from xai_sidecar.backends.runtimes.mapped import MappedFile, in_a_file


def with_mapped_weights(graph: Graph) -> tuple[Graph, MappedFile | None]:
    """A graph that has its large constants in a file, and the file; None if there are none, or it cannot be written.

    Args:
        graph: The graph; it is not changed.
    """
    mapped, file = in_a_file(graph.constants)
    return (graph, None) if file is None else (replace(graph.copy(), constants=graph.constants | mapped), file)
