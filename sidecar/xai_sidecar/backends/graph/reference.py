"""What a graph has to give: run by ONNX Runtime as it stands, and derivatives by differences."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from xai_sidecar.backends.graph.graph import Graph, write
from xai_sidecar.backends.graph.per_graph import PerGraph
from xai_sidecar.backends.runtimes.onnxruntime import runtime, session_options
from xai_sidecar.backends.runtimes.program import one_line
from xai_sidecar.engine.work import Array

_LARGE = 1024
"""Bytes from which on a constant is not written into a session's model; shapes and the like must be."""

_SHARED: dict[Any, int] = {np.dtype(np.float32): 1, np.dtype(np.float64): 11}
"""Types of such constants, with ONNX's numbers for them."""

_DIRECTIONS = 4

_LENGTHS = (1e-3, 1e-2, 1e-1, 1e-4)
"""Lengths of the steps, over the values' own root mean square. A short one stays on one side of more ReLUs, a long one
drowns less in rounding; which of them does depends on the net. The first one does for most."""

_ROUNDING = 2e-6
"""Rounding of a logit, over its size."""

_MEANINGFUL = 0.1
"""Rounding of a derivative, over the gradient's norm, up to which it is judged."""

ALLOWED = 0.1
"""Error allowed to a derivative along a random direction, over the gradient's norm; by chance two unrelated gradients
are that close for one direction in 18, and thus for all four once in 100,000 times."""


class Reference:
    """Runs graphs unoptimised, one operator after the other, in ONNX Runtime on the CPU; a `Run`.

    Args:
        turn: Entered for each run, as a lock that keeps it from running while something is timed.
    """

    def __init__(self, turn: AbstractContextManager[Any] | None = None) -> None:
        self._session = PerGraph(_session)
        self._turn = turn or nullcontext()

    def __call__(self, graph: Graph, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Runs a graph; it must not be changed afterwards.

        Raises:
            ValueError: It cannot be loaded or run; the message is one line.
        """
        try:
            with self._turn:
                outputs = self._session(graph).run(None, dict(zip(graph.inputs, rows, strict=False)))
        except Exception as error:  # ONNX Runtime's have no common base
            raise ValueError(one_line(error)) from error
        return tuple(np.asarray(output) for output in outputs)

    def forget(self) -> None:
        """Lets go of the graphs that are loaded: for a ResNet-50, hundreds of MB."""
        self._session.forget()


def _session(graph: Graph) -> Any:
    """A session that has the graph's own weights: to write and read them would take most of the time that it takes."""
    # ONNX Runtime drops what no node takes, and then refuses to be given it.
    taken = {name for node in graph.nodes for name in node.inputs} | set(graph.outputs)
    large = {
        name: value
        for name, value in graph.constants.items()
        if name in taken and value.nbytes > _LARGE and value.dtype in _SHARED
    }
    model = write(replace(graph.copy(), constants={n: v for n, v in graph.constants.items() if n not in large}))
    for name, value in large.items():
        tensor = model.graph.initializer.add(
            name=name,
            data_type=_SHARED[value.dtype],
            dims=value.shape,
            data_location=1,  # external
        )
        tensor.external_data.add(key="location", value="weights")
    options = session_options()
    options.graph_optimization_level = runtime().GraphOptimizationLevel.ORT_DISABLE_ALL
    values = [runtime().OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value)) for value in large.values()]
    options.add_external_initializers(list(large), values)
    return runtime().InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def gradient_error(logit: Callable[[Array], Array], value: Array, gradient: Array, seed: int = 0) -> float:
    """How far a gradient is from central differences along random directions.

    Args:
        logit: Computes the logit of each of some values, (m, …) → (m,).
        value: Where the gradient was taken, (1, …).
        gradient: It, (1, …).
        seed: Seed of the directions.

    Returns:
        The largest error of a derivative along a direction, over the gradient's norm, at the first length of a step at
        which that is at most `ALLOWED`, else at the best one; 0 where the gradient is too small against the logit for
        rounding to leave anything of it.
    """
    norm = float(np.linalg.norm(gradient.astype(np.float64)))
    scale = float(np.sqrt(np.mean(np.square(value.astype(np.float64)))))
    if not 0 < norm < np.inf or not scale:
        return 0.0
    directions = np.random.default_rng(seed).standard_normal((_DIRECTIONS, *value.shape[1:])).astype(np.float32)
    # What a ReLU has set to zero stays zero: a maximum over such ties has no derivative.
    directions *= value != 0
    expected = np.tensordot(directions.astype(np.float64), gradient[0].astype(np.float64), value.ndim - 1)
    size = float(np.abs(logit(value)).max())
    least = np.inf
    for length in (np.float32(share * scale) for share in _LENGTHS):
        rounding = _ROUNDING * size / (2 * float(length)) / norm
        if rounding > _MEANINGFUL:
            continue
        moved = np.concatenate([value + length * directions, value - length * directions])
        up, down = np.split(logit(moved).astype(np.float64), 2)
        error = float(np.abs((up - down) / (2 * float(length)) - expected).max()) / norm
        least = min(least, max(0.0, error - 3 * rounding))
        if least <= ALLOWED:
            break
    return 0.0 if least == np.inf else least
