"""What a graph has to give: run by ONNX Runtime as it stands, and derivatives by differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from xai_sidecar.backends.graph.graph import Graph, write
from xai_sidecar.backends.runtimes.onnxruntime import runtime
from xai_sidecar.backends.runtimes.program import one_line
from xai_sidecar.engine.work import Array

_KEPT = 8
"""Graphs that stay loaded, since the same one is run several times in a row."""

_DIRECTIONS = 3

_STEPS = (1e-2, 1e-3)
"""Lengths of the steps, as the change of the logit that is expected of them over its size. The shorter one stays on
one side of more ReLUs, the longer one drowns less in rounding."""

ALLOWED = 0.05
"""Error allowed to a derivative along a random direction, over the gradient's norm; by chance two unrelated gradients
are that close for one direction in 25."""


class Reference:
    """Runs graphs unoptimised, one operator after the other, in ONNX Runtime on the CPU; a `Run`."""

    def __init__(self) -> None:
        self._sessions: dict[int, tuple[Graph, object]] = {}

    def __call__(self, graph: Graph, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Runs a graph; it must not be changed afterwards.

        Raises:
            ValueError: It cannot be loaded or run; the message is one line.
        """
        try:
            session = self._session(graph)
            outputs = session.run(None, dict(zip(graph.inputs, rows, strict=False)))  # type: ignore[attr-defined]
        except Exception as error:  # ONNX Runtime's have no common base
            raise ValueError(one_line(error)) from error
        return tuple(np.asarray(output) for output in outputs)

    def _session(self, graph: Graph) -> object:
        known = self._sessions.get(id(graph))
        if known is None:
            options = runtime().SessionOptions()
            options.log_severity_level = 4
            options.graph_optimization_level = runtime().GraphOptimizationLevel.ORT_DISABLE_ALL
            model = write(graph).SerializeToString()
            # The graph is kept with it, so that its id is not used for another one.
            known = graph, runtime().InferenceSession(model, options, providers=["CPUExecutionProvider"])
            self._sessions[id(graph)] = known
            while len(self._sessions) > _KEPT:
                del self._sessions[next(iter(self._sessions))]
        return known[1]


def gradient_error(logit: Callable[[Array], Array], value: Array, gradient: Array, seed: int = 0) -> float:
    """How far a gradient is from central differences along random directions.

    Args:
        logit: Computes the logit of each of some values, (m, …) → (m,).
        value: Where the gradient was taken, (1, …).
        gradient: It, (1, …).
        seed: Seed of the directions.

    Returns:
        The largest error of a derivative along a direction, over the gradient's norm, where the better of two lengths
        of a step counts. A right gradient's is some thousandths, `ALLOWED` at the most.
    """
    norm = float(np.linalg.norm(gradient.astype(np.float64)))
    if not norm or not np.isfinite(norm):
        return 0.0
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((_DIRECTIONS, *value.shape[1:])).astype(np.float32)
    expected = np.tensordot(directions.astype(np.float64), gradient[0].astype(np.float64), value.ndim - 1)
    size = max(1e-3, float(np.abs(logit(value)).max()))
    errors = []
    for step in _STEPS:
        length = np.float32(step * size / norm)
        moved = np.concatenate([value + length * directions, value - length * directions])
        up, down = np.split(logit(moved).astype(np.float64), 2)
        errors.append(np.abs((up - down) / (2 * float(length)) - expected) / norm)
    return float(np.min(errors, axis=0).max())
