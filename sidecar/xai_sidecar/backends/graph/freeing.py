"""Frees the batch axis of a graph that was exported for one batch size, and sees whether its rows are independent.

Exporters write the batch size into shapes. Some give way: the first axis of a reshaping can be left open, and what is
joined to each row can be repeated. Whether the result is right is not argued but tried: every row of a batch must come
out as it does alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from xai_sidecar.backends.graph.graph import Graph, Node
from xai_sidecar.backends.graph.tracing import Run
from xai_sidecar.backends.runtimes.agreement import disagreement
from xai_sidecar.engine.work import Array

_TOLERANCE = 1e-4
"""Norm of the difference between a row in a batch and the same row alone, over the norm. Rounding makes some 1e-6; a
batch that normalises over its rows, or mixes them, is off by far more."""

_SIZES = (2, 3)


@dataclass(frozen=True)
class Freed:
    """A graph whose batch axis is free, or why it is not.

    Attributes:
        graph: The graph.
        rows: Rows that it takes at once; None for any number.
        note: What was done or is wrong, in a sentence; empty if nothing.
    """

    graph: Graph
    rows: int | None = None
    note: str = ""


def free_batch(graph: Graph, static: int | None, examples: Array, run: Run) -> Freed:
    """Finds a form of a graph that takes any number of rows.

    Args:
        graph: The graph, its input's first axis declared free already.
        static: The batch size that the file fixed; None if it fixed none.
        examples: Some inputs as the net takes them, (n, …), at least 3, all different.
        run: What runs graphs.
    """
    alone = _alone(graph, static, examples, run)
    if _agrees(graph, examples, alone, run):
        return Freed(graph)
    if static is not None:
        opened = _opened(_evaluated(graph, examples[:static], run), static)
        if _agrees(opened, examples, alone, run):
            return Freed(opened)
    size = static or 1
    rows = "one picture" if size == 1 else f"{size} pictures"
    fixed = replace(graph.copy(), inputs={name: (size, *shape[1:]) for name, shape in graph.inputs.items()})
    return Freed(
        fixed,
        size,
        f"The graph takes {rows} at a time, since its rows do not come out alike in other batches: batches gain "
        "nothing. Export it with a free first axis.",
    )


def _alone(graph: Graph, static: int | None, examples: Array, run: Run) -> Array:
    """The logits of inputs, each computed with none but itself in the batch."""
    size = static or 1
    rows = [run(graph, (np.repeat(examples[i : i + 1], size, axis=0),))[0][:1] for i in range(max(_SIZES))]
    return np.concatenate(rows)


def _agrees(graph: Graph, examples: Array, alone: Array, run: Run) -> bool:
    try:
        return not any(disagreement(run(graph, (examples[:size],)), [alone[:size]], [_TOLERANCE]) for size in _SIZES)
    except Exception:  # an engine's own: shapes do not fit
        return False


def _evaluated(graph: Graph, examples: Array, run: Run) -> Graph:
    """The graph with what does not depend on the picture computed, such as a repeated class token."""
    flowing = graph.after(graph.inputs)
    fixed = [node for node in graph.nodes if flowing.isdisjoint(node.outputs)]
    names = [name for node in fixed for name in node.outputs if name]
    if not names:
        return graph
    values = run(graph.pruned(names), (examples,))
    nodes = [node for node in graph.nodes if not flowing.isdisjoint(node.outputs)]
    constants = {**graph.constants, **dict(zip(names, values, strict=True))}
    return replace(graph.copy(), nodes=nodes, constants=constants)


def _opened(graph: Graph, static: int) -> Graph:
    """The graph with the batch size taken out of shapes, and with what is joined to the rows repeated for each."""
    opened = graph.copy()
    opened.nodes = []
    flowing = graph.after(graph.inputs)
    for node in graph.nodes:
        if node.kind in ("Reshape", "Expand") and node.input(1) in graph.constants and node.inputs[0] in flowing:
            node = _reshaped(node, opened, static)
        elif node.kind == "Concat" and node.attributes["axis"] != 0:
            node = _joined(node, opened, static, flowing)
        opened.nodes.append(node)
    return opened


def _reshaped(node: Node, graph: Graph, static: int) -> Node:
    shape = graph.constants[node.inputs[1]]
    if shape.ndim != 1 or not len(shape) or shape[0] != static:
        return node
    free = 1 if node.kind == "Expand" else 0 if -1 in shape else -1
    name = graph.unused_name(f"{node.inputs[1]}_free")
    graph.constants[name] = np.array([free, *shape[1:]], np.int64)
    return replace(node, inputs=(node.inputs[0], name, *node.inputs[2:]))


def _joined(node: Node, graph: Graph, static: int, flowing: set[str]) -> Node:
    """A joining with its constant parts, such as a class token, repeated for each row."""
    fixed = [name for name in node.inputs if name not in flowing]
    if len(fixed) == len(node.inputs):
        return node
    (picture,) = graph.inputs
    names = {}
    for name in fixed:
        value = graph.constants.get(name)
        if value is None or not value.ndim or value.shape[0] != static or (value != value[:1]).any():
            continue
        one, shape, first, rest, count = (graph.unused_name(f"{name}_{part}") for part in ("one", "s", "f", "r", "n"))
        bounds = [graph.unused_name(f"{name}_{part}") for part in ("start", "stop")]
        graph.constants.update({one: value[:1], rest: np.array(value.shape[1:], np.int64)})
        graph.constants.update({bounds[0]: np.array([0]), bounds[1]: np.array([1])})
        names[name] = graph.unused_name(f"{name}_repeated")
        graph.nodes += [
            Node("Shape", (picture,), (shape,)),
            Node("Slice", (shape, *bounds), (first,)),
            Node("Concat", (first, rest), (count,), {"axis": 0}),
            Node("Expand", (one, count), (names[name],)),
        ]
    return node.renamed(names)
