"""Rules of pools."""

from itertools import product

import numpy as np
import pytest
from differences import check, engines, gradient_graph, model, run
from onnx import helper

from xai_sidecar.backends.graph.graph import read
from xai_sidecar.backends.graph.rules import NotDerivableError

POOLS = {
    "apart": ((2, 4, 6), {"kernel_shape": [2, 3], "strides": [2, 3]}),
    "apart, a rest": ((2, 5, 8), {"kernel_shape": [2, 3], "strides": [2, 3]}),
    "overlapping": ((2, 7, 5), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "overlapping, even": ((2, 6, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "an uneven border": ((2, 6, 5), {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [0, 1, 2, 0]}),
    "strides of one": ((2, 4, 5), {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1]}),
    "a window that is wide": ((1, 7, 6), {"kernel_shape": [5, 4], "strides": [2, 3], "pads": [2, 1, 2, 2]}),
    "gaps": ((2, 7, 8), {"kernel_shape": [2, 1], "strides": [4, 3]}),
    "rows": ((2, 4, 5), {"kernel_shape": [1, 3], "strides": [1, 2]}),
    "columns": ((2, 5, 3), {"kernel_shape": [3, 1], "pads": [1, 0, 1, 0]}),
    "one element": ((2, 3, 2), {"kernel_shape": [1, 1]}),
    "everything": ((2, 4, 3), {"kernel_shape": [4, 3]}),
    "rounded up": ((2, 6, 7), {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    "rounded up, border": (
        (2, 6, 8),
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    ),
    "one axis": ((2, 7), {"kernel_shape": [3], "strides": [2], "pads": [1, 0]}),
    "three axes": ((1, 3, 4, 4), {"kernel_shape": [2, 3, 2], "strides": [1, 1, 2], "pads": [1, 1, 0, 0, 1, 0]}),
}
DILATED = {
    "dilations": ((2, 6, 7), {"kernel_shape": [2, 3], "dilations": [3, 2]}),
    "dilations and strides": (
        (2, 9, 8),
        {"kernel_shape": [3, 2], "dilations": [2, 3], "strides": [3, 2], "pads": [1, 0, 1, 1]},
    ),
    "dilations that miss places": ((2, 8, 9), {"kernel_shape": [2, 3], "dilations": [2, 2], "strides": [4, 2]}),
}
BORDERS = [{"kernel_shape": size, "strides": strides} for size, strides in (([2, 3], [1, 1]), ([3, 2], [2, 3]))]


@pytest.mark.parametrize(("shape", "attributes"), [*POOLS.values(), *DILATED.values()], ids=[*POOLS, *DILATED])
def test_maximum(shape, attributes):
    check(helper.make_node("MaxPool", ["x"], ["y"], **attributes), shape, opset=12, sizes=(1, 3), apart=True, wrong=())


@pytest.mark.parametrize(("shape", "attributes"), POOLS.values(), ids=POOLS)
def test_average(shape, attributes):
    node = helper.make_node("AveragePool", ["x"], ["y"], **attributes)
    check(node, shape, opset=11, sizes=(1, 3), apart=True, wrong=())


BORDERED = {name: pool for name, pool in POOLS.items() if "pads" in pool[1] or "ceil_mode" in pool[1]}


@pytest.mark.parametrize(("shape", "attributes"), BORDERED.values(), ids=BORDERED)
def test_average_with_the_border(shape, attributes):
    node = helper.make_node("AveragePool", ["x"], ["y"], count_include_pad=1, **attributes)
    # OpenVINO counts what is beyond the border, too.
    wrong = ("OpenVINO",) if "ceil_mode" in attributes and "pads" in attributes else ()
    check(node, shape, opset=11, sizes=(1, 3), apart=True, wrong=wrong)


@pytest.mark.parametrize("count_include_pad", [0, 1])
@pytest.mark.parametrize(("shape", "attributes"), DILATED.values(), ids=DILATED)
def test_average_with_dilations(shape, attributes, count_include_pad):
    node = helper.make_node("AveragePool", ["x"], ["y"], count_include_pad=count_include_pad, **attributes)
    check(node, shape, opset=19, sizes=(1, 3), apart=True, wrong=())


@pytest.mark.parametrize("opset", [13, 18, 22])
@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("name", ["overlapping", "apart, a rest"])
def test_newer_versions(kind, name, opset):
    shape, attributes = POOLS[name]
    check(helper.make_node(kind, ["x"], ["y"], **attributes), shape, opset=opset, sizes=(2,), apart=True, wrong=())


@pytest.mark.parametrize("auto_pad", ["VALID", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("attributes", BORDERS, ids=str)
@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_automatic_borders(kind, auto_pad, attributes):
    check(
        helper.make_node(kind, ["x"], ["y"], auto_pad=auto_pad, **attributes),
        (2, 7, 8),
        opset=11,
        sizes=(1, 3),
        apart=True,
        wrong=(),
    )


@pytest.mark.parametrize("opset", [11, 22])
@pytest.mark.parametrize("kind", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4), (2, 2, 1, 3)], ids=str)
def test_global(kind, shape, opset):
    check(helper.make_node(kind, ["x"], ["y"]), shape, opset=opset, apart=True)


TIES = {
    "overlapping": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    "apart": {"kernel_shape": [2, 3], "strides": [2, 3]},
    "strides of one": {"kernel_shape": [3, 2]},
    "dilations": {"kernel_shape": [2, 3], "dilations": [2, 1], "strides": [2, 2], "pads": [0, 1, 1, 0]},
}


@pytest.mark.parametrize("attributes", TIES.values(), ids=TIES)
def test_of_equal_elements_the_first_one_row_by_row_gets_the_gradient(attributes):
    node = helper.make_node("MaxPool", ["x"], ["y"], **attributes)
    x = np.random.default_rng(3).integers(0, 3, (2, 2, 6, 7)).astype(float)
    check_ties(node, x, lambda seed: by_loop(x, seed, **attributes))


def test_of_equal_elements_of_a_channel_the_first_one_row_by_row_gets_the_gradient():
    x = np.random.default_rng(3).integers(0, 3, (2, 2, 3, 4)).astype(float)
    whole = {"kernel_shape": [3, 4]}
    check_ties(helper.make_node("GlobalMaxPool", ["x"], ["y"]), x, lambda seed: by_loop(x, seed, **whole))


def check_ties(node, x, expect):
    double = gradient_graph(node, x.shape[1:], opset=12)
    single = gradient_graph(node, x.shape[1:], opset=12, dtype=np.float32)
    seed = np.random.default_rng(4).standard_normal((len(x), *output_shape(node, x)))
    expected = expect(seed)
    np.testing.assert_allclose(run(double, (x, seed))[0], expected, atol=1e-12)
    for engine in engines(single):
        result = engine(x=x.astype(np.float32), seed=seed.astype(np.float32))
        np.testing.assert_allclose(result, expected, atol=1e-5)


def output_shape(node, x):
    return run(read(model(node, x.shape[1:], opset=12)), (x,))[0].shape[1:]


def by_loop(x, seed, kernel_shape, strides=(1, 1), dilations=(1, 1), pads=(0, 0, 0, 0)):
    """The gradient of a maximum, element by element, as it is said in words."""
    gradient = np.zeros_like(x)
    for row, channel, *window in product(*map(range, seed.shape)):
        largest, where = -np.inf, None
        for element in product(*map(range, kernel_shape)):
            place = tuple(window[a] * strides[a] - pads[a] + element[a] * dilations[a] for a in (0, 1))
            inside = all(0 <= place[a] < x.shape[2 + a] for a in (0, 1))
            if inside and x[(row, channel, *place)] > largest:
                largest, where = x[(row, channel, *place)], place
        gradient[(row, channel, *where)] += seed[(row, channel, *window)]
    return gradient


REFUSED = {
    "auto_pad": {"kernel_shape": [2, 2], "dilations": [2, 2], "auto_pad": "SAME_UPPER"},
    "ceil_mode": {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [0, 0, 1, 1], "ceil_mode": 1},
}


@pytest.mark.parametrize(("named", "attributes"), REFUSED.items(), ids=REFUSED)
@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_windows_in_which_engines_disagree_are_refused(kind, named, attributes):
    with pytest.raises(NotDerivableError, match=rf"{kind} .*\({named}\)"):
        gradient_graph(helper.make_node(kind, ["x"], ["y"], **attributes), (1, 5, 5), opset=19)


def test_norms_of_windows_are_refused():
    with pytest.raises(NotDerivableError, match="LpPool"):
        gradient_graph(helper.make_node("LpPool", ["x"], ["y"], kernel_shape=[2, 2]), (1, 3, 3), opset=18)
