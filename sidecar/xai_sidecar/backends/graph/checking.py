"""Checks a gradient before it serves, against what small changes do to the logits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from xai_sidecar.backends.graph.graph import Graph, Node
from xai_sidecar.backends.graph.kinds import Traceable
from xai_sidecar.backends.graph.loaded import Loaded
from xai_sidecar.backends.graph.programs import Prepared
from xai_sidecar.backends.graph.reference import ALLOWED, gradient_error
from xai_sidecar.backends.graph.tracing import Run
from xai_sidecar.engine.work import Array, Kind
from xai_sidecar.errors import PreconditionError


def probe_rows(kind: Kind, probes: Array, class_count: int) -> tuple[Array, ...]:
    """Input rows of a kind: inputs as the net takes them, with targets where it needs them."""
    if not kind.name.endswith("gradient"):
        return (probes,)
    return probes, np.arange(len(probes), dtype=np.int32) % class_count


def check_gradient(prepared: Prepared, rows: tuple[Array, ...], loaded: Loaded, run: Run) -> None:
    """Compares a gradient with central differences of the graph run plainly, for one input.

    Args:
        prepared: Its graph, which computes the gradient of one logit by the input or by a layer.
        rows: Input rows of the kind, of which the first counts.
        loaded: The classifier.
        run: Runs graphs plainly.

    Raises:
        PreconditionError: They differ by more than rounding and curvature explain.
    """
    classifier, kind = loaded.classifier, prepared.kind
    first = tuple(array[:1] for array in rows)
    outputs = [output[:1] for output in prepared.origin.expected]
    logits = partial(_logits, run=run, target=int(rows[1][0]), count=loaded.found.rows)
    if kind.name == "input_gradient":
        value, gradient = first[0], outputs[0]
        error = gradient_error(lambda inputs: logits(classifier.graph, (inputs,)), value, gradient)
    else:
        tail = _behind(classifier, classifier.tensors.get(kind.layer, kind.layer))
        value, gradient = outputs[0], outputs[1]
        error = gradient_error(lambda layer: logits(tail, (np.repeat(first[0], len(layer), 0), layer)), value, gradient)
    if not error <= ALLOWED:
        raise PreconditionError(
            f"The model's gradient is not what small changes do to its logits: it is off by {error:.0%} of its size. "
            "It is not served."
        )


def _logits(graph: Graph, rows: tuple[Array, ...], run: Run, target: int, count: int | None) -> Array:
    """The target's logit for each row, (n,), some rows at a time if the graph takes no more."""
    if count is None:
        return run(graph, rows)[0][:, target]
    parts = [
        run(graph, tuple(np.repeat(array[i : i + 1], count, 0) for array in rows))[0][:1, target]
        for i in range(len(rows[0]))
    ]
    return np.concatenate(parts)


def _behind(classifier: Traceable, tensor: str) -> Graph:
    """The graph with a value as a further input, in the place of what would compute it."""
    graph = classifier.graph.copy()
    hidden = graph.unused_name("replaced")
    graph.nodes = [_without(node, tensor, hidden) for node in graph.nodes]
    # Whatever of the picture is still needed beside it comes first.
    graph.inputs[tensor] = classifier.traced.shapes[tensor]
    graph.input_dtypes[tensor] = classifier.traced.dtypes[tensor]
    return graph.pruned(graph.outputs)


def _without(node: Node, tensor: str, hidden: str) -> Node:
    return replace(node, outputs=tuple(hidden if name == tensor else name for name in node.outputs))
