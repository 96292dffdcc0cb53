"""Derivatives of a graph, by reverse mode: the graph goes on with operations that compute them.

There is one rule for each operator; see `rules`. A rule knows nothing of the others: it turns the gradient by a node's
outputs into the gradients by its inputs. Where a value is used several times, its gradients add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Graph, Node
from xai_sidecar.backends.graph.rules import RULES, NotDerivableError
from xai_sidecar.backends.graph.rules.relu_rules import CHOSEN, FLOOR, THRESHOLD
from xai_sidecar.backends.graph.tracing import Traced

__all__ = ["NotDerivableError", "derive", "without_rule"]


def derive(
    graph: Graph,
    traced: Traced,
    logits: str,
    seed: str,
    by: Sequence[str],
    rectifiers: Iterable[str] = (),
    relu_rule: str = "",
) -> tuple[Graph, list[str]]:
    """Adds the gradients of a weighted sum of the logits to a graph.

    Args:
        graph: The graph; it is not changed.
        traced: The shapes and types of its values.
        logits: Name of the logits, (n, classes).
        seed: Name of a new input, the weights of the sum, (n, classes). With a 1 at a class and 0 elsewhere in each
            row, the gradients are those of that class's logit, row by row.
        by: Names of the values that are derived by.
        rectifiers: Names of the outputs of the rectifiers that follow the ReLU rule.
        relu_rule: As of `engine.work.Kind`; or `CHOSEN`, and the graph gets the inputs `FLOOR` and `THRESHOLD`.

    Returns:
        The graph with its gradients, and their names, each of the shape of its value.

    Raises:
        NotDerivableError: An operator between has no rule, or no path leads there.
    """
    active = _active(graph, traced, logits, by)
    derived = graph.copy()
    derived.inputs[seed] = traced.shapes[logits]
    derived.input_dtypes[seed] = traced.dtypes[logits]
    if relu_rule == CHOSEN:
        derived.inputs |= dict.fromkeys((FLOOR, THRESHOLD), (traced.shapes[logits][0], 1))
        derived.input_dtypes |= dict.fromkeys((FLOOR, THRESHOLD), traced.dtypes[logits])
    emit = Emitter(derived, traced, traced.dtypes[logits], active, rectifiers, relu_rule)
    parts: dict[str, list[str]] = {logits: [seed]}
    for node in reversed(graph.nodes):
        outputs = [_total(parts, name, emit) for name in node.outputs]
        if any(outputs) and any(name in active for name in node.inputs):
            for name, gradient in zip(node.inputs, _by_inputs(node, outputs, emit), strict=False):
                if gradient and name in active:
                    parts.setdefault(name, []).append(gradient)
    names = [_total(parts, name, emit) for name in by]
    for name, gradient in zip(by, names, strict=True):
        if gradient is None:
            raise NotDerivableError(f"The logits do not depend on {name!r} in a way that has a derivative.")
    return derived, [name for name in names if name]


def without_rule(graph: Graph, traced: Traced, logits: str, by: Sequence[str]) -> list[str]:
    """The operators on the way from some values to the logits that have no rule, each as often as it occurs."""
    active = _active(graph, traced, logits, by)
    return [
        node.kind
        for node in graph.nodes
        if node.kind not in RULES and any(name in active for name in node.outputs) and active & set(node.inputs)
    ]


def _active(graph: Graph, traced: Traced, logits: str, by: Sequence[str]) -> set[str]:
    """The values between some values and the logits that can have a gradient: integers, such as shapes, have none."""
    between = graph.after(by) & graph.before([logits])
    return {name for name in between if traced.dtypes[name].kind == "f"}


def _total(parts: dict[str, list[str]], name: str, emit: Emitter) -> str | None:
    """The gradient by a value: the sum of those by its uses; None if there are none."""
    gradients = parts.get(name)
    if not name or not gradients:
        return None
    if len(gradients) > 1:
        gradients[:] = emit.joined(gradients, name)
    while len(gradients) > 1:
        gradients[:2] = [emit.add(*gradients[:2])]
    return gradients[0]


def _by_inputs(node: Node, outputs: Sequence[str | None], emit: Emitter) -> Sequence[str | None]:
    rule = RULES.get(node.kind)
    if rule is None:
        raise NotDerivableError.of(node, "has no derivative here.")
    emit.dtype = emit.type(next(name for name, gradient in zip(node.outputs, outputs, strict=True) if gradient))
    gradients = rule(node, outputs, emit)
    last = max(place for place, name in enumerate(node.inputs) if emit.is_active(name))
    if last >= len(gradients):
        raise NotDerivableError.of(
            node, f"has no derivative by its input {last}, {node.inputs[last]!r}, which depends on the picture."
        )
    return gradients
