"""The rule of Resize: along each axis it is a product with a matrix that is known beforehand, and so it goes back.

Coordinates are worked out in single precision, as engines do: with a scale of 0.6 it decides which pixel is nearest.
Of half_pixel_symmetric's rounding they make different things, which matters to the nearest pixel: that is refused.
The formulas are those of https://onnx.ai/onnx/operators/onnx__Resize.html.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.indexing import along, by_places
from xai_sidecar.backends.graph.rules.registry import Gradients, NotDerivableError, rule
from xai_sidecar.engine.work import Array

_ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


@rule("Resize")
def resize(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient times the transposed matrix of each axis."""
    rank = emit.rank(node.inputs[0])
    weights = {axis: _weights(node, *line) for axis, line in _lines(node, emit).items()}
    weights = {axis: matrix for axis, matrix in weights.items() if not _is_identity(matrix)}
    repeats = {axis: _repeats(matrix) for axis, matrix in weights.items()}
    if all(repeats.values()) and min(weights, default=2) >= 2:
        return [_summed_blocks(gradient, [repeats.get(axis, 1) for axis in range(2, rank)], emit)]
    for axis, matrix in weights.items():
        if node.attributes.get("mode", "nearest") == "nearest":
            gradient = by_places(gradient, rank, axis, matrix.argmax(axis=1), matrix.shape[1], emit)
        else:
            gradient = along(gradient, rank, axis, matrix.T, emit)
    return [gradient]


def _summed_blocks(gradient: str, blocks: list[int], emit: Emitter) -> str:
    """Sums of blocks of pixels, as pooling has them, which engines are quickest at."""
    size = int(np.prod(blocks))
    if size == 1:
        return gradient
    return emit.scaled(emit.op("AveragePool", gradient, kernel_shape=tuple(blocks), strides=tuple(blocks)), size)


def _is_identity(matrix: Array) -> bool:
    return matrix.shape[0] == matrix.shape[1] and bool((matrix == np.eye(len(matrix))).all())


def _repeats(matrix: Array) -> int:
    """How often a matrix repeats each element in a row; 0 if that is not what it does."""
    count, rest = divmod(len(matrix), matrix.shape[1])
    repeats = count > 0 and rest == 0 and (matrix == np.eye(matrix.shape[1]).repeat(count, axis=0)).all()
    return count if repeats else 0


def _lines(node: Node, emit: Emitter) -> dict[int, tuple[int, int, float]]:
    """For each axis that may change: its length, its length after, and the scale."""
    shape, resized = emit.shape(node.inputs[0]), emit.shape(node.outputs[0])
    if node.attributes.get("antialias", 0):
        raise NotDerivableError.of(node, "smooths what it shrinks (antialias), for which there is no derivative here.")
    if node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NotDerivableError.of(node, "has no derivative here with a keep_aspect_ratio_policy.")
    scales = _scales(node, emit)
    axes = [axis % len(shape) for axis in node.attributes.get("axes", range(len(shape)))]
    lines = {}
    for place, axis in enumerate(axes):
        before, after, scale = shape[axis], resized[axis], None if scales is None else float(scales[place])
        if before is not None and after is not None:
            lines[axis] = before, after, after / before if scale is None else scale
        elif before is not None or after is not None or scale not in (None, 1):
            raise NotDerivableError.of(node, "resizes the axis that goes by the batch size (scales, sizes).")
    return lines


def _scales(node: Node, emit: Emitter) -> Array | None:
    """The scales; None if sizes are given, and the scales follow from the shapes."""
    scales = emit.value(node.input(2))
    if node.input(2) and scales is None:
        raise NotDerivableError.of(node, "has scales that are computed on the way (scales).")
    return None if scales is None or not scales.size else scales


def _weights(node: Node, before: int, after: int, scale: float) -> Array:
    """What an axis is multiplied by, (after, before)."""
    places = _coordinates(node, before, after, np.float32(scale))
    mode = node.attributes.get("mode", "nearest")
    if mode == "nearest":
        rounding = _ROUNDINGS[node.attributes.get("nearest_mode", "round_prefer_floor")]
        return _spread(rounding(places)[:, None], np.ones((after, 1)), before)
    first = np.floor(places)
    part = (places - first).astype(np.float64)
    if mode == "linear":
        return _spread(first[:, None] + (0, 1), np.stack([1 - part, part], axis=1), before)
    if mode == "cubic":
        neighbours, coefficients = first[:, None] + (-1, 0, 1, 2), _cubic(node, part)
        if node.attributes.get("exclude_outside", 0):
            coefficients *= (neighbours >= 0) & (neighbours < before)
            coefficients /= coefficients.sum(axis=1, keepdims=True)
        return _spread(neighbours, coefficients, before)
    raise NotDerivableError.of(node, f"has no derivative here (mode {mode}).")


def _cubic(node: Node, part: Array) -> Array:
    """Coefficients of four neighbours: https://ieeexplore.ieee.org/document/1163711, equation 4."""
    a = node.attributes.get("cubic_coeff_a", -0.75)

    def outer(x: Array) -> Array:
        return np.asarray(a * (((x - 5) * x + 8) * x - 4))

    def inner(x: Array) -> Array:
        return np.asarray(((a + 2) * x - (a + 3)) * x * x + 1)

    return np.stack([outer(part + 1), inner(part), inner(1 - part), outer(2 - part)], axis=1)


def _spread(places: Array, weights: Array, length: int) -> Array:
    """Weights at places, (n, k), as a matrix (n, length); what lies outside counts for the border."""
    matrix = np.zeros((len(places), length))
    places = np.clip(places, 0, length - 1).astype(np.int64)
    np.add.at(matrix, (np.arange(len(places))[:, None], places), weights)
    return matrix


def _coordinates(node: Node, before: int, after: int, scale: np.float32) -> Array:
    """Where each element lies among those before, (after,)."""
    mode = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    x, half = np.arange(after, dtype=np.float32), np.float32(0.5)
    if after == 1 and mode in ("pytorch_half_pixel", "align_corners"):
        return np.zeros(1, np.float32)
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (x + half) / scale - half
    if mode == "half_pixel_symmetric" and node.attributes.get("mode", "nearest") != "nearest":
        wide, old = np.float32(after), np.float32(before)
        offset = old / np.float32(2) * (np.float32(1) - wide / (scale * old))
        return offset + (x + half) / scale - half
    if mode == "align_corners":
        return x * np.float32(before - 1) / np.float32(after - 1)
    if mode == "asymmetric":
        return x / scale
    if mode == "tf_half_pixel_for_nn":
        return (x + half) / scale
    raise NotDerivableError.of(node, f"has no derivative here (coordinate_transformation_mode {mode}).")
