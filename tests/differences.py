"""Derivatives of operators worked out by central differences in double precision, for comparison."""

import os
from functools import cache
from itertools import product

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator
from operators import OPERATORS

from xai_sidecar.backends.graph.derivative import derive
from xai_sidecar.backends.graph.graph import read, write
from xai_sidecar.backends.graph.tracing import trace

STEP = 1e-6


def run_by_reference(graph, rows):
    """Runs a graph by the onnx package's own evaluator: slowly, in any precision."""
    results = ReferenceEvaluator(write(graph)).run(None, dict(zip(graph.inputs, rows, strict=True)))
    return tuple(np.asarray(result) for result in results)


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
    domains = {node.domain for node in nodes} - {""}
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def run(graph, rows):
    """Runs a graph slowly, in double precision where its inputs are."""
    results = evaluated(graph).run(None, dict(zip(graph.inputs, rows, strict=True)))
    return tuple(np.asarray(result) for result in results)


def evaluated(graph):
    return ReferenceEvaluator(write(graph), new_ops=OPERATORS)


def by_differences(graph, x, seed, apart=False):
    """The gradient of sum(y * seed) by x, element by element.

    Args:
        graph: The graph.
        x: Where.
        seed: The weights of the sum.
        apart: Whether each row of y goes by the same row of x alone: all elements of a row are then moved in one run.
    """
    if apart:
        return np.array([_of_row(graph, row, weights) for row, weights in zip(x, seed, strict=True)])
    evaluator = evaluated(graph)
    gradient = np.zeros_like(x)
    for place in product(*map(range, x.shape)):
        values = []
        for step in (STEP, -STEP):
            moved = x.copy()
            moved[place] += step
            values.append(np.sum(evaluator.run(None, {"x": moved})[0] * seed))
        gradient[place] = (values[0] - values[1]) / (2 * STEP)
    return gradient


def _of_row(graph, row, weights):
    steps = STEP * np.eye(row.size).reshape(-1, *row.shape)
    (y,) = run(graph, (np.concatenate([row + steps, row - steps]),))
    totals = (y * weights).reshape(2, row.size, -1).sum(-1)
    return ((totals[0] - totals[1]) / (2 * STEP)).reshape(row.shape)


def check(
    nodes,
    shape,
    constants=None,
    opset=17,
    sizes=(1, 2, 4),
    rng=0,
    draw=None,
    tolerance=1e-6,
    by_engines=True,
    apart=False,
    wrong=None,
):
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
        by_engines: Whether engines run it, too; one may refuse the operator.
        apart: As of `by_differences`.
        wrong: Has y of engines compared, too, but for those named here, "ONNX Runtime" or "OpenVINO".
    """
    rng = np.random.default_rng(rng)
    draw = draw or (lambda rng, shape: rng.standard_normal(shape))
    graph = read(model(nodes, shape, constants, opset))
    folded, traced = trace(graph, draw(rng, (1, *shape)), run)
    derived, names = derive(folded, traced, "y", "seed", ["x"])
    derived = derived.pruned(["y", *names])
    single_graph = gradient_graph(
        nodes, shape, constants, opset, draw(rng, (1, *shape)), np.float32, forward=wrong is not None
    )
    single = programs(single_graph) if by_engines else {}
    for size in sizes:
        x = draw(rng, (size, *shape))
        (y,) = run(graph, (x,))
        seed = rng.standard_normal(y.shape)
        expected = by_differences(graph, x, seed, apart)
        again, gradient = run(derived, (x, seed))
        np.testing.assert_allclose(again, y, rtol=1e-12, atol=1e-12)
        allowed = tolerance * max(1.0, np.abs(expected).max())
        assert gradient.shape == x.shape
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=allowed)
        allowed = max(allowed, 1e-4 * max(1.0, np.abs(expected).max()))
        for name, program in single.items():
            *forward, result = program(x=x.astype(np.float32), seed=seed.astype(np.float32))
            np.testing.assert_allclose(result, expected, rtol=0, atol=allowed)
            for each in forward if name not in (wrong or ()) else ():
                np.testing.assert_allclose(each, y, rtol=0, atol=1e-4)


def gradient_graph(nodes, shape, constants=None, opset=17, example=None, dtype=np.float64, run=run, forward=False):
    """A graph of x and seed with one output: the gradient of sum(y * seed) by x; `run` runs graphs to trace them.

    With `forward`, y comes before it.
    """
    graph = read(model(nodes, shape, constants, opset, dtype=dtype))
    example = np.ones((1, *shape)) if example is None else example
    derived, names = derive(*trace(graph, example.astype(dtype), run), "y", "seed", ["x"])
    return derived.pruned([*["y"] * forward, *names])


def engines(graph):
    """The graph's first output by ONNX Runtime and by OpenVINO."""
    for program in programs(graph).values():
        yield lambda program=program, **rows: program(**rows)[0]


def programs(graph):
    """What runs the graph: its inputs by name → its outputs, by names of engines."""
    import onnxruntime

    serialised = write(graph).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(serialised, options)
    core = _openvino()
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(serialised), "CPU", hints)
    # Engines drop inputs that the gradient does not depend on, and give inputs the names of what equals them, too.
    fed = [each.name for each in session.get_inputs()]
    taken = [next(name for name in graph.inputs if name in each.get_names()) for each in compiled.inputs]
    return {
        "ONNX Runtime": lambda **rows: session.run(None, {name: rows[name] for name in fed}),
        "OpenVINO": lambda **rows: list(compiled({name: rows[name] for name in taken}).values()),
    }


@cache
def _openvino():
    import openvino

    core = openvino.Core()
    # MindSpore's copy of oneDNN needs a limit, with which this one fails at some shapes. Each reads it once.
    limit = os.environ.pop("ONEDNN_MAX_CPU_ISA", None)
    core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if limit is not None:
        os.environ["ONEDNN_MAX_CPU_ISA"] = limit
    return core
