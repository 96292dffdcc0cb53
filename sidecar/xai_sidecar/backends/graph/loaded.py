"""A classifier's graph as the backend uses it: loaded, its batch axis freed, traced, and its layers found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from xai_sidecar.backends.graph.freeing import free_batch
from xai_sidecar.backends.graph.graph import Graph, Node
from xai_sidecar.backends.graph.kinds import Traceable
from xai_sidecar.backends.graph.layers import layers_with_gradient, spatial_layers
from xai_sidecar.backends.graph.loading import Classifier, load_file
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.backends.graph.tracing import Run, Shape, trace
from xai_sidecar.backends.graph.version import graph_version
from xai_sidecar.backends.spatial.layers import Layers, default_layer
from xai_sidecar.engine.work import Array
from xai_sidecar.errors import ConfigError

_FIELD = "model.onnx"


@dataclass(frozen=True)
class Found:
    """What was found out about a classifier.

    Attributes:
        rows: Rows that it takes at once; None for any number.
        note: Why it takes no more; empty if it does.
        class_count: Number of logits.
        layers: Its layers.
        default_layer: The layer for explanations by default; None if there is none.
        version: Digest of it, its input and its activation.
        weights: Where it came from, in a sentence or two.
    """

    rows: int | None
    note: str
    class_count: int
    layers: Layers
    default_layer: str | None
    version: str
    weights: str


@dataclass(frozen=True)
class Loaded:
    """A classifier, ready to have its programs made.

    Attributes:
        classifier: Its graph, with the shapes of its values and the names of its layers.
        found: What was found out about it.
        from_file: Names of its constants that are as the file has them.
    """

    classifier: Traceable
    found: Found
    from_file: frozenset[str]


def load(
    source: GraphSource, probes: Array, run: Run, on_traced: Callable[[Traceable], None] = lambda classifier: None
) -> Loaded:
    """Loads a classifier.

    Args:
        source: What to load.
        probes: Some inputs as the net takes them, (n, …) float32, at least 3, all different.
        run: What runs graphs.
        on_traced: Called with the classifier before its layers are looked for.

    Raises:
        ConfigError: It is no classifier that can be served.
    """
    file = load_file(source.path, source.input, source.output, source.shape)
    _check_activation(file, source)
    try:
        freed = free_batch(file.graph, file.was_static, probes, run)
        graph, traced = trace(freed.graph, probes[:1], run, freed.rows)
    except ValueError as error:
        raise ConfigError(f"{source.path.name} cannot be run: {error}", field=_FIELD) from error
    shape = traced.shapes[graph.outputs[0]]
    graph, traced = _flattened(graph, shape, source), traced
    if graph.outputs != file.graph.outputs or len(shape) != 2:
        graph, traced = trace(graph, probes[:1], run, freed.rows)
    classifier = Traceable(graph, traced)
    on_traced(classifier)
    count = int(traced.shapes[classifier.logits][1] or 0)
    version = _version(file, source)
    size = source.height, source.width
    layers = spatial_layers(classifier, probes[:1], size, source.layout, run, source.cache, version)
    default = default_layer(layers.spatial, probes, partial(layers_with_gradient, classifier, run))
    found = Found(freed.rows, freed.note, count, layers, default, version, _weights(file))
    same = (name for name, value in graph.constants.items() if file.graph.constants.get(name) is value)
    return Loaded(classifier, found, frozenset(same))


def weights_again(source: GraphSource, version: str) -> Mapping[str, Array]:
    """The constants of a file that was loaded before.

    Raises:
        ConfigError: It is no longer what it was.
    """
    file = load_file(source.path, source.input, source.output, source.shape)
    if _version(file, source) != version:
        raise ConfigError(f"{source.path.name} is another one than at the start. Start anew.", field=_FIELD)
    return file.graph.constants


def _version(file: Classifier, source: GraphSource) -> str:
    return graph_version(file.graph, source.preparation, source.layout, source.shape)


def probe_inputs(source: GraphSource, count: int) -> Array:
    """Random inputs as the net takes them, (n, …) float32, the same in every process."""
    shape = (count, *source.shape)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _check_activation(file: Classifier, source: GraphSource) -> None:
    if file.activation and file.activation != source.activation:
        raise ConfigError(
            f"{source.path.name} ends in a {file.activation}, and model.activation is {source.activation}. Set "
            f"model.activation = {file.activation!r}.",
            field="model.activation",
        )


def _flattened(graph: Graph, shape: Shape, source: GraphSource) -> Graph:
    """The graph with logits (n, classes), from what has further axes of length 1."""
    if len(shape) == 2:
        return graph
    if len(shape) < 2 or sum(axis != 1 for axis in shape[1:]) > 1:
        axes = ", ".join("n" if axis is None else str(axis) for axis in shape)
        raise ConfigError(
            f"the output {graph.outputs[0]!r} of {source.path.name} has the shape ({axes}) where logits of shape "
            "(n, classes) were expected. Set model.onnx_output to that of the logits.",
            field="model.onnx_output",
        )
    name = graph.unused_name("logits")
    flat = replace(graph.copy(), outputs=[name])
    flat.nodes.append(Node("Flatten", (graph.outputs[0],), (name,), {"axis": 1}))
    return flat


def _weights(file: Classifier) -> str:
    if not file.activation:
        return file.source
    return f"{file.source} The {file.activation} at its end is left out: what counts are the logits before it."
