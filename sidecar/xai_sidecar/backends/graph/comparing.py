"""What programs of a kind of work are compared on, and with what, and how far they may be off."""

from __future__ import annotations

import numpy as np

from xai_sidecar.backends.graph.graph import Graph
from xai_sidecar.backends.graph.rules.relu_rules import rule_rows
from xai_sidecar.backends.graph.tracing import Run
from xai_sidecar.backends.runtimes.agreement import GRADIENT_TOLERANCE, LOGIT_TOLERANCE
from xai_sidecar.engine.work import Array, Kind

_REDUCED_TOLERANCE = 0.1
"""How far a row may be off in a reduced precision, which makes some 1e-2: this tells it from a wrong program. What it
does to maps is measured where they are made."""


def graph_rows(kind: Kind, rows: tuple[Array, ...], class_count: int) -> tuple[Array, ...]:
    """The arrays that a graph of a kind takes: the inputs, the weights of the logits for the targets, the ReLU rule."""
    if not kind.name.endswith("gradient"):
        return rows[:1]
    chosen = np.zeros((len(rows[1]), class_count), np.float32)
    chosen[np.arange(len(rows[1])), rows[1]] = 1
    # A graph that is not for all ReLU rules ignores what comes after the weights.
    rules = rule_rows(kind.relu_rule, len(chosen)) if kind.name == "input_gradient" else ()
    return rows[0], chosen, *rules


def compared_rows(kind: Kind, rows: tuple[Array, ...], class_count: int, count: int | None) -> tuple[Array, ...]:
    """The arrays of a graph on which its programs are compared with it.

    Args:
        kind: The kind.
        rows: Inputs of the kind.
        class_count: Number of logits.
        count: Rows that the graph takes at once; None for any number.
    """
    fed = graph_rows(kind, rows, class_count)
    if count and count > 1:  # in a batch that cannot be changed, rows may have to do with each other
        return tuple(np.repeat(array[:1], count, axis=0) for array in fed)
    return fed


def tolerances(kind: Kind, count: int) -> list[float]:
    """How far a row may be off, for each of the outputs of a kind."""
    if kind.precision:
        return [_REDUCED_TOLERANCE] * count
    return [GRADIENT_TOLERANCE] * (count - 1) + [LOGIT_TOLERANCE]


def plain_outputs(graph: Graph, fed: tuple[Array, ...], run: Run, count: int = 1) -> tuple[Array, ...]:
    """The outputs of a graph as it stands, for each row alone.

    Args:
        graph: The graph.
        fed: What it takes, (n, …) each.
        run: Runs graphs plainly.
        count: Rows that it takes at once; each row is repeated as often.
    """
    alone = (tuple(np.repeat(array[i : i + 1], count, 0) for array in fed) for i in range(len(fed[0])))
    parts = [run(graph, row) for row in alone]
    return tuple(np.concatenate([output[:1] for output in column]) for column in zip(*parts, strict=True))
