"""Rules of operators that put values together along an axis, and of those that take parts of them."""

import numpy as np
import pytest
from differences import check, gradient_graph
from onnx import helper

from xai_sidecar.backends.graph.derivative import NotDerivableError

node = helper.make_node
SQUARE = node("Mul", ["x", "x"], ["square"])
FAR = np.iinfo(np.int64).max


def integers(**constants):
    return {name: np.asarray(value, np.int64) for name, value in constants.items()}


@pytest.mark.parametrize("axis", [1, -1])
def test_concat(axis):
    """A value twice, and another between."""
    check([SQUARE, node("Concat", ["x", "square", "x"], ["y"], axis=axis)], (2, 3), sizes=(1, 3))


def test_concat_beside_the_batch():
    """Constants stand before and after what has the batch's length, as class tokens of merged sequences do."""
    nodes = [SQUARE, node("Concat", ["c", "square", "c", "c"], ["y"], axis=0)]
    check(nodes, (3,), {"c": np.ones((2, 3))}, sizes=(1, 3))


def test_concat_of_batches_is_refused():
    with pytest.raises(NotDerivableError, match=r"Concat \(y\).*axis"):
        gradient_graph([SQUARE, node("Concat", ["x", "square"], ["y"], axis=0)], (3,))


SPLITS = {
    "equal": ({"axis": 1}, None, ["a", "c"], 13),
    "attribute": ({"axis": -1, "split": [1, 2, 2, 1]}, None, ["b", "d"], 11),
    "input": ({"axis": -1}, [1, 2, 2, 1], ["a", "d"], 13),
    "number of outputs": ({"axis": 1, "num_outputs": 4}, None, ["b"], 18),
    "last ones unused": ({"axis": 1, "num_outputs": 4}, None, ["a", "b"], 18),
}


@pytest.mark.parametrize(("attributes", "lengths", "used", "opset"), SPLITS.values(), ids=SPLITS)
def test_split(attributes, lengths, used, opset):
    """Parts of different lengths, some of which nobody uses."""
    parts = ["a", "b", "c", "d"][: 3 if opset == 13 and lengths is None else 4]
    constants = integers(lengths=lengths) if lengths else {}
    nodes = [SQUARE, node("Split", ["square", *constants], parts, **attributes), node("Concat", used, ["y"], axis=-1)]
    check(nodes, (2, 6) if attributes["axis"] == -1 else (6, 2), constants, opset, sizes=(1, 2))


SLICES = {
    "middle": ([1], [3], [1], None),
    "axes left out": ([0, 1, 0], [FAR, 3, 1], None, None),
    "from the end, beyond": ([-3, 1], [-1, 1000], [-2, -1], None),
    "steps": ([0, 1], [FAR, FAR], [1, 2], [2, 3]),
    "backwards": ([-1, 2], [-FAR, 0], [1, 2], [-1, -1]),
    "backwards in steps": ([1000], [0], [2], [-2]),
    "batch backwards": ([-1, 0], [-FAR, 2], [0, 1], [-1, 1]),
    "batch whole": ([0, 1], [FAR, 4], [0, 2], [1, 2]),
}


@pytest.mark.parametrize(("starts", "ends", "axes", "steps"), SLICES.values(), ids=SLICES)
def test_slice(starts, ends, axes, steps):
    constants = integers(starts=starts, ends=ends)
    constants |= integers(axes=axes) if axes else {}
    constants |= integers(steps=steps) if steps else {}
    inputs = [name if name in constants else "" for name in ("starts", "ends", "axes", "steps")]
    slice_ = node("Slice", ["square", *inputs[: 4 if steps else 3]], ["y"])
    check([SQUARE, slice_], (3, 5), constants, opset=11 if steps else 13, sizes=(1, 3))


def test_slice_of_nothing():
    """An empty part has no gradient, but it has a shape."""
    cut = node("Slice", ["x", "starts", "ends", "axes"], ["none"])
    nodes = [cut, SQUARE, node("Concat", ["none", "square"], ["y"], axis=1)]
    check(nodes, (3,), integers(starts=[2], ends=[1], axes=[1]), sizes=(2,))


def test_slice_of_the_batch_is_refused():
    with pytest.raises(NotDerivableError, match=r"Slice \(y\).*axes"):
        gradient_graph(node("Slice", ["x", "starts", "ends"], ["y"]), (3,), integers(starts=[0], ends=[5]))


PADS = {
    "constant": ("constant", [0, 0, 1, 0, 0, 0, 2, 1], None, 11),
    "constant, negative": ("constant", [0, 0, -1, 2, 0, 0, 1, -2], None, 13),
    "constant, axes": ("constant", [1, -1, 2, -1], [-1, 2], 18),
    "reflect": ("reflect", [0, 0, 1, 3, 0, 0, 2, 2], None, 11),
    "edge": ("edge", [0, 0, 1, 3, 0, 0, 4, 0], None, 13),
    "wrap": ("wrap", [0, 0, 1, 3, 0, 0, 2, 1], None, 19),
    "reflect, axes": ("reflect", [1, 2], [-1], 18),
}


@pytest.mark.parametrize(("mode", "pads", "axes", "opset"), PADS.values(), ids=PADS)
def test_pad(mode, pads, axes, opset):
    inputs = ["square", "pads", "fill" if mode == "constant" else "", "axes" if axes else ""]
    constants = integers(pads=pads) | ({"fill": np.array(7.0)} if mode == "constant" else {})
    constants |= integers(axes=axes) if axes else {}
    while not inputs[-1]:
        inputs.pop()
    check([SQUARE, node("Pad", inputs, ["y"], mode=mode)], (1, 3, 4), constants, opset, sizes=(1, 2))


def test_negative_pads_of_other_modes_are_refused():
    with pytest.raises(NotDerivableError, match=r"Pad \(y\).*pads, mode edge"):
        gradient_graph(node("Pad", ["x", "pads"], ["y"], mode="edge"), (4,), integers(pads=[0, 1, 0, -1]))


PARTS = {
    "all": ([(0, 2), (2, 3), (3, 5)], 1, {"Concat"}),
    "rolled": ([(3, 5), (0, 3)], 2, {"Concat"}),
    "with a gap": ([(0, 2), (3, 5)], 1, {"Pad"}),
    "that overlap": ([(0, 3), (2, 5)], 1, {"Pad"}),
    "one of them twice": ([(0, 2), (2, 5), (0, 2)], 1, {"Pad"}),
}


@pytest.mark.parametrize(("bounds", "axis", "kinds"), PARTS.values(), ids=PARTS)
def test_parts_that_make_up_the_whole_are_put_in_a_row(bounds, axis, kinds):
    """Quicker than sums of what is padded with zeros."""
    nodes, constants = [SQUARE], integers(axis=[axis])
    for start, stop in bounds:
        constants |= integers(**{f"at {start}": [start], f"at {stop}": [stop]})
        nodes.append(node("Slice", ["square", f"at {start}", f"at {stop}", "axis"], [f"{len(nodes)}"]))
    nodes.append(node("Concat", [each.output[0] for each in nodes[1:]], ["y"], axis=axis))
    check(nodes, (5, 5)[:axis], constants, sizes=(1, 2), by_engines=len(bounds) == 2)
    graph = gradient_graph(nodes, (5, 5)[:axis], constants)
    assert {each.kind for each in graph.nodes} & {"Concat", "Pad"} == kinds
