"""The graph of each kind of work; see the table of `Backend.run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xai_sidecar.backends.graph.derivative import NotDerivableError, derive, without_rule
from xai_sidecar.backends.graph.features import features_graph
from xai_sidecar.backends.graph.graph import Graph, counted
from xai_sidecar.backends.graph.rectifiers import find_rectifiers
from xai_sidecar.backends.graph.tracing import Traced
from xai_sidecar.engine.work import Features, Forward, Kind
from xai_sidecar.errors import PreconditionError

SEED = "seed"
"""Name of the input with the weights of the logits whose sum is derived, (n, classes)."""


@dataclass(frozen=True)
class Traceable:
    """A classifier's graph, with what was found of it.

    Attributes:
        graph: With one input and one output, the logits, (n, classes).
        traced: The shapes of its values.
        tensors: The values that are layers' outputs, by the layers' names.
    """

    graph: Graph
    traced: Traced
    tensors: Mapping[str, str] = field(default_factory=dict)

    @property
    def input(self) -> str:
        """Name of the input."""
        return next(iter(self.graph.inputs))

    @property
    def logits(self) -> str:
        """Name of the logits."""
        return self.graph.outputs[0]


def graph_of(kind: Kind, classifier: Traceable) -> Graph:
    """The graph that does a kind of work. The logits are its last output.

    Args:
        kind: The kind. Of those with masks or scores it is the kind whose passes they need.
        classifier: The classifier.

    Returns:
        For a kind with a gradient, a graph with a further input, `SEED`, in the place of the targets.

    Raises:
        PreconditionError: This model does not support the kind; the message says why.
    """
    if kind.name == Forward.kind.name:
        return classifier.graph
    if kind.name == Features.kind.name:
        return features_graph(classifier.graph, classifier.traced)
    if kind.name == "input_gradient":
        derived, names = _derived(classifier, classifier.input, kind.relu_rule)
        return derived.pruned([*names, classifier.logits])
    if kind.name == "layer_gradient":
        tensor = classifier.tensors.get(kind.layer, kind.layer)
        derived, names = _derived(classifier, tensor)
        return derived.pruned([tensor, *names, classifier.logits])
    raise ValueError(f"there is no graph for {kind}")


def _derived(classifier: Traceable, by: str, relu_rule: str = "") -> tuple[Graph, list[str]]:
    graph, traced, logits = classifier.graph, classifier.traced, classifier.logits
    if missing := without_rule(graph, traced, logits, [by]):
        raise PreconditionError(f"The model's gradient cannot be made: there is no rule for {counted(missing)}.")
    rectifiers = find_rectifiers(graph) if relu_rule else ()
    try:
        return derive(graph, traced, logits, graph.unused_name(SEED), [by], rectifiers, relu_rule)
    except NotDerivableError as error:
        raise PreconditionError(f"The model's gradient cannot be made: {error}") from error
