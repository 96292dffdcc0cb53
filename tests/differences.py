"""Derivatives of operators worked out by central differences in double precision, for comparison."""

from itertools import product

import numpy as np
import onnx
from onnx import helper

from xai_sidecar.backends.graph.derivative import derive
from xai_sidecar.backends.graph.graph import read, write
from xai_sidecar.backends.graph.tracing import run_by_reference, trace

STEP = 1e-6


def model(nodes, shape, constants=None, opset=17, output="y", dtype=np.float64):
    """A model of some nodes: its input is x, (batch, *shape), and its output y."""
    nodes = [nodes] if isinstance(nodes, onnx.NodeProto) else nodes
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensors = [
        onnx.numpy_helper.from_array(value.astype(dtype) if value.dtype.kind == "f" else value, name)
        for name, value in ((name, np.asarray(value)) for name, value in (constants or {}).items())
    ]
    graph = helper.make_graph(
        nodes,
        "operator",
        [helper.make_tensor_value_info("x", element, ["batch", *shape])],
        [helper.make_empty_tensor_value_info(output)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def by_differences(graph, x, seed):
    """The gradient of sum(y * seed) by x, element by element."""
    gradient = np.zeros_like(x)
    for place in product(*map(range, x.shape)):
        values = []
        for step in (STEP, -STEP):
            moved = x.copy()
            moved[place] += step
            values.append(np.sum(run_by_reference(graph, (moved,))[0] * seed))
        gradient[place] = (values[0] - values[1]) / (2 * STEP)
    return gradient


def check(nodes, shape, constants=None, opset=17, sizes=(1, 2, 4), rng=0, draw=None, tolerance=1e-6):
    """Checks the derivative of some nodes against central differences, and that engines run it in single precision.

    Args:
        nodes: ONNX nodes from x to y.
        shape: The shape of one x, without the batch.
        constants: Arrays by name.
        opset: Version of the operators.
        sizes: Batch sizes.
        rng: Seed of the values.
        draw: Makes x of a generator and a shape; standard normal numbers by default.
        tolerance: Of the largest element of the gradient.
    """
    rng = np.random.default_rng(rng)
    draw = draw or (lambda rng, shape: rng.standard_normal(shape))
    graph = read(model(nodes, shape, constants, opset))
    folded, traced = trace(graph, draw(rng, (1, *shape)), run_by_reference)
    derived, names = derive(folded, traced, "y", "seed", ["x"])
    derived = derived.pruned(["y", *names])
    single = list(engines(derived_in_single_precision(nodes, shape, constants, opset, draw(rng, (1, *shape)))))
    for size in sizes:
        x = draw(rng, (size, *shape))
        (y,) = run_by_reference(graph, (x,))
        seed = rng.standard_normal(y.shape)
        expected = by_differences(graph, x, seed)
        again, gradient = run_by_reference(derived, (x, seed))
        np.testing.assert_allclose(again, y, rtol=1e-12, atol=1e-12)
        allowed = tolerance * max(1.0, np.abs(expected).max())
        assert gradient.shape == x.shape
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=allowed)
        allowed = max(allowed, 1e-4 * max(1.0, np.abs(expected).max()))
        for engine in single:
            result = engine(x=x.astype(np.float32), seed=seed.astype(np.float32))
            np.testing.assert_allclose(result, expected, rtol=0, atol=allowed)


def derived_in_single_precision(nodes, shape, constants, opset, example):
    graph = read(model(nodes, shape, constants, opset, dtype=np.float32))
    folded, traced = trace(graph, example.astype(np.float32), run_by_reference)
    derived, names = derive(folded, traced, "y", "seed", ["x"])
    return derived.pruned(names)


def engines(graph):
    """The graph's gradient by ONNX Runtime and by OpenVINO."""
    import onnxruntime
    import openvino

    serialised = write(graph).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(serialised, options)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(serialised), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    # Engines drop inputs that the gradient does not depend on.
    fed = [each.name for each in session.get_inputs()]
    taken = [each.get_any_name() for each in compiled.inputs]
    yield lambda **rows: session.run(None, {name: rows[name] for name in fed})[0]
    yield lambda **rows: compiled({name: rows[name] for name in taken})[0]
