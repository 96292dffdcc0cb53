"""Tells by shape which outputs of a net lie on the picture, and checks that they do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from xai_sidecar.backends.spatial.displacement import displaced
from xai_sidecar.backends.spatial.tokens import UnplacedError, place_tokens
from xai_sidecar.backends.spatial.watched import Watch
from xai_sidecar.engine.backend import Layer
from xai_sidecar.engine.work import Array

_MOST_EXTRA = 16
"""Class, distillation and register tokens besides the picture's own, at the most."""

_TRIED = 16
"""Layers whose gradients are computed together in the search for the default layer, from the last one on."""

EXAMPLES = 2
"""Inputs for all of which a layer that matters is unlikely to be dead."""

Alive: TypeAlias = Callable[[Sequence["SpatialLayer"], Array], list[str]]
"""Layers, and inputs as the net takes them, (n, …) → the names of those layers, in order, by whose output, at the
positions of the picture, the logits have a gradient for one of the inputs."""

_MISFIT = 1.5
"""Cells by which padding may change the size of a grid."""


@dataclass(frozen=True)
class SpatialLayer(Layer):
    """A layer with a spatial output, and its layout.

    Attributes:
        axes: "nchw"; "nhwc"; or "tokens", (n, tokens, channels).
        token_count: Number of tokens, at least height · width.
        order: The index of the token of each position, row by row.
    """

    axes: str
    token_count: int = 0
    order: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the layer's output for one input."""
        if self.axes == "nchw":
            return 1, self.channels, self.height, self.width
        if self.axes == "nhwc":
            return 1, self.height, self.width, self.channels
        return 1, self.token_count, self.channels

    def to_nchw(self, output: Array) -> Array:
        """The layer's output (n, …) as (n, channels, height, width)."""
        if self.axes == "nchw":
            return output
        if self.axes == "tokens":
            output = output[:, list(self.order)].reshape(-1, self.height, self.width, self.channels)
        return output.transpose(0, 3, 1, 2)


@dataclass(frozen=True)
class Layers:
    """The layers of a net, by name, in the order in which they finish.

    Attributes:
        spatial: Those with a spatial output.
        refused: Why others are not counted as such, though their shape suggests it.
    """

    spatial: dict[str, SpatialLayer]
    refused: dict[str, str]


def find_layers(
    outputs: Iterable[tuple[str, tuple[int, ...] | None]], size: tuple[int, int], layout: str
) -> list[SpatialLayer]:
    """The layers whose output may lie on the picture, by its shape.

    Args:
        outputs: Each call of a layer in order, with the shape of its output for one input, (1, …); None if it is no
            tensor. Layers that run several times in a pass are left out: they have no single output.
        size: Rows and columns of the input.
        layout: "nchw" or "nhwc", the axes of the input.
    """
    calls = list(outputs)
    token_counts = {shape[1] for _, shape in calls if shape is not None and len(shape) == 3}
    counts = Counter(name for name, _ in calls)
    read = [
        _spatial(name, shape, *size, layout, token_counts)
        for name, shape in calls
        if shape is not None and counts[name] == 1
    ]
    return [layer for layer in read if layer]


def place(watch: Watch, layers: Sequence[SpatialLayer], example: Array, layout: str) -> Layers:
    """Gives layers the positions of their tokens; those that lie elsewhere, or have no positions, are refused.

    Args:
        watch: Makes the net be watched.
        layers: The layers, in the order in which they finish.
        example: One input as the net takes it, (1, …) float32.
        layout: "nchw" or "nhwc", the axes of the input.
    """
    groups: dict[tuple[int, int, int], list[SpatialLayer]] = {}
    for layer in layers:
        if layer.axes == "tokens":
            groups.setdefault((layer.token_count, layer.height, layer.width), []).append(layer)
    placed, refused = {layer.name: layer for layer in layers}, {}
    for (_, height, width), group in groups.items():
        try:
            order = place_tokens(watch, group[0].name, example, (height, width), layout)
        except UnplacedError as error:
            refused.update({layer.name: _unplaced(layer, f"{error}.") for layer in group})
        else:
            placed.update({layer.name: replace(layer, order=order) for layer in group})
    kept = [layer for layer in placed.values() if layer.name not in refused]
    moved = displaced(watch, kept, example, layout)
    refused.update({layer.name: _displaced(layer) for layer in kept if layer.name in moved})
    return Layers({name: layer for name, layer in placed.items() if name not in refused}, refused)


def _unplaced(layer: SpatialLayer, reason: str) -> str:
    return f"Where the tokens of the layer {layer.name!r} lie on the picture cannot be told: {reason}"


def _displaced(layer: SpatialLayer) -> str:
    if layer.axes == "tokens":
        return _unplaced(layer, "they do not lie as in the layers before.")
    return (
        f"The output of the layer {layer.name!r} does not lie on the picture as its {layer.height} rows and "
        f"{layer.width} columns do: it is shifted, turned or in another order."
    )


def default_layer(layers: Mapping[str, SpatialLayer], examples: Array, alive: Alive) -> str | None:
    """The last layer with a spatial output at whose positions the logits have a gradient.

    Behind the last attention of a transformer that classifies by a class token, the picture's own tokens no longer
    matter to the prediction: their gradient is zero, and so would be every map. Such layers are passed over, as are
    branches that training alone used, and layers inside an attention, whose channels are no longer the embedding's.

    Args:
        layers: The layers of a net.
        examples: Some inputs as the net takes them, (n, …) float32.
        alive: Tells by which layers the logits have a gradient.
    """
    tokens = [layer for layer in layers.values() if layer.axes == "tokens"]
    embedded, counts = {layer.channels for layer in tokens[-1:]}, {layer.token_count for layer in tokens}
    candidates = [
        layer
        for layer in layers.values()
        # With as many rows or columns as there are tokens, it is an attention's, split by heads.
        if (layer.channels in embedded if layer.axes == "tokens" else not {layer.height, layer.width} & counts)
    ]
    while candidates:
        last = candidates[-_TRIED:]
        for start in range(min(EXAMPLES, len(examples))):
            if names := alive(last, examples[start : start + 1]):
                return names[-1]
        del candidates[-_TRIED:]
    return None


def _spatial(
    name: str, shape: tuple[int, ...], height: int, width: int, layout: str, token_counts: set[int]
) -> SpatialLayer | None:
    if shape[0] != 1:  # windows of an attention, say
        return None
    if len(shape) == 4:
        _, a, b, c = shape
        if b == c and b in token_counts:  # an attention matrix
            return None
        readings = [SpatialLayer(name, a, b, c, "nchw"), SpatialLayer(name, c, a, b, "nhwc")]
        fitting = [one for one in readings if _misfit(one.height, one.width, height, width) < _MISFIT]
        # As many channels as columns, or nearly so: the better fit is right, and on a tie the axes of the input.
        return min(
            fitting, key=lambda one: (_misfit(one.height, one.width, height, width), one.axes != layout), default=None
        )
    if len(shape) == 3:
        for extra in range(min(_MOST_EXTRA + 1, shape[1])):
            grid = _grid(shape[1] - extra, height, width)
            if grid:
                return SpatialLayer(name, shape[2], *grid, "tokens", shape[1])
    return None


def _misfit(rows: int, columns: int, height: int, width: int) -> float:
    """Deviation in cells of a grid from the proportions of the input; infinite for an impossible grid."""
    if rows * columns <= 1 or rows > height or columns > width:
        return math.inf
    scale = math.sqrt(height * width / (rows * columns))
    return max(abs(rows - height / scale), abs(columns - width / scale))


def _grid(count: int, height: int, width: int) -> tuple[int, int] | None:
    """The grid of patches of a whole number of pixels per side that has `count` of them and covers the input."""
    for side in range(1, min(height, width) // 2 + 1):
        if height % side == 0 and width % side == 0 and height * width == count * side * side:
            return height // side, width // side
    return None
