"""Weights of a graph in a file in memory, for graphs that are seldom looked at once programs were made of them."""

from __future__ import annotations

from dataclasses import replace

from xai_sidecar.backends.graph.graph import Graph
from xai_sidecar.backends.runtimes.mapped import MappedFile

_LARGE = 4096
"""Bytes from which on a constant is put into the file."""

_ALIGNED = 64


def with_mapped_weights(graph: Graph) -> tuple[Graph, MappedFile | None]:
    """A graph that has its large constants in a file, and the file; None if there are none, or it cannot be written.

    Args:
        graph: The graph; it is not changed.
    """
    large = {
        name: value for name, value in graph.constants.items() if value.nbytes >= _LARGE and value.dtype.kind in "fiu"
    }
    starts, size = {}, 0
    for name, value in large.items():
        starts[name] = size
        size += -(-value.nbytes // _ALIGNED) * _ALIGNED
    content = bytearray(size)
    for name, value in large.items():
        content[starts[name] : starts[name] + value.nbytes] = value.tobytes()
    try:
        file = MappedFile(content) if large else None
    except OSError:
        file = None
    if file is None:
        return graph, None
    mapped = {
        name: file.bytes[starts[name] : starts[name] + value.nbytes].view(value.dtype).reshape(value.shape)
        for name, value in large.items()
    }
    return replace(graph.copy(), constants=graph.constants | mapped), file
