"""The rule of Resize."""

from itertools import product

import numpy as np
import onnxruntime
import pytest
from differences import check, gradient_graph, model
from onnx import helper

from xai_sidecar.backends.graph.derivative import NotDerivableError
from xai_sidecar.backends.graph.graph import read, write

node = helper.make_node


def resize(name, **attributes):
    """The node, which has scales or sizes."""
    return node("Resize", ["x", "", *(["scales"] if name == "scales" else ["", "sizes"])], ["y"], **attributes)


def scales(*values):
    return {"scales": np.array(values, np.float32)}


RESIZES = {
    "nearest, whole": (resize("scales", mode="nearest"), scales(1, 1, 2, 3), 11),
    "nearest, as PyTorch's": (
        resize("scales", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        scales(1, 1, 2, 2),
        13,
    ),
    "nearest, smaller": (resize("scales", mode="nearest"), scales(1, 1, 0.7, 0.6), 13),
    "channels behind": (resize("scales", mode="nearest"), scales(1, 2, 3, 1), 13),
    "linear": (resize("scales", mode="linear"), scales(1, 1, 1.8, 2), 11),
    "linear, smaller": (
        resize("scales", mode="linear", coordinate_transformation_mode="asymmetric"),
        scales(1, 1, 0.7, 0.6),
        13,
    ),
    "linear, sizes": (
        resize("sizes", mode="linear", coordinate_transformation_mode="align_corners", axes=[3, 2]),
        {"sizes": np.array([3, 7])},
        18,
    ),
    "cubic": (resize("scales", mode="cubic", cubic_coeff_a=-0.5), scales(1, 1, 1.7, 0.6), 13),
    "cubic, nothing outside": (resize("scales", mode="cubic", exclude_outside=1), scales(1, 1, 2, 2), 13),
}


@pytest.mark.parametrize(("operator", "constants", "opset"), RESIZES.values(), ids=RESIZES)
def test_resize(operator, constants, opset):
    check(operator, (1, 3, 5), constants, opset, sizes=(2,))


def test_sizes_with_the_batch_size_in_them():
    """As PyTorch exports them for a free batch axis."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Slice", ["shape", "zero", "two", "zero"], ["front"]),
        node("Concat", ["front", "picture"], ["sizes"], axis=0),
        resize("sizes", mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
    ]
    constants = {"zero": np.array([0]), "two": np.array([2]), "picture": np.array([5, 2])}
    check(nodes, (1, 3, 4), constants, sizes=(1, 3))


MODES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]
LENGTHS = [(3, 7), (7, 3), (4, 6), (5, 1), (1, 3), (10, 6), (3, 6)]


@pytest.mark.parametrize("coordinates", MODES)
def test_as_the_engine_resizes(coordinates):
    """A product of x with the gradient is one of the seed with what ONNX Runtime makes of x: all resizes in a row."""
    nodes, constants = [], {"axis": np.array([2]), "zero": np.array([0])}
    kinds = [("linear", "floor"), ("cubic", "floor")]
    if coordinates != "half_pixel_symmetric":
        kinds += [("nearest", rounding) for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")]
    for (before, after), (mode, rounding) in product(LENGTHS, kinds):
        more = {"mode": mode, "nearest_mode": rounding, "coordinate_transformation_mode": coordinates}
        constants[f"{before}"] = np.array([before])
        constants[f"to {after}"] = np.array([after, 5])
        constants[f"by {after / before}"] = np.array([1, 1, after / before + 0.01, 1.3], np.float32)
        cut, *ends = (f"{len(nodes)}/{what}" for what in ("cut", "sizes", "scales"))
        nodes += [
            node("Slice", ["x", "zero", f"{before}", "axis"], [cut]),
            node("Resize", [cut, "", "", f"to {after}"], [f"{ends[0]}/square"], axes=[2, 3], **more),
            node("Resize", [cut, "", f"by {after / before}"], [f"{ends[1]}/square"], **more),
            *(node("Flatten", [f"{end}/square"], [end]) for end in ends),
        ]
    flat = [each.output[0] for each in nodes if each.op_type == "Flatten"]
    nodes.append(node("Concat", flat, ["y"], axis=1))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 1, 10, 4)).astype(np.float32)
    graph = read(model(nodes, x.shape[1:], constants, 19, dtype=np.float32))
    (y,) = run_by_engine(graph, (x,))
    seed = rng.standard_normal(y.shape).astype(np.float32)
    derived = gradient_graph(nodes, x.shape[1:], constants, 19, x[:1], np.float32, run_by_engine)
    (gradient,) = run_by_engine(derived, (x, seed))
    np.testing.assert_allclose(np.sum(gradient * x), np.sum(y * seed, dtype=np.float64), rtol=1e-5)


def run_by_engine(graph, rows):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(write(graph).SerializeToString(), options)
    given = dict(zip(graph.inputs, rows, strict=True))
    return session.run(None, {each.name: given[each.name] for each in session.get_inputs()})


REFUSED = {
    "antialias": (resize("scales", mode="linear", antialias=1), scales(1, 1, 0.5, 0.5), 18),
    "keep_aspect_ratio_policy": (
        resize("sizes", mode="linear", axes=[2, 3], keep_aspect_ratio_policy="not_larger"),
        {"sizes": np.array([2, 2])},
        18,
    ),
    "half_pixel_symmetric": (
        resize("scales", coordinate_transformation_mode="half_pixel_symmetric"),
        scales(1, 1, 2, 2),
        19,
    ),
    "batch size": (resize("scales", mode="nearest"), scales(2, 1, 1, 1), 13),
}


@pytest.mark.parametrize("why", REFUSED)
def test_refused(why):
    operator, constants, opset = REFUSED[why]
    with pytest.raises(NotDerivableError, match=rf"Resize \(y\).*{why}"):
        gradient_graph(operator, (1, 4, 4), constants, opset)
