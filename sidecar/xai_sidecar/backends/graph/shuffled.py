"""An ONNX file whose weights are in disorder: as large as before, and without what was learnt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

_WEIGHED = {"Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2), "MatMul": (0, 1)}
"""Operators with weights, and the inputs that these, and biases, may be."""


def write_shuffled(path: Path, out: Path, seed: int = 0) -> int:
    """Writes a copy of an ONNX file in which the values of each weight and each bias stand in a random order.

    All that a layer does on average stays, since each tensor has the values that it had; so signals neither vanish nor
    overflow, as they may with weights that are drawn anew. Normalisation layers of their own stay as they are.

    Args:
        path: The file; its external data lies beside it.
        out: Where the copy goes.
        seed: Of the order.

    Returns:
        The number of tensors put in disorder.
    """
    import onnx

    model = onnx.load_model(str(path))
    generator = np.random.default_rng(seed)
    tensors = _weights(model)
    for tensor in tensors:
        values = onnx.numpy_helper.to_array(tensor)
        shuffled = generator.permutation(values.ravel()).reshape(values.shape)
        tensor.CopyFrom(onnx.numpy_helper.from_array(shuffled, tensor.name))
    onnx.save_model(model, str(out))
    return len(tensors)


def _weights(model: ModelProto) -> list[TensorProto]:
    """The weights and biases that stand in the graph, as constants or as initial values."""
    tensors = {each.name: each for each in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors.update((node.output[0], each.t) for each in node.attribute if each.name == "value")
    used = (
        node.input[place]
        for node in model.graph.node
        for place in _WEIGHED.get(node.op_type, ())
        if place < len(node.input)
    )
    return [tensors[name] for name in dict.fromkeys(used) if name in tensors]
