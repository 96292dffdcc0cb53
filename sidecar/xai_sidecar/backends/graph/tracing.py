"""What a graph computes on its way: the shape and type of every value, found by running it at two batch sizes.

Shapes could be inferred instead. But inference gives up at operators that it does not know and at shapes that are
computed, and says nothing of what a run would do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from xai_sidecar.backends.graph.graph import Graph, Node
from xai_sidecar.engine.work import Array

Shape: TypeAlias = tuple[int | None, ...]
"""The lengths of an array's axes; None where one goes by the batch size."""

Run: TypeAlias = Callable[[Graph, tuple[Array, ...]], tuple[Array, ...]]
"""Runs a graph as it stands: its inputs in order → its outputs in order."""

_SIZES = (2, 3)
"""Batch sizes that are compared: what differs between them goes by the batch size."""

_MEASURES = frozenset({"Shape", "Size"})

_RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
"""Operators that give something else each time."""

_COUNTS = frozenset({"NonZero", "Unique", "Compress", "NonMaxSuppression"})
"""Operators whose outputs are as long as the values of their inputs say."""


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
    measured = _measured(graph)
    watched = _watched(graph, measured)
    # Another picture in the second run: lengths that go by what a picture shows are likely to differ, too.
    one = watched.run(np.repeat(example, rows or _SIZES[0], axis=0), run)
    another = (example[..., ::-1] * 0.5).astype(example.dtype)
    other = watched.run(np.repeat(another, rows or _SIZES[1], axis=0), run)
    shapes = {name: _common(one.shapes[name], other.shapes[name]) for name in one.shapes}
    shapes |= dict.fromkeys(graph.inputs, (rows, *example.shape[1:]))
    folded = _with_free_targets(_folded(graph, one.values, other.values), shapes, measured)
    folded = _with_named_axes(folded, shapes)
    dtypes = one.dtypes | dict.fromkeys(graph.inputs, example.dtype)
    shapes |= {name: value.shape for name, value in folded.constants.items()}
    dtypes |= {name: value.dtype for name, value in folded.constants.items()}
    return folded, Traced(shapes, dtypes)


@dataclass(frozen=True)
class _Run:
    """What was seen in a run: shapes and types of all values, and the values of some."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, np.dtype[Any]]
    values: dict[str, Array]


@dataclass(frozen=True)
class _Watched:
    """A graph that gives values, and of others only shape and type: all of them would take much memory."""

    graph: Graph
    wanted: list[str]
    others: list[str]

    def run(self, rows: Array, run: Run) -> _Run:
        """What is seen in a run."""
        seen = run(self.graph, (rows,))
        count = len(self.wanted), len(self.wanted) + len(self.others)
        values = dict(zip(self.wanted, seen, strict=False))
        measured = zip(self.others, seen[count[0] : count[1]], seen[count[1] :], strict=True)
        shapes, dtypes = {name: value.shape for name, value in values.items()}, _dtypes(values)
        for name, shape, element in measured:
            shapes[name], dtypes[name] = tuple(shape.tolist()), element.dtype
        return _Run(shapes, dtypes, values)


def _dtypes(values: Mapping[str, Array]) -> dict[str, np.dtype[Any]]:
    return {name: value.dtype for name, value in values.items()}


def _watched(graph: Graph, wanted: list[str]) -> _Watched:
    measured = set(wanted)
    others = [name for node in graph.nodes for name in node.outputs if name and name not in measured]
    watched = graph.copy()
    prefix = "trace"
    while any(name.startswith(prefix) for name in (*graph.constants, *wanted, *others)):
        prefix += "_"
    all_of_it, start, stop = (f"{prefix}/{number}" for number in (-1, 0, 1))
    watched.constants |= {name: np.array([number]) for name, number in ((all_of_it, -1), (start, 0), (stop, 1))}
    for name in others:
        watched.nodes += [
            Node("Shape", (name,), (f"{prefix}/{name}/shape",)),
            Node("Reshape", (name, all_of_it), (f"{prefix}/{name}/line",)),
            Node("Slice", (f"{prefix}/{name}/line", start, stop), (f"{prefix}/{name}/element",)),
        ]
    watched.outputs = [*wanted, *(f"{prefix}/{name}/{what}" for what in ("shape", "element") for name in others)]
    return _Watched(watched, wanted, others)


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> Shape:
    if len(one) != len(other):
        raise ValueError("The number of axes of a value goes by the batch size, which is not supported.")
    return tuple(first if first == second else None for first, second in zip(one, other, strict=True))


def _measured(graph: Graph) -> list[str]:
    """Names of values that depend on constants and on the shapes of other values only."""
    known, found = set(graph.constants), list[str]()
    counted = set[str]()
    for node in graph.nodes:
        inputs, outputs = set(filter(None, node.inputs)), [name for name in node.outputs if name]
        if (node.kind in _MEASURES and inputs.isdisjoint(counted)) or (inputs <= known and node.kind not in _RANDOM):
            known.update(outputs)
            found += outputs
        elif node.kind in _COUNTS or not inputs.isdisjoint(counted):
            counted.update(outputs)
    return found


def _folded(graph: Graph, one: dict[str, Array], other: dict[str, Array]) -> Graph:
    """Puts constants in the place of what is the same at all batch sizes."""
    folded = graph.copy()
    folded.constants |= {name: value for name, value in one.items() if np.array_equal(value, other[name])}
    folded.nodes = []
    for node in graph.nodes:
        made = [name for name in node.outputs if name and name not in folded.constants]
        if made:
            # An operator some of whose outputs are constants still makes them, under other names.
            again = {name: folded.unused_name(f"{name}_made") for name in node.outputs if name in folded.constants}
            folded.nodes.append(replace(node, outputs=tuple(again.get(name, name) for name in node.outputs)))
    return folded.pruned(folded.outputs)


def _with_free_targets(graph: Graph, shapes: Mapping[str, Shape], measured: Iterable[str]) -> Graph:
    """Puts constants in the place of shapes one of whose axes goes by the batch size: a reshape can leave one open."""
    measured = set(measured)
    free = graph.copy()
    for index, node in enumerate(graph.nodes):
        if node.kind != "Reshape" or node.inputs[1] not in measured or node.inputs[1] in graph.constants:
            continue
        shape = shapes[node.outputs[0]]
        if shape.count(None) == 1 and 0 not in shape:
            target = free.unused_name(f"{node.inputs[1]}_free")
            free.constants[target] = np.array([-1 if axis is None else axis for axis in shape])
            free.nodes[index] = replace(node, inputs=(node.inputs[0], target))
    return free.pruned(free.outputs)


def _with_named_axes(graph: Graph, shapes: Mapping[str, Shape]) -> Graph:
    """Names the axes that are squeezed because they have length 1: with one row, the batch axis would go as well."""
    named = graph.copy()
    for index, node in enumerate(graph.nodes):
        if node.kind != "Squeeze" or node.input(1) or "axes" in node.attributes:
            continue
        axes = tuple(axis for axis, length in enumerate(shapes[node.inputs[0]]) if length == 1)
        if graph.opset < 13:
            named.nodes[index] = replace(node, attributes={"axes": axes})
        else:
            name = named.unused_name(f"{node.outputs[0]}_axes")
            named.constants[name] = np.array(axes, np.int64)
            named.nodes[index] = replace(node, inputs=(node.inputs[0], name))
    return named
