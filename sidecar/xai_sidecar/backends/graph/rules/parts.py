"""Rules of operators that put values together along an axis, and of those that take parts of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.indexing import by_places, padded
from xai_sidecar.backends.graph.rules.registry import Gradients, NotDerivableError, rule, rule_of_outputs

_END = int(np.iinfo(np.int64).max)
_FAR = int(np.iinfo(np.int32).max)
"""Bounds of a slice from here on mean "to the end"."""


@rule("Concat")
def concat(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Each input gets its part of the gradient."""
    axis = node.attributes["axis"] % emit.rank(node.outputs[0])
    lengths = [emit.shape(name)[axis] for name in node.inputs]
    if lengths.count(None) > 1:
        raise NotDerivableError.of(node, "joins several values along the axis that goes by the batch size (axis).")
    return [
        emit.sliced(gradient, axis, *_bounds(lengths, place)) if emit.is_active(name) else None
        for place, name in enumerate(node.inputs)
    ]


def _bounds(lengths: Sequence[int | None], place: int) -> tuple[int, int]:
    """Where a part begins and ends: counted from the end if a free part stands before."""
    before, after = (sum(length or 0 for length in part) for part in (lengths[:place], lengths[place + 1 :]))
    own = lengths[place] or 0
    start = -own - after if None in lengths[:place] else before
    stop = -after or _END if None in lengths[: place + 1] else before + own
    return start, stop


@rule_of_outputs("Split")
def split(node: Node, gradients: Gradients, emit: Emitter) -> Gradients:
    """The parts' gradients in a row, with zeros for parts that nobody uses."""
    rank = emit.rank(node.inputs[0])
    axis = node.attributes.get("axis", 0) % rank
    parts: list[str] = []
    unused = 0
    for gradient, length in zip(gradients, _split_lengths(node, axis, emit), strict=True):
        if gradient is None and length is None:
            raise NotDerivableError.of(node, "has an unused part whose length goes by the batch size (axis).")
        if gradient is None:
            unused += length or 0
            continue
        if parts:
            parts[-1] = padded(parts[-1], rank, axis, (0, unused), emit)
        parts.append(gradient if parts else padded(gradient, rank, axis, (unused, 0), emit))
        unused = 0
    parts[-1] = padded(parts[-1], rank, axis, (0, unused), emit)
    return [emit.op("Concat", *parts, axis=axis) if len(parts) > 1 else parts[0]]


def _split_lengths(node: Node, axis: int, emit: Emitter) -> list[int | None]:
    """The lengths of the parts; one that nobody uses may have no name to ask for its shape."""
    given = emit.value(node.inputs[1]) if node.input(1) else node.attributes.get("split")
    if given is not None:
        return [int(length) for length in given]
    total = emit.shape(node.inputs[0])[axis]
    if node.input(1) or total is None:
        return [emit.shape(name)[axis] if name else None for name in node.outputs]
    longest = -(-total // len(node.outputs))
    return [min(longest, total - place * longest) for place in range(len(node.outputs))]


@rule("Slice")
def slice_(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Zeros around the gradient, and in the gaps of its steps."""
    shape = emit.shape(node.inputs[0])
    before, after = [0] * len(shape), [0] * len(shape)
    for axis, start, stop, step in _slices(node, emit):
        length = shape[axis]
        if length is None:
            gradient = _unturned(node, gradient, axis, (start, stop, step), emit)
            continue
        places = np.arange(length)[start:stop:step]
        if step == 1 and len(places):
            before[axis], after[axis] = int(places[0]), length - 1 - int(places[-1])
        else:
            gradient = by_places(gradient, len(shape), axis, places, length, emit)
    return [emit.padded(gradient, before, after)]


def _slices(node: Node, emit: Emitter) -> list[tuple[int, int, int, int]]:
    """Axis, start, stop and step of each slice."""
    given = [emit.value(name) for name in node.inputs[1:]]
    if any(name and value is None for name, value in zip(node.inputs[1:], given, strict=True)):
        raise NotDerivableError.of(node, "has bounds that are computed on the way (starts, ends).")
    starts, stops, axes, steps = ([] if value is None else value.tolist() for value in (*given, None, None)[:4])
    rank = emit.rank(node.inputs[0])
    return [
        (axis % rank, start, stop, step)
        for axis, start, stop, step in zip(
            axes or range(len(starts)), starts, stops, steps or [1] * len(starts), strict=True
        )
    ]


def _unturned(node: Node, gradient: str, axis: int, cut: tuple[int, int, int], emit: Emitter) -> str:
    """The gradient of a slice of the free axis, which must be all of it."""
    start, stop, step = cut
    if step == 1 and start == 0 and stop >= _FAR:
        return gradient
    if step == -1 and (start == -1 or start >= _FAR) and stop <= -_FAR:
        return emit.sliced(gradient, axis, -1, -_END, -1)
    raise NotDerivableError.of(node, "cuts the axis that goes by the batch size (axes).")


@rule("Pad")
def pad(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The border is cut off; where it repeats the input, its gradient is added to what it repeats."""
    shape = emit.shape(node.inputs[0])
    before, after = _pads(node, len(shape), emit)
    mode = node.attributes.get("mode", "constant")
    if mode == "constant":
        return [_cropped(gradient, before, after, emit)]
    for axis, (length, left, right) in enumerate(zip(shape, before, after, strict=True)):
        if left or right:
            if length is None or min(left, right) < 0:
                raise NotDerivableError.of(node, f"pads the free axis, or by less than 0 (pads, mode {mode}).")
            places = np.pad(np.arange(length), (left, right), mode)
            gradient = by_places(gradient, len(shape), axis, places, length, emit)
    return [gradient]


def _pads(node: Node, rank: int, emit: Emitter) -> tuple[list[int], list[int]]:
    """How many elements are put before and after, for each axis."""
    pads, axes = emit.value(node.inputs[1]), emit.value(node.input(3))
    if pads is None or (node.input(3) and axes is None):
        raise NotDerivableError.of(node, "has a border whose width is computed on the way (pads).")
    places = range(rank) if axes is None else axes.tolist()
    before, after = [0] * rank, [0] * rank
    for place, left, right in zip(places, *pads.reshape(2, -1).tolist(), strict=True):
        before[place], after[place] = left, right
    return before, after


def _cropped(gradient: str, before: Sequence[int], after: Sequence[int], emit: Emitter) -> str:
    """A gradient without a border, and with zeros where the border was negative: something was cut off there."""
    axes = [axis for axis, pair in enumerate(zip(before, after, strict=True)) if max(pair) > 0]
    if axes:
        starts = emit.integers(max(before[axis], 0) for axis in axes)
        stops = emit.integers(-after[axis] if after[axis] > 0 else _END for axis in axes)
        gradient = emit.op("Slice", gradient, starts, stops, emit.integers(axes))
    left, right = ([max(-number, 0) for number in side] for side in (before, after))
    return emit.padded(gradient, left, right)
