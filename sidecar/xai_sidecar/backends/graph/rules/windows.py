"""Where the windows of convolutions and pools lie: strides, dilations, and borders however they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.registry import NotDerivableError

FIRST_SPATIAL = 2
"""The place of the first spatial axis: that of the batch and that of channels come before."""


@dataclass(frozen=True)
class Windows:
    """The windows along one axis. Number o has the elements o · stride − before + dilation · (0, 1, …, size − 1).

    Attributes:
        size: Elements of a window.
        stride: Distance of windows.
        dilation: Distance of a window's elements.
        before: Elements that the first window has before the input begins.
        length: Elements of the input.
        count: Number of windows.
    """

    size: int
    stride: int
    dilation: int
    before: int
    length: int
    count: int

    @property
    def extent(self) -> int:
        """Elements from a window's first to its last."""
        return self.dilation * (self.size - 1) + 1

    @property
    def covered(self) -> int:
        """Elements from the first window's first to the last window's last."""
        return (self.count - 1) * self.stride + self.extent

    @property
    def steps(self) -> int:
        """Strides that a window reaches into."""
        return -(-self.extent // self.stride)

    @property
    def strides(self) -> int:
        """Strides that all windows reach into."""
        return self.count - 1 + self.steps

    @property
    def after(self) -> int:
        """Elements that the last window has after the end of the input; negative where it ends earlier."""
        return self.covered - self.before - self.length


def windows_of(node: Node, sizes: Sequence[int], source: str, target: str, emit: Emitter) -> list[Windows]:
    """The windows of a node, axis by axis.

    Args:
        node: A convolution or a pool.
        sizes: The sizes of a window.
        source: What the windows move over.
        target: What has one element for each window.
        emit: Knows the shapes.

    Raises:
        NotDerivableError: A spatial axis goes by the batch size.
    """
    ones = (1,) * len(sizes)
    strides, dilations = (node.attributes.get(name) or ones for name in ("strides", "dilations"))
    pads = node.attributes.get("pads") or (0,) * len(sizes)
    lengths, counts = spatial(node, source, emit), spatial(node, target, emit)
    placed = map(Windows, sizes, strides, dilations, pads, lengths, counts)
    how = automatic(node)
    return [_placed(each, how) if how else each for each in placed]


def windows_of_pool(node: Node, emit: Emitter) -> list[Windows]:
    """The windows of a pool, axis by axis.

    Raises:
        NotDerivableError: Engines disagree on where they lie, or a spatial axis goes by the batch size.
    """
    windows = windows_of(node, node.attributes["kernel_shape"], node.inputs[0], node.outputs[0], emit)
    if automatic(node).startswith("SAME") and any(each.dilation > 1 for each in windows):
        raise NotDerivableError.of(node, "has automatic borders and dilations (auto_pad), in which engines disagree.")
    pads = node.attributes.get("pads") or (0,) * 2 * len(windows)
    for each, border in zip(windows, pads[len(windows) :], strict=True):
        # A window more would begin within the border, but after the input.
        left = each.length + each.before + border - each.covered
        if node.attributes.get("ceil_mode") and left > 0:
            raise NotDerivableError.of(node, "has a window in its border alone (ceil_mode), in which engines disagree.")
    return windows


def spatial(node: Node, name: str, emit: Emitter) -> list[int]:
    """The lengths of a value's spatial axes.

    Raises:
        NotDerivableError: One goes by the batch size.
    """
    shape = emit.shape(name)[FIRST_SPATIAL:]
    lengths = [length for length in shape if length is not None]
    if len(lengths) != len(shape):
        raise NotDerivableError.of(node, "has a spatial axis whose length goes by the batch size.")
    return lengths


def automatic(node: Node) -> str:
    """How borders are chosen: VALID, SAME_UPPER or SAME_LOWER; "" where they are given."""
    how = node.attributes.get("auto_pad", "NOTSET")
    return "" if how == "NOTSET" else str(how)


def cut(total: int, how: str) -> int:
    """How much of borders that have a total width is before the input."""
    return total // 2 if how == "SAME_UPPER" else total - total // 2


def _placed(windows: Windows, how: str) -> Windows:
    """Windows with borders that are chosen automatically."""
    total = 0 if how == "VALID" else max(windows.covered - windows.length, 0)
    return replace(windows, before=cut(total, how))
