"""The nets of the onnx package, which come without weights, made small: pictures of 64 pixels, and weights drawn here.

A net of 224 pixels halves them five times, to 7; one of 64, to 2. What the files write of these numbers into shapes is
scaled, a pool over all 7 is one over all there are, and hidden dense layers of 4,096 units have fewer.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

FOLDER = Path(onnx.__file__).parent / "backend/test/data/light"
NAMES = sorted(path.stem.removeprefix("light_") for path in FOLDER.glob("light_*.onnx"))
SIDE = 64
_LARGE, _WIDE, _HIDDEN = 224, 4096, 48


def light_net(name, seed=0):
    """A net, (1, 3, SIDE, SIDE) → probabilities or logits of 1,000 classes."""
    model = onnx.load(FOLDER / f"light_{name}.onnx")
    graph, rng = model.graph, np.random.default_rng(seed)
    constants = {tensor.name: _smaller(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    pictures = next(value.name for value in graph.input if value.name not in constants)
    made = {node.output[0]: constants[node.input[0]] for node in graph.node if node.op_type == "ConstantOfShape"}
    nodes = [_smaller_pool(node) for node in graph.node if node.op_type != "ConstantOfShape"]
    for node in nodes:
        weights = {
            taken: _drawn(node, place, made[taken], rng) for place, taken in enumerate(node.input) if taken in made
        }
        constants |= weights
        if node.op_type == "Reshape" and node.input[0] not in constants and len(constants[node.input[1]]) == 2:
            constants[node.input[1]] = np.array([1, -1])
    _fit(nodes, constants, pictures, rng)
    return _model(nodes, constants, pictures, [output.name for output in graph.output])


def _model(nodes, constants, pictures, outputs):
    used = {taken for node in nodes for taken in node.input}
    graph = helper.make_graph(
        nodes,
        "light",
        [helper.make_tensor_value_info(pictures, onnx.TensorProto.FLOAT, (1, 3, SIDE, SIDE))],
        [helper.make_empty_tensor_value_info(output) for output in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=8)


def _smaller(constant):
    """What a file says of shapes, for the smaller pictures: (1, 4, 28, 56, 56) → (1, 4, 28, 16, 16)."""
    if constant.dtype.kind != "i":
        return constant
    if len(constant) >= 4 and constant[0] == 1 and constant[-1] == constant[-2]:
        return np.concatenate([constant[:-2], constant[-2:] * SIDE // _LARGE])
    return np.where(constant == _WIDE, _HIDDEN, constant)


def _smaller_pool(node):
    sizes = next((list(each.ints) for each in node.attribute if each.name == "kernel_shape"), None)
    if node.op_type != "AveragePool" or sizes != [7, 7]:
        return node
    return helper.make_node("GlobalAveragePool", node.input, node.output)


def _drawn(node, place, shape, rng):
    """Weights such that values neither vanish nor grow from layer to layer."""
    if node.op_type == "BatchNormalization":
        value = rng.uniform(0.8, 1.2, shape) if place in (1, 4) else rng.normal(0, 0.1, shape)
    elif node.op_type == "Unsqueeze" and node.input[0].endswith("_w_0"):  # factors of normalized channels
        value = rng.uniform(0.8, 1.2, shape)
    elif len(shape) > 1:
        inputs = shape[-1] if len(shape) == 2 else np.prod(shape[1:])
        value = rng.standard_normal(tuple(shape), np.float32) * np.sqrt(2 / inputs)
    else:
        value = rng.normal(0, 0.05, shape)
    return value.astype(np.float32)


def _fit(nodes, constants, pictures, rng):
    """Gives dense layers as many inputs as there are now."""
    inferred = shape_inference.infer_shapes(_model(nodes, constants, pictures, nodes[-1].output[:1]), data_prop=True)
    shapes = {
        each.name: [axis.dim_value for axis in each.type.tensor_type.shape.dim] for each in inferred.graph.value_info
    }
    for node in nodes:
        if node.op_type == "Gemm" and node.input[1] in constants and shapes.get(node.input[0]):
            shape = len(constants[node.input[1]]), shapes[node.input[0]][1]
            if shape[1] and shape != constants[node.input[1]].shape:
                constants[node.input[1]] = _drawn(node, 1, shape, rng)
