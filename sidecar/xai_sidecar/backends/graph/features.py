"""The features of a graph: what goes into its last dense layer, from which the logits are made."""

from __future__ import annotations

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Graph, Node
from xai_sidecar.backends.graph.tracing import Traced
from xai_sidecar.errors import PreconditionError

_PASSING = frozenset(
    {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Dropout", "Add", "Sub", "Mul", "Div", "Neg"}
)
"""Operators that may stand behind the last layer: a bias, a scaling, a change of shape."""

_AVERAGING = frozenset({"GlobalAveragePool", "ReduceMean", "AveragePool", "Relu", "Clip"})
"""Those that stand behind a convolution which makes the logits at each position."""

_LAYERS = frozenset({"Gemm", "MatMul", "Conv"})


def features_graph(graph: Graph, traced: Traced) -> Graph:
    """A graph that computes the features of inputs, (n, features), and their logits.

    They are the input of the last dense layer; or, if a convolution makes the logits as in SqueezeNet, the input of
    that convolution averaged over positions.

    Args:
        graph: The graph, whose one output is the logits.
        traced: The shapes of its values.

    Raises:
        PreconditionError: It has no features that can be told.
    """
    logits = graph.outputs[0]
    last = _last_layer(graph, logits)
    if last is None or traced.shapes[last.outputs[0]][1] != traced.shapes[logits][1]:
        raise PreconditionError(
            "This model cannot have an OoD net: no dense layer or convolution was found to make its logits."
        )
    features = last.inputs[0]
    featured = graph.copy()
    if last.kind == "Conv":
        emit = Emitter(featured, traced, traced.dtypes[features])
        features = emit.mean(features, range(2, emit.rank(last.inputs[0])), keepdims=False)
    elif len(traced.shapes[features]) != 2:
        raise PreconditionError(
            "This model cannot have an OoD net: its last dense layer takes numbers of the shape "
            f"{traced.shapes[features]} where one list for each picture was expected."
        )
    return featured.pruned([features, logits])


def _last_layer(graph: Graph, logits: str) -> Node | None:
    """The last layer with weights on the one way that leads to the logits; None if there is no such."""
    makers = graph.makers()
    flowing = graph.after(graph.inputs)
    name = logits
    while node := makers.get(name):
        inputs = [each for each in node.inputs if each in flowing]
        if len(inputs) != 1 or inputs[0] != node.inputs[0]:
            return None
        if node.kind in _LAYERS:
            return node
        if node.kind not in _PASSING | _AVERAGING:
            return None
        name = inputs[0]
    return None
