"""Small ONNX graphs for tests, serialised."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH = 8, 12


def serialised(nodes, inputs, outputs, weights=None, opset=17):
    """A model of some nodes.

    Args:
        nodes: (operator, inputs, outputs, attributes) each.
        inputs: Shapes by name; texts are free axes. A pair of dtype and shape for what is not float32.
        outputs: Names.
        weights: Arrays by name.
        opset: The opset's version.
    """

    def value(name, spec):
        dtype, shape = spec if isinstance(spec, tuple) else (np.float32, spec)
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

    graph = helper.make_graph(
        [helper.make_node(name, taken, made, **attributes) for name, taken, made, attributes in nodes],
        "graph",
        [value(name, spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    for output in graph.output:  # an output without a type is for the engine to infer
        output.ClearField("type")
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)]).SerializeToString()


def elementwise(operator, **attributes):
    """One operator, (batch, 4) → (batch, 4)."""
    return serialised([(operator, ["x"], ["y"], attributes)], {"x": ["batch", 4]}, ["y"])


def convolution_weights():
    """Those of `convolution`."""
    generator = np.random.default_rng(3)
    kernel, head = generator.normal(0, 0.3, (6, 3, 3, 3)), generator.normal(0, 0.3, (6, 5))
    return {"kernel": kernel.astype(np.float32), "head": head.astype(np.float32)}


def convolution():
    """Pictures (batch, 3, 8, 12) → channels (batch, 6), logits (batch, 5): a convolution, a ReLU, a mean, a product."""
    return serialised(
        [
            ("Conv", ["pictures", "kernel"], ["maps"], {"pads": [1, 1, 1, 1]}),
            ("Relu", ["maps"], ["positive"], {}),
            ("GlobalAveragePool", ["positive"], ["means"], {}),
            ("Flatten", ["means"], ["channels"], {"axis": 1}),
            ("MatMul", ["channels", "head"], ["logits"], {}),
        ],
        {"pictures": ["batch", 3, HEIGHT, WIDTH]},
        ["channels", "logits"],
        convolution_weights(),
    )


def convolution_by_hand(pictures):
    """What `convolution` returns, computed in float64 with numpy alone."""
    weights = {name: array.astype(np.float64) for name, array in convolution_weights().items()}
    padded = np.pad(pictures.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    maps = np.einsum("nchwij,ocij->nohw", windows, weights["kernel"])
    channels = np.maximum(maps, 0).mean((2, 3))
    return channels, channels @ weights["head"]


def pictures(count, seed=0):
    """Random inputs of `convolution`."""
    return np.random.default_rng(seed).standard_normal((count, 3, HEIGHT, WIDTH)).astype(np.float32)
