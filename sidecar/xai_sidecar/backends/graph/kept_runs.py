"""Keeps what graphs gave when they were run plainly: at a second start those runs would be most of its time.

Kept are the numbers, and not what was concluded from them: every start compares and judges anew. They are kept under a
digest of all that they were made of: the graph with its weights, the inputs, and the version of ONNX Runtime.
"""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from xai_sidecar.backends.graph.graph import Graph
from xai_sidecar.backends.graph.per_graph import PerGraph
from xai_sidecar.backends.graph.tracing import Run
from xai_sidecar.backends.runtimes.keeping import EngineCache, cache_key
from xai_sidecar.backends.runtimes.onnxruntime import OnnxRuntime
from xai_sidecar.digest import array_text
from xai_sidecar.engine.work import Array

_MOST_BYTES = 4 << 20
"""Largest outputs that are kept: a row's gradients and layers, and not all values of a net."""

_KINDS = "biufc"
"""Kinds of numbers that are as they were when they are read again."""


class GraphDigests:
    """Digests of graphs. Neither they nor their arrays may be changed afterwards."""

    def __init__(self) -> None:
        self._digest_of = PerGraph(self._digest)
        self._arrays: dict[int, tuple[weakref.ref[Array], str]] = {}

    def __call__(self, graph: Graph) -> str:
        """A digest of everything in a graph but the names of its nodes."""
        return self._digest_of(graph)

    def forget(self) -> None:
        """Lets go of the graphs, whose derivatives' kernels take as much as the weights."""
        self._digest_of.forget()

    def _digest(self, graph: Graph) -> str:
        head = graph.opset, sorted(graph.domains.items()), list(graph.inputs.items()), graph.outputs
        lines = [repr(head), *(f"{name} {dtype}" for name, dtype in graph.input_dtypes.items())]
        lines += (f"{name} {self._text(value)}" for name, value in graph.constants.items())
        for node in graph.nodes:
            attributes = [(name, self._attribute(value)) for name, value in sorted(node.attributes.items())]
            lines.append(repr((node.kind, node.inputs, node.outputs, attributes)))
        return cache_key("\n".join(lines).encode())

    def _attribute(self, value: Any) -> Any:
        return self._text(value) if isinstance(value, np.ndarray) else value

    def _text(self, array: Array) -> str:
        """An array's text, worked out once: graphs derived from each other share their weights."""
        known = self._arrays.get(id(array))
        if known is None or known[0]() is not array:
            known = self._arrays[id(array)] = weakref.ref(array), array_text(array)
        return known[1]


class KeptRuns:
    """Runs graphs as another `Run` does, and keeps what they gave.

    Args:
        run: Runs graphs with ONNX Runtime.
        cache: Where it is kept; None keeps nothing.
        digests: Tell graphs apart.
    """

    def __init__(self, run: Run, cache: EngineCache | None, digests: GraphDigests) -> None:
        self._run = run
        self._cache = cache
        self._digests = digests

    def __call__(self, graph: Graph, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Runs a graph, or finds what it gave earlier."""
        if self._cache is None:
            return self._run(graph, rows)
        texts = [array_text(array) for array in rows]
        key = cache_key(self._digests(graph).encode(), "run", OnnxRuntime().version, texts)
        path = self._cache.find(key)
        outputs = decoded(path.read_bytes()) if path else None
        if outputs is None:
            outputs = self._run(graph, rows)
            if (content := encoded(outputs)) is not None:
                self._cache.keep(key, content)
        return outputs


def encoded(arrays: Sequence[Array], most: float = _MOST_BYTES) -> bytes | None:
    """Arrays as bytes: a line of JSON with their dtypes and shapes, then their contents; None if that is not worth it.

    NumPy's own format for several arrays takes 0.2 ms for each, and a traced graph has a thousand.

    Args:
        arrays: The arrays.
        most: Bytes of contents up to which it is.
    """
    if sum(array.nbytes for array in arrays) > most or any(array.dtype.kind not in _KINDS for array in arrays):
        return None
    head = json.dumps([(array.dtype.str, array.shape) for array in arrays])
    return b"".join([head.encode(), b"\n", *(array.tobytes() for array in arrays)])


def decoded(content: bytes) -> tuple[Array, ...] | None:
    """The arrays, with memory of their own; None if another release wrote them otherwise."""
    head, _, body = content.partition(b"\n")
    try:
        arrays, start = [], 0
        for dtype, shape in json.loads(head):
            found = np.frombuffer(body, dtype, math.prod(shape), start)
            arrays.append(found.reshape(shape).copy())
            start += found.nbytes
    except (ValueError, TypeError):
        return None
    return tuple(arrays) if start == len(body) else None
