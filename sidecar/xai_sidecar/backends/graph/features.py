"""The features of a graph: what goes into its last dense layer, from which the logits are made."""

from __future__ import annotations

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Graph, Node
from xai_sidecar.backends.graph.tracing import Shape, Traced
from xai_sidecar.errors import PreconditionError

_PASSING = frozenset(
    {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast", "Dropout", "Neg", "Div"}
    | {"BatchNormalization"}
)
"""Operators that may stand behind the last layer: a scaling, a change of shape. The value is their first input."""

_COMMUTING = frozenset({"Add", "Sub", "Mul"})
"""Those of a bias or a scaling, which may be written before or after the value."""

_AVERAGING = frozenset({"GlobalAveragePool", "ReduceMean", "ReduceSum", "AveragePool", "Relu", "Clip"})
"""Those that stand behind a layer which makes the logits at each position."""

_LAYERS = frozenset({"Gemm", "MatMul", "Conv"})

_REFUSED = "This model cannot have an OoD net: "


def features_graph(graph: Graph, traced: Traced) -> Graph:
    """A graph that computes the features of inputs, (n, features), and their logits.

    They are the input of the last dense layer; or, if a layer makes the logits at each position, as a convolution in
    SqueezeNet, the input of that layer averaged over positions.

    Args:
        graph: The graph, whose one output is the logits.
        traced: The shapes of its values.

    Raises:
        PreconditionError: It has no features that can be told.
    """
    logits = graph.outputs[0]
    last = _last_layer(graph, traced, logits)
    if last is None:
        raise PreconditionError(f"{_REFUSED}no dense layer or convolution was found to make its logits.")
    value = last.inputs[0]
    shape, made = traced.shapes[value], traced.shapes[last.outputs[0]]
    classes = made[1] if last.kind == "Conv" else made[-1]
    if shape[0] != traced.shapes[logits][0] or classes != traced.shapes[logits][1]:
        raise PreconditionError(
            f"{_REFUSED}its last layer, which makes {last.outputs[0]!r}, takes numbers of the shape {_text(shape)} and "
            f"makes {_text(made)}, where for each picture a number for each class was expected."
        )
    featured = graph.copy()
    emit = Emitter(featured, traced, traced.dtypes[value])
    positions = range(2, len(shape)) if last.kind == "Conv" else range(1, len(shape) - 1)
    return featured.pruned([emit.mean(value, positions, keepdims=False), logits])


def _last_layer(graph: Graph, traced: Traced, logits: str) -> Node | None:
    """The last layer with weights on the one way that leads to the logits; None if there is no such."""
    makers = graph.makers()
    flowing = {name for name in graph.after(graph.inputs) if traced.dtypes[name].kind == "f"}
    name = logits
    while node := makers.get(name):
        inputs = [each for each in node.inputs if each in flowing]
        if len(inputs) != 1 or (inputs[0] != node.inputs[0] and node.kind not in _COMMUTING):
            return None
        if node.kind in _LAYERS:
            return node
        if node.kind not in _PASSING | _COMMUTING | _AVERAGING:
            return None
        name = inputs[0]
    return None


def _text(shape: Shape) -> str:
    return f"({', '.join('n' if axis is None else str(axis) for axis in shape)})"
