"""Rules of pools that take maxima.

The gradient goes to the first of the largest elements, row by row, as engines and frameworks have it. It is passed axis
by axis: from a window to the first row that has its maximum, and from a row's maximum to the first element. That takes
a comparison for each row and one for each column of a window instead of one for each element, and none for the last
ones, which get what is left. Conditions are multiplied with, since ONNX Runtime's Where takes three times as long; and
no maxima with indices are asked for, which OpenVINO takes a hundred times as long for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.registry import Gradients, rule
from xai_sidecar.backends.graph.rules.windows import FIRST_SPATIAL, Windows, spatial, windows_of_pool


@rule("MaxPool")
def maximum(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient goes to the first of the largest elements, in row-major order."""
    value, output = node.inputs[0], node.outputs[0]
    windows = windows_of_pool(node, emit)
    axes = [_Axis(place, windows) for place, each in enumerate(windows) if each.size > 1 or each.stride > 1]
    steps = []
    for axis in reversed(axes):
        source = axis.bordered(value, emit)
        value = output if axis is axes[0] else axis.maxima(source, emit)
        steps.append((axis, source, value))
    for axis, source, largest in reversed(steps):
        gradient = axis.passed(gradient, source, largest, emit)
    return [gradient]


@rule("GlobalMaxPool")
def global_maximum(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient goes to the first of the largest elements, in row-major order."""
    lengths = spatial(node, node.inputs[0], emit)
    single = np.dtype(np.float32)
    ranks = np.arange(math.prod(lengths), 0, -1, dtype=single).reshape(1, 1, *lengths)
    is_largest = emit.op("Equal", node.inputs[0], node.outputs[0])
    rank = emit.multiply(emit.cast(is_largest, single), emit.constant(ranks, single))
    is_first = emit.op("Equal", rank, emit.op("GlobalMaxPool", rank))
    return [emit.multiply(gradient, emit.number(is_first))]


@dataclass(frozen=True)
class _Axis:
    """An axis along which maxima are taken.

    Its strides become an axis of their own, so that what all windows have at one place of theirs is one piece.

    Attributes:
        place: Which of the spatial axes.
        all_windows: The windows along all spatial axes.
    """

    place: int
    all_windows: list[Windows]

    @property
    def windows(self) -> Windows:
        """Those along this axis."""
        return self.all_windows[self.place]

    @property
    def axis(self) -> int:
        """Which of all axes."""
        return FIRST_SPATIAL + self.place

    @property
    def is_last(self) -> bool:
        """Whether no axis comes after it: then each piece is made contiguous, or engines would pick single elements."""
        return self.place == len(self.all_windows) - 1

    @property
    def counted(self) -> int:
        """The axis along which pieces have one element for each stride."""
        return self.axis + 1 if self.is_last and self.windows.stride > 1 else self.axis

    @property
    def within(self) -> int:
        """The axis along which pieces have one element for each stride's element: they have one, of length 1."""
        return self.axis if self.is_last else self.axis + 1

    @property
    def reached(self) -> int:
        """Elements of all strides that windows reach into."""
        return self.windows.strides * self.windows.stride

    def bordered(self, value: str, emit: Emitter) -> str:
        """A value from the first window's first element on, as long as all strides that windows reach into."""
        each = self.windows
        after = self.reached - each.before - each.length
        value = _padded(value, self.axis, each.before, max(after, 0), self._rank, emit, -math.inf)
        return emit.sliced(value, self.axis, 0, self.reached) if after < 0 else value

    def maxima(self, source: str, emit: Emitter) -> str:
        """The maxima along this axis of what `bordered` gave."""
        sizes, strides, dilations = np.ones((3, len(self.all_windows)), int)
        each = self.windows
        sizes[self.place], strides[self.place], dilations[self.place] = each.size, each.stride, each.dilation
        return emit.op(
            "MaxPool",
            source,
            kernel_shape=tuple(sizes.tolist()),
            strides=tuple(strides.tolist()),
            dilations=tuple(dilations.tolist()) if each.dilation > 1 else None,
        )

    def passed(self, gradient: str, source: str, largest: str, emit: Emitter) -> str:
        """The gradient by what the maxima were taken of, of that by the maxima.

        Args:
            gradient: The gradient by the maxima.
            source: What the maxima were taken of, from `bordered`.
            largest: The maxima.
            emit: Writes.
        """
        each = self.windows
        pieces = self._split(source, emit)
        left, largest = (self._with_strides(value, emit) for value in (gradient, largest))
        shares: dict[int, str] = {}
        for number in range(each.size):
            step, rest = divmod(number * each.dilation, each.stride)
            share = left  # of windows whose maximum was none before, it is the last one
            if number + 1 < each.size:
                piece = pieces[rest]
                if each.strides > each.count:
                    piece = emit.sliced(piece, self.counted, step, step + each.count)
                share = emit.multiply(left, emit.number(emit.op("Equal", piece, largest)))
                left = emit.subtract(left, share)
            share = self._placed(share, step, emit)
            if share:
                shares[rest] = emit.add(shares[rest], share) if rest in shares else share
        return self._joined(shares, emit)

    def _placed(self, share: str, step: int, emit: Emitter) -> str:
        """What is given to one element of each window, put where those are; "" if they are all outside.

        Args:
            share: One element for each window.
            step: The stride in which the first window has that element.
            emit: Writes.
        """
        each = self.windows
        if each.stride > 1:
            return _shifted(share, self.counted, step, each.count, each.strides, self._rank + 1, emit)
        return _shifted(share, self.axis, step - each.before, each.count, each.length, self._rank, emit)

    def _split(self, value: str, emit: Emitter) -> list[str]:
        """The pieces of what `bordered` gave: the elements at each place within a stride."""
        each = self.windows
        if each.stride == 1:
            return [value]
        value = emit.reshaped(value, [*self._before, each.strides, each.stride, *self._after])
        if self.is_last:
            value = emit.transpose(value, self._exchanged)
        return list(emit.split(value, self.within, each.stride))

    def _joined(self, pieces: dict[int, str], emit: Emitter) -> str:
        """The inverse of `_split` and `bordered`; pieces that are left out are zero, and so is what was cut off."""
        each = self.windows
        if each.stride == 1:
            return pieces[0]
        zero = emit.scaled(pieces[0], 0) if len(pieces) < each.stride else ""
        parts = [pieces.get(rest, zero) for rest in range(each.stride)]
        axis = self.within
        if self.is_last:  # ONNX Runtime takes twelve times as long for a transposition of so short an axis
            axis = self._rank
            parts = [emit.reshaped(part, [*self._before, each.strides, 1]) for part in parts]
        value = emit.op("Concat", *parts, axis=axis)
        value = emit.reshaped(value, [*self._before, self.reached, *self._after])
        return _shifted(value, self.axis, -each.before, self.reached, each.length, self._rank, emit)

    def _with_strides(self, value: str, emit: Emitter) -> str:
        """A value with one element for each window, in the form of pieces."""
        return emit.unsqueezed(value, [self.within]) if self.windows.stride > 1 else value

    @property
    def _before(self) -> list[int]:
        """The lengths of the axes before, as Reshape is to take them over."""
        return [0] * self.axis

    @property
    def _after(self) -> list[int]:
        """The lengths of the axes after, along which maxima have been taken."""
        return [each.count for each in self.all_windows[self.place + 1 :]]

    @property
    def _rank(self) -> int:
        return FIRST_SPATIAL + len(self.all_windows)

    @property
    def _exchanged(self) -> list[int]:
        """The order of axes that exchanges the last two."""
        return [*range(self._rank - 1), self._rank, self._rank - 1]


def _shifted(value: str, axis: int, start: int, count: int, length: int, rank: int, emit: Emitter) -> str:
    """A value among zeros.

    Args:
        value: The value.
        axis: The axis along which it is put there.
        start: Where its first element comes to be; what comes to be before the first place or after the last is cut.
        count: Its length.
        length: The length of what is returned.
        rank: Its number of axes.
        emit: Writes.

    Returns:
        The name of the result; "" if everything is cut.
    """
    first, last = max(-start, 0), count - max(start + count - length, 0)
    if first >= last:
        return ""
    if last - first < count:
        value = emit.sliced(value, axis, first, last)
    return _padded(value, axis, max(start, 0), max(length - start - count, 0), rank, emit)


def _padded(value: str, axis: int, before: int, after: int, rank: int, emit: Emitter, fill: float = 0.0) -> str:
    """A value with elements put before and after along one axis."""
    first, second = ([width if place == axis else 0 for place in range(rank)] for width in (before, after))
    return emit.padded(value, first, second, fill)
