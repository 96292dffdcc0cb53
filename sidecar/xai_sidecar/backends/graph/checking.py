"""Checks a program before it serves: against the graph run plainly, and a gradient against differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xai_sidecar.backends.graph.graph import Graph, Node
from xai_sidecar.backends.graph.kinds import Traceable
from xai_sidecar.backends.graph.loaded import Loaded
from xai_sidecar.backends.graph.programs import KindProgram
from xai_sidecar.backends.graph.reference import ALLOWED, Reference, gradient_error
from xai_sidecar.engine.work import Array, Kind
from xai_sidecar.errors import PreconditionError

_LOGIT_TOLERANCE = 1e-3
"""Tolerance of a program's logits: norm of the difference over norm, row by row. Rounding makes some 1e-6."""

_GRADIENT_TOLERANCE = 2e-2
"""The same for gradients, features and layers' outputs, where rounding may switch a ReLU on or off."""


class Checker:
    """Checks programs of a classifier.

    Args:
        loaded: The classifier.
        probes: Inputs as the net takes them, (n, …) float32, as many as the largest batch size.
        run: Runs graphs plainly.
    """

    def __init__(self, loaded: Loaded, probes: Array, run: Reference) -> None:
        self._loaded = loaded
        self._probes = probes
        self._run = run

    def rows(self, kind: Kind, size: int) -> tuple[Array, ...]:
        """Input rows of a kind, with targets where it needs them."""
        inputs = self._probes[:size]
        if kind.name.endswith("gradient"):
            return inputs, np.arange(size, dtype=np.int32) % self._loaded.class_count
        return (inputs,)

    def check(self, program: KindProgram, sizes: Sequence[int]) -> None:
        """Compares a program at each of its batch sizes with the graph run plainly, row by row.

        Raises:
            PreconditionError: They differ by more than rounding explains, or a gradient is none.
        """
        kind = program.kind
        rows = self.rows(kind, max(sizes))
        expected = program.plainly(rows, self._run)
        for size in sizes:
            outputs = program(tuple(array[:size] for array in rows))
            for place, (output, right) in enumerate(zip(outputs, expected, strict=True)):
                tolerance = _LOGIT_TOLERANCE if place == len(outputs) - 1 else _GRADIENT_TOLERANCE
                _compare(output, right[:size], tolerance, f"the {kind.name} at batch size {size}")
        if kind.name.endswith("gradient") and not kind.relu_rule:
            self._check_gradient(kind, rows, expected)

    def _check_gradient(self, kind: Kind, rows: tuple[Array, ...], expected: tuple[Array, ...]) -> None:
        """Compares a gradient with central differences of the plain forward pass."""
        classifier = self._loaded.classifier
        target = int(rows[1][0])
        if kind.name == "input_gradient":
            value, gradient = rows[0][:1], expected[0][:1]
            error = gradient_error(lambda inputs: self._logits(classifier.graph, (inputs,), target), value, gradient)
        else:
            tail = _behind(classifier, classifier.tensors.get(kind.layer, kind.layer))
            value, gradient = expected[0][:1], expected[1][:1]
            error = gradient_error(
                lambda outputs: self._logits(tail, (np.repeat(rows[0][:1], len(outputs), 0), outputs), target),
                value,
                gradient,
            )
        if not error <= ALLOWED:
            raise PreconditionError(
                f"The model's gradient is not what small changes of the picture do to the logits: it is off by "
                f"{error:.0%} of its size. It is not served."
            )

    def _logits(self, graph: Graph, rows: tuple[Array, ...], target: int) -> Array:
        count = self._loaded.rows
        if count is None:
            return self._run(graph, rows)[0][:, target]
        parts = [
            self._run(graph, tuple(np.repeat(array[i : i + 1], count, 0) for array in rows))[0][:1, target]
            for i in range(len(rows[0]))
        ]
        return np.concatenate(parts)


def _behind(classifier: Traceable, tensor: str) -> Graph:
    """The graph with a value as a further input, in the place of what would compute it."""
    graph = classifier.graph.copy()
    hidden = graph.unused_name("replaced")
    graph.nodes = [_without(node, tensor, hidden) for node in graph.nodes]
    graph.inputs[tensor] = classifier.traced.shapes[tensor]
    graph.input_dtypes[tensor] = classifier.traced.dtypes[tensor]
    return graph.pruned(graph.outputs)


def _without(node: Node, tensor: str, hidden: str) -> Node:
    return replace(node, outputs=tuple(hidden if name == tensor else name for name in node.outputs))


def _compare(output: Array, expected: Array, tolerance: float, what: str) -> None:
    if output.shape != expected.shape:
        raise PreconditionError(f"{what} gave shape {output.shape}, not {expected.shape}.")
    flat, right = (array.reshape(len(array), -1).astype(np.float64) for array in (output, expected))
    difference, allowed = np.linalg.norm(flat - right, axis=1), tolerance * np.linalg.norm(right, axis=1)
    # Not "difference > allowed": NaN must fail, too.
    if not (difference <= allowed).all():
        row = int(np.argmax(~(difference <= allowed)))
        raise PreconditionError(
            f"{what} differs from the graph run plainly by {difference[row] / max(allowed[row], 1e-30):.3g} times what "
            f"rounding explains, in row {row}."
        )
