"""The layers of a graph with a spatial output: the values whose positions correspond to those of the picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from xai_sidecar.backends.graph.derivative import NotDerivableError, derive
from xai_sidecar.backends.graph.graph import Graph
from xai_sidecar.backends.graph.kinds import SEED, Traceable
from xai_sidecar.backends.graph.tracing import Run, Shape
from xai_sidecar.backends.spatial.layers import Layers, SpatialLayer, find_layers, place
from xai_sidecar.backends.spatial.placement_cache import placed
from xai_sidecar.engine.work import Array


class WatchedGraph:
    """A graph some of whose values are recorded, as a `Watched`.

    Args:
        graph: The graph; it is not changed.
        run: What runs graphs.
        tensors: Names of the values by the layers' names; others are called as their layers.
        names: The layers.
    """

    def __init__(self, graph: Graph, run: Run, tensors: dict[str, str], names: Iterable[str]) -> None:
        self._graph = graph
        self._run = run
        self._tensors = {name: tensors.get(name, name) for name in names}
        self._parts: dict[str | None, Graph] = {}

    def run(self, inputs: Array, until: str | None = None) -> dict[str, Array]:
        """The outputs of all layers, or of one; see `Watched.run`."""
        wanted = self._tensors if until is None else {until: self._tensors[until]}
        if until not in self._parts:
            self._parts[until] = self._graph.pruned(wanted.values())
        outputs = self._run(self._parts[until], (inputs,))
        return dict(zip(wanted, (np.asarray(output, np.float32) for output in outputs), strict=True))


def spatial_layers(
    classifier: Traceable,
    example: Array,
    size: tuple[int, int],
    layout: str,
    run: Run,
    cache: Path | None = None,
    version: str = "",
) -> Layers:
    """The layers of a graph: each value on the way to the logits that lies on the picture, by its name.

    Args:
        classifier: The graph.
        example: One input as the net takes it, (1, …) float32.
        size: Rows and columns of the input.
        layout: "nchw" or "nhwc", the axes of the input.
        run: What runs graphs.
        cache: Folder in which it is kept where they lie, for the next start; None for none.
        version: Of the graph, for that.
    """
    graph, traced = classifier.graph, classifier.traced
    named = {tensor: name for name, tensor in classifier.tensors.items()}
    flowing = graph.after([classifier.input]) & graph.before([classifier.logits])
    rows = traced.shapes[classifier.input][0]
    calls = []
    for node in graph.nodes:
        for tensor in node.outputs:
            shape = traced.shapes.get(tensor, ())
            if tensor in flowing and _has_rows(shape, rows) and traced.dtypes[tensor].kind == "f":
                calls.append((named.get(tensor, tensor), (1, *(axis or 0 for axis in shape[1:]))))
    watch = partial(WatchedGraph, graph, run, dict(classifier.tensors))
    layers = find_layers(calls, size, layout)
    return placed(cache, (version, example.shape), layers, lambda all_: place(watch, all_, example, layout))


def layers_with_gradient(classifier: Traceable, run: Run, layers: Sequence[SpatialLayer], examples: Array) -> list[str]:
    """Names of the layers by whose output, at the positions of the picture, the logits have a gradient; see `Alive`."""
    tensors = {layer.name: classifier.tensors.get(layer.name, layer.name) for layer in layers}
    shape = len(examples), classifier.traced.shapes[classifier.logits][1] or 0
    # A mix of the logits that no symmetry of theirs is likely to cancel, as their plain sum might be.
    mix = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    gradients: Sequence[Array | None]
    try:
        gradients = _gradients(classifier, run, list(tensors.values()), (examples, mix))
    except NotDerivableError:  # of some, perhaps not of all
        gradients = [_gradient(classifier, run, tensor, (examples, mix)) for tensor in tensors.values()]
    found = zip(layers, gradients, strict=True)
    return [layer.name for layer, gradient in found if gradient is not None and np.any(layer.to_nchw(gradient))]


def _has_rows(shape: Shape, rows: int | None) -> bool:
    """Whether a value's first axis is the batch, and no other is. Of more than one fixed row it is not asked."""
    return bool(shape) and rows in (None, 1) and shape[0] == rows and None not in shape[1:]


def _gradients(classifier: Traceable, run: Run, tensors: Sequence[str], rows: tuple[Array, ...]) -> Sequence[Array]:
    derived, names = derive(classifier.graph, classifier.traced, classifier.logits, SEED, tensors)
    return run(derived.pruned(names), rows)


def _gradient(classifier: Traceable, run: Run, tensor: str, rows: tuple[Array, ...]) -> Array | None:
    try:
        return _gradients(classifier, run, [tensor], rows)[0]
    except NotDerivableError:
        return None
