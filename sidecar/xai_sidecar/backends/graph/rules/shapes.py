"""Rules of operators that change the shape, the order or the type of what they get, and nothing else."""

from __future__ import annotations

import numpy as np

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.registry import Gradients, NotDerivableError, rule, without_gradient

without_gradient("EyeLike")


@rule("Identity")
def identity(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient as it is."""
    return [gradient]


@rule("Dropout")
def dropout(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient as it is: in a served model nothing is dropped."""
    training = emit.value(node.input(2))
    if node.input(2) and (training is None or training.any()):
        raise NotDerivableError.of(node, "drops values at random (training_mode). Export the model for inference.")
    return [gradient]


@rule("Cast", "CastLike")
def cast(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient in the type of the input; CastLike takes no more than a type from its second input."""
    dtype = emit.type(node.inputs[0])
    by_input = gradient if dtype == emit.dtype else emit.cast(gradient, dtype)
    return [by_input, *(None for _ in node.inputs[1:])]


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient in the shape of the input."""
    return [emit.reshaped_like(gradient, node.inputs[0])]


@rule("Transpose")
def transpose(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The gradient with its axes in the order of the input."""
    order = node.attributes.get("perm", range(emit.rank(node.inputs[0]))[::-1])
    return [emit.transpose(gradient, np.argsort(order).tolist())]


@rule("Expand")
def expand(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The sum over all repetitions."""
    return [emit.unbroadcast(gradient, node.inputs[0], node.outputs[0])]


@rule("Tile")
def tile(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The sum over all repetitions: each axis becomes two, of which the first goes."""
    shape = emit.shape(node.inputs[0])
    repeats = emit.value(node.inputs[1])
    if repeats is None:
        if any(axis != 1 for axis, tiled in zip(shape, emit.shape(node.outputs[0]), strict=True) if axis != tiled):
            raise NotDerivableError.of(node, "repeats its input as often as is computed on the way (repeats).")
        return [emit.unbroadcast(gradient, node.inputs[0], node.outputs[0])]
    if shape.count(None) > 1:
        raise NotDerivableError.of(node, "repeats an input several of whose axes go by the batch size.")
    if not np.any(repeats != 1):
        return [gradient]
    apart = [length for pair in zip(repeats.tolist(), shape, strict=True) for length in pair]
    summed = emit.sum(emit.reshaped(gradient, apart), range(0, len(apart), 2), keepdims=False)
    return [summed]


@rule("DepthToSpace")
def depth_to_space(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Blocks of the picture become channels again."""
    size = node.attributes["blocksize"]
    if node.attributes.get("mode", "DCR") == "DCR":
        return [emit.op("SpaceToDepth", gradient, blocksize=size)]
    batch, channels, height, width = emit.shape(node.inputs[0])
    if channels is None or (batch, height, width).count(None) > 1:
        raise NotDerivableError.of(node, "has an input several of whose axes go by the batch size.")
    blocks = emit.reshaped(gradient, (batch, channels // size**2, height, size, width, size))
    return [emit.reshaped_like(emit.transpose(blocks, (0, 1, 3, 5, 2, 4)), node.inputs[0])]


@rule("SpaceToDepth")
def space_to_depth(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """Channels become blocks of the picture again."""
    return [emit.op("DepthToSpace", gradient, blocksize=node.attributes["blocksize"], mode="DCR")]


@rule("Trilu")
def trilu(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The same triangle of the gradient."""
    return [emit.op("Trilu", gradient, *node.inputs[1:], **node.attributes)]
