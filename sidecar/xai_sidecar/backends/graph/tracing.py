"""What a graph computes on its way: the shape and type of every value, found by running it at two batch sizes.

Shapes could be inferred instead. But inference gives up at operators that it does not know and at shapes that are
computed, and says nothing of what a run would do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from xai_sidecar.backends.graph.graph import Graph, write
from xai_sidecar.engine.work import Array

Shape: TypeAlias = tuple[int | None, ...]
"""The lengths of an array's axes; None where one goes by the batch size."""

Run: TypeAlias = Callable[[Graph, tuple[Array, ...]], tuple[Array, ...]]
"""Runs a graph as it stands: its inputs in order → its outputs in order."""

_SIZES = (2, 3)
"""Batch sizes that are compared: what differs between them goes by the batch size."""

_SMALL = 64
"""Elements up to which an array of integers is taken for the result of arithmetic on shapes."""

_MEASURES = frozenset({"Shape", "Size"})


@dataclass(frozen=True)
class Traced:
    """The values of a graph.

    Attributes:
        shapes: Their shapes, by name; constants and inputs included.
        dtypes: Their types, by name.
    """

    shapes: dict[str, Shape]
    dtypes: dict[str, np.dtype[Any]]


def trace(graph: Graph, example: Array, run: Run, rows: int | None = None) -> tuple[Graph, Traced]:
    """Runs a graph at two batch sizes, and puts constants in the place of arithmetic on shapes that gives the same.

    Args:
        graph: The graph, with one input.
        example: One input, (1, …).
        run: What runs it.
        rows: The batch size, if the graph takes no other.

    Returns:
        A graph that computes the same, and the shapes of its values.
    """
    names = [name for node in graph.nodes for name in node.outputs if name]
    everything = graph.copy()
    everything.outputs = names
    sizes = (rows, rows) if rows else _SIZES
    one, other = (run(everything, (np.repeat(example, size, axis=0),)) for size in sizes)
    shapes: dict[str, Shape] = {name: value.shape for name, value in graph.constants.items()} | dict(graph.inputs)
    dtypes = {name: value.dtype for name, value in graph.constants.items()}
    dtypes.update(dict.fromkeys(graph.inputs, example.dtype))
    for name, first, second in zip(names, one, other, strict=True):
        shapes[name] = _common(first.shape, second.shape)
        dtypes[name] = first.dtype
    folded = _folded(graph, dict(zip(names, one, strict=True)), dict(zip(names, other, strict=True)))
    return folded, Traced(shapes | {name: value.shape for name, value in folded.constants.items()}, dtypes)


def run_by_reference(graph: Graph, rows: tuple[Array, ...]) -> tuple[Array, ...]:
    """Runs a graph by the onnx package's own evaluator: slowly, in any precision. For tests and small graphs."""
    from onnx.reference import ReferenceEvaluator

    results = ReferenceEvaluator(write(graph)).run(None, dict(zip(graph.inputs, rows, strict=True)))
    return tuple(np.asarray(result) for result in results)


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> Shape:
    if len(one) != len(other):
        raise ValueError("The number of axes of a value goes by the batch size, which is not supported.")
    return tuple(first if first == second else None for first, second in zip(one, other, strict=True))


def _folded(graph: Graph, one: dict[str, Array], other: dict[str, Array]) -> Graph:
    """Replaces what depends on the input by its shape alone, and is the same for all batch sizes."""
    measured = _measured(graph)
    folded = graph.copy()
    for name in measured:
        if np.array_equal(one[name], other[name]):
            folded.constants[name] = one[name]
        elif (shape := _reshaping(one[name], other[name])) is not None:
            for index, node in enumerate(folded.nodes):
                if node.kind == "Reshape" and node.inputs[1] == name and not node.attributes.get("allowzero"):
                    constant = folded.unused_name(f"{name}_free")
                    folded.constants[constant] = shape
                    folded.nodes[index] = node.renamed({name: constant})
    folded.nodes = [node for node in folded.nodes if not all(name in folded.constants for name in node.outputs if name)]
    return folded.pruned(folded.outputs)


def _measured(graph: Graph) -> list[str]:
    """Names of values that depend on constants and on the shapes of other values only."""
    known = set(graph.constants)
    found = []
    for node in graph.nodes:
        if node.kind in _MEASURES or all(name in known for name in node.inputs if name):
            names = [name for name in node.outputs if name]
            known.update(names)
            found += names
    return found


def _reshaping(one: Array, other: Array) -> Array | None:
    """A target shape with its one axis that goes by the batch size left open; None if there is no such shape."""
    if one.ndim != 1 or one.shape != other.shape or one.dtype != np.int64 or len(one) > _SMALL:
        return None
    differs = one != other
    if differs.sum() != 1 or (one[~differs] <= 0).any():
        return None
    return np.where(differs, -1, one)
