"""The graph of each kind of work; see the table of `Backend.run`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from xai_sidecar.backends.graph.derivative import NotDerivableError, derive, without_rule
from xai_sidecar.backends.graph.features import features_graph
from xai_sidecar.backends.graph.graph import Graph, counted
from xai_sidecar.backends.graph.rectifiers import find_rectifiers
from xai_sidecar.backends.graph.rules.relu_rules import CHOOSABLE, CHOSEN, FLOOR
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
        For a kind with a gradient, a graph with a further input, `SEED`, in the place of the targets. The graph of an
        input gradient may be the same for all ReLU rules; then it has the inputs `FLOOR` and `THRESHOLD`, too.

    Raises:
        PreconditionError: This model does not support the kind; the message says why.
    """
    if kind.name == Forward.kind.name:
        return classifier.graph
    if kind.name == Features.kind.name:
        return features_graph(classifier.graph, classifier.traced)
    if kind.name == "input_gradient":
        choosable = _choosable(classifier)
        rectifiers = choosable or (find_rectifiers(classifier.graph) if kind.relu_rule else ())
        derived, names = _derived(classifier, classifier.input, rectifiers, CHOSEN if choosable else kind.relu_rule)
        return derived.pruned([*names, classifier.logits])
    if kind.name == "layer_gradient":
        tensor = classifier.tensors.get(kind.layer, kind.layer)
        derived, names = _derived(classifier, tensor)
        return derived.pruned([tensor, *names, classifier.logits])
    raise ValueError(f"there is no graph for {kind}")


class KindGraphs:
    """The graphs of the kinds of work of a classifier, each made once; any thread may ask for one.

    Args:
        classifier: Gives the classifier.
    """

    def __init__(self, classifier: Callable[[], Traceable]) -> None:
        self._classifier = classifier
        self._made: dict[Kind, Graph] = {}
        self._lock = threading.Lock()

    def __call__(self, kind: Kind) -> Graph:
        """The graph of a kind, the same object for kinds that have it in common; see `graph_of`."""
        kind = replace(kind, precision="")
        with self._lock:
            plain = self._graph(replace(kind, relu_rule=""))
            return plain if not kind.relu_rule or _serves_all_rules(plain) else self._graph(kind)

    def forget(self) -> None:
        """Lets go of the graphs, whose derivatives' kernels take as much as the weights."""
        with self._lock:
            self._made.clear()

    def _graph(self, kind: Kind) -> Graph:
        if kind not in self._made:
            self._made[kind] = graph_of(kind, self._classifier())
        return self._made[kind]


def _serves_all_rules(graph: Graph) -> bool:
    """Whether the graph of an input gradient is the same for all ReLU rules."""
    return FLOOR in graph.inputs


def _derived(
    classifier: Traceable, by: str, rectifiers: Iterable[str] = (), relu_rule: str = ""
) -> tuple[Graph, list[str]]:
    graph, traced, logits = classifier.graph, classifier.traced, classifier.logits
    if missing := without_rule(graph, traced, logits, [by]):
        raise PreconditionError(f"The model's gradient cannot be made: there is no rule for {counted(missing)}.")
    try:
        return derive(graph, traced, logits, graph.unused_name(SEED), [by], rectifiers, relu_rule)
    except NotDerivableError as error:
        raise PreconditionError(f"The model's gradient cannot be made: {error}") from error


def _choosable(classifier: Traceable) -> frozenset[str]:
    """The rectifiers of a graph whose ReLU rule can be chosen by inputs; none unless it can for all of them."""
    makers = classifier.graph.makers()
    try:
        found = find_rectifiers(classifier.graph)
    except PreconditionError:
        return frozenset()
    return found if all(makers[name].kind in CHOOSABLE for name in found) else frozenset()
