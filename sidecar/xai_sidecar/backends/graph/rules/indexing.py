"""Rules of operators that take or put elements by indices."""

from __future__ import annotations

import numpy as np

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.registry import Gradients, NotDerivableError, rule
from xai_sidecar.engine.work import Array

_FEW = 3
"""How often an element may be taken so that its gradients are added one by one; beyond, a matrix adds them."""


def by_places(gradient: str, rank: int, axis: int, places: Array, length: int, emit: Emitter) -> str:
    """The gradient of taking elements along an axis, in any order, any number of times.

    Args:
        gradient: The gradient by what was taken.
        rank: Its number of axes.
        axis: The axis.
        places: What was taken: indices of the input along the axis.
        length: The input's length along the axis.
        emit: Writes.
    """
    if not np.any(np.diff(places) != 1):
        before = int(places[0]) if len(places) else 0
        return padded(gradient, rank, axis, (before, length - before - len(places)), emit)
    counts = np.bincount(places, minlength=length)
    if counts.max() > _FEW:
        return along(gradient, rank, axis, (np.arange(length)[:, None] == places).astype(emit.dtype), emit)
    # For each element, where it went: the first time, the second time, …; to a zero at the end where it did not go.
    went = np.full((counts.max(), length), len(places))
    for index, place in enumerate(places):
        went[np.argmax(went[:, place]), place] = index
    if (counts < counts.max()).any():
        gradient = padded(gradient, rank, axis, (0, 1), emit)
    first, *others = (emit.op("Gather", gradient, emit.integers(row.tolist()), axis=axis) for row in went)
    for other in others:
        first = emit.add(first, other)
    return first


def padded(value: str, rank: int, axis: int, by: tuple[int, int], emit: Emitter) -> str:
    """A value with zeros before and after along one axis."""
    before, after = ([number if place == axis else 0 for place in range(rank)] for number in by)
    return emit.padded(value, before, after)


def along(value: str, rank: int, axis: int, matrix: Array, emit: Emitter) -> str:
    """A matrix times a value along one axis: (new, old) · (…, old, …) → (…, new, …)."""
    if axis == rank - 1:
        return emit.op("MatMul", value, emit.constant(matrix.T))
    if axis == rank - 2:
        return emit.op("MatMul", emit.constant(matrix), value)
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]
    return emit.transpose(along(emit.transpose(value, order), rank, rank - 1, matrix, emit), order)


@rule("Gather")
def gather(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """What was taken from a place goes back there; what was taken several times is summed."""
    shape = emit.shape(node.inputs[0])
    axis = node.attributes.get("axis", 0) % len(shape)
    indices, length = emit.value(node.inputs[1]), shape[axis]
    if indices is None:
        return [_by_computed_places(node, gradient, axis, emit)]
    if length is None:
        raise NotDerivableError.of(node, "takes elements along the axis that goes by the batch size (axis).")
    if indices.ndim == 0:
        gradient = emit.unsqueezed(gradient, [axis])
    elif indices.ndim > 1:
        if shape.count(None) > 1:
            raise NotDerivableError.of(node, "has an input several of whose axes go by the batch size.")
        gradient = emit.reshaped(gradient, (*shape[:axis], indices.size, *shape[axis + 1 :]))
    return [by_places(gradient, len(shape), axis, indices.astype(np.int64).reshape(-1) % length, length, emit)]


def _by_computed_places(node: Node, gradient: str, axis: int, emit: Emitter) -> str:
    """The gradient of taking elements by indices that are computed on the way; the axis is put first for that."""
    _needs_adding(node, emit)
    rank, more = emit.rank(node.inputs[0]), emit.rank(node.inputs[1])
    taken = range(axis, axis + more)
    gradient = emit.transpose(gradient, [*taken, *range(axis), *range(axis + more, rank - 1 + more)])
    order = [axis, *range(axis), *range(axis + 1, rank)]
    zeros = emit.transpose(emit.zeros_like(node.inputs[0]), order)
    places = emit.unsqueezed(node.inputs[1], [more])
    summed = emit.op("ScatterND", zeros, places, gradient, reduction="add")
    return emit.transpose(summed, np.argsort(order).tolist())


@rule("OneHot")
def one_hot(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Small changes of the indices change nothing; there is no rule for the two values."""
    return [None, None]


@rule("GatherElements")
def gather_elements(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Gradients are added where elements were taken."""
    _needs_adding(node, emit)
    axis = node.attributes.get("axis", 0)
    zeros = emit.zeros_like(node.inputs[0])
    return [emit.op("ScatterElements", zeros, node.inputs[1], gradient, axis=axis, reduction="add")]


@rule("GatherND")
def gather_nd(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Gradients are added where elements were taken."""
    _needs_adding(node, emit)
    if node.attributes.get("batch_dims", 0):
        raise NotDerivableError.of(node, "takes elements row by row (batch_dims).")
    return [emit.op("ScatterND", emit.zeros_like(node.inputs[0]), node.inputs[1], gradient, reduction="add")]


@rule("ScatterElements")
def scatter_elements(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """What was replaced has no gradient; what replaced it has the gradient of its place."""
    axis = node.attributes.get("axis", 0)
    by_updates = emit.op("GatherElements", gradient, node.inputs[1], axis=axis)
    if _adds(node):
        return [gradient, None, by_updates]
    zeros = emit.zeros_like(node.inputs[2])
    return [emit.op("ScatterElements", gradient, node.inputs[1], zeros, axis=axis), None, by_updates]


@rule("ScatterND")
def scatter_nd(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """What was replaced has no gradient; what replaced it has the gradient of its place."""
    by_updates = emit.op("GatherND", gradient, node.inputs[1])
    if _adds(node):
        return [gradient, None, by_updates]
    zeros = emit.zeros_like(node.inputs[2])
    return [emit.op("ScatterND", gradient, node.inputs[1], zeros), None, by_updates]


def _adds(node: Node) -> bool:
    """Whether elements are added to what is there rather than put in its place."""
    reduction = node.attributes.get("reduction", "none")
    if reduction not in ("none", "add"):
        raise NotDerivableError.of(
            node, f"combines elements in a way that has no derivative here (reduction {reduction})."
        )
    return bool(reduction == "add")


def _needs_adding(node: Node, emit: Emitter) -> None:
    """Refuses operators before version 16, in which elements could not be added by indices."""
    if emit.opset < 16:
        raise NotDerivableError.of(node, f"has a derivative from opset 16 on only; this is {emit.opset}.")
