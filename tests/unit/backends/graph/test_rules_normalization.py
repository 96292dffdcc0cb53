"""Rules of normalization."""

import numpy as np
import pytest
from differences import check, gradient_graph, run
from onnx import helper

from xai_sidecar.backends.graph.derivative import NotDerivableError

node = helper.make_node
MICROSOFT = "com.microsoft"


def numbers(*shape, rng=5):
    return np.random.default_rng(rng).uniform(0.5, 2, shape)


@pytest.mark.parametrize(("shape", "opset"), [((3,), 11), ((3, 2, 1), 15)])
def test_batch_normalization(shape, opset):
    constants = {name: numbers(3, rng=place) for place, name in enumerate("sbmv")}
    check(node("BatchNormalization", ["x", *"sbmv"], ["y"], epsilon=0.1), shape, constants, opset, sizes=(1, 3))


def test_batch_normalization_by_what_is_computed():
    """Weights that are not constants, as after a conversion of types."""
    nodes = [node("Identity", ["v"], ["variance"]), node("BatchNormalization", ["x", *"sbm", "variance"], ["y"])]
    constants = {name: numbers(2, rng=place) for place, name in enumerate("sbmv")}
    check(nodes, (2, 3), constants, sizes=(2,))


@pytest.mark.parametrize(("outputs", "attributes", "opset"), [(5, {}, 11), (1, {"training_mode": 1}, 15)])
def test_batch_normalization_in_training_is_refused(outputs, attributes, opset):
    nodes = node("BatchNormalization", ["x", *"cccc"], ["y", *"abde"][:outputs], **attributes)
    with pytest.raises(NotDerivableError, match=r"BatchNormalization \(y\).*training_mode"):
        gradient_graph(nodes, (3,), {"c": numbers(3)}, opset)


def test_instance_normalization():
    operator = node("InstanceNormalization", ["x", "s", "b"], ["y"], epsilon=0.1)
    check(operator, (2, 3, 2), {"s": numbers(2), "b": numbers(2)}, 11, sizes=(1, 2))


@pytest.mark.parametrize(("axis", "bias"), [(-1, True), (1, False), (None, False)])
def test_layer_normalization(axis, bias):
    constants = {"s": numbers(*((3, 4) if axis == 1 else (4,)))} | ({"b": numbers(4)} if bias else {})
    attributes = {"epsilon": 0.1} | ({} if axis is None else {"axis": axis})
    operator = node("LayerNormalization", ["x", *constants], ["y"], **attributes)
    check(operator, (3, 4), constants, sizes=(1, 2), by_engines=bias)


def test_layer_normalization_whose_mean_matters_is_refused():
    nodes = [node("LayerNormalization", ["x", "s"], ["normal", "mean"]), node("Add", ["normal", "mean"], ["y"])]
    with pytest.raises(NotDerivableError, match=r"LayerNormalization \(normal\)"):
        gradient_graph(nodes, (3,), {"s": numbers(3)})


@pytest.mark.parametrize(("opset", "scales"), [(18, 2), (21, 4)])
def test_group_normalization(opset, scales):
    operator = node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2, epsilon=0.1)
    check(operator, (4, 3, 2), {"s": numbers(scales), "b": numbers(scales)}, opset, sizes=(1, 2))


@pytest.mark.parametrize(
    ("kind", "domain", "opset"), [("RMSNormalization", "", 23), ("SimplifiedLayerNormalization", "", 17)]
)
def test_root_mean_square_normalization(kind, domain, opset):
    check(node(kind, ["x", "s"], ["y"], axis=-1, epsilon=0.1), (2, 3), {"s": numbers(3)}, opset, sizes=(1, 2))


@pytest.mark.parametrize(
    ("kind", "more"), [("SkipLayerNormalization", "bc"), ("SkipSimplifiedLayerNormalization", "c")]
)
@pytest.mark.parametrize("total", [True, False])
def test_skip_layer_normalization(kind, more, total):
    """Normalizes a sum, which may be used again."""
    outputs = ["normal", "", "", "total"] if total else ["normal"]
    nodes = [
        node("Mul", ["x", "x"], ["square"]),
        node(kind, ["x", "square", "s", *more], outputs, domain=MICROSOFT, epsilon=0.1),
        node("Mul", ["normal", outputs[-1]], ["y"]),
    ]
    constants = {name: numbers(4, rng=place) for place, name in enumerate("s" + more)}
    check(nodes, (2, 4), constants, sizes=(1, 2))


@pytest.mark.parametrize("attributes", [{}, {"p": 1, "axis": 1}, {"p": 2, "axis": -2}])
def test_norms(attributes):
    check(node("LpNormalization", ["x"], ["y"], **attributes), (3, 2), opset=11, sizes=(1, 2))


@pytest.mark.parametrize("power", [1, 2])
def test_norms_at_zero(power):
    graph = gradient_graph(node("LpNormalization", ["x"], ["y"], p=power), (3,))
    np.testing.assert_array_equal(*run(graph, (np.zeros((2, 3)), np.ones((2, 3)))), np.zeros((2, 3)))


@pytest.mark.parametrize("size", [3, 4, 5])
def test_local_response_normalization(size):
    """ONNX Runtime refuses even sizes, and OpenVINO takes a bias of 1.5 for 1."""
    operator = node("LRN", ["x"], ["y"], size=size, alpha=0.9, beta=0.6, bias=1.5 if size == 4 else 2.0)
    check(operator, (6, 1, 2), opset=11, sizes=(1, 2), by_engines=size == 5)


def test_local_response_normalization_by_default():
    check(
        node("LRN", ["x"], ["y"], size=3), (3, 1, 1), sizes=(2,), draw=lambda rng, shape: 100 * rng.normal(size=shape)
    )


@pytest.mark.parametrize("axes", [None, [1, -1], [2, 3]])
def test_mean_variance_normalization(axes):
    operator = node("MeanVarianceNormalization", ["x"], ["y"], **({"axes": axes} if axes else {}))
    check(operator, (2, 3, 2), opset=13, sizes=(2, 3))


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("group", [1, 3])
def test_factors_after_a_convolution_become_part_of_its_kernels(strides, group):
    """Those of a normalization, and of a scale for each channel after it."""
    kernels = np.random.default_rng(7).standard_normal((6, 3 // group, 2, 1))
    nodes = [
        node("Conv", ["x", "kernels"], ["convolved"], strides=[strides, 1], group=group),
        node("BatchNormalization", ["convolved", *"sbmv"], ["normal"]),
        node("Mul", ["scale", "normal"], ["scaled"]),
        node("Tanh", ["scaled"], ["y"]),
    ]
    constants = {name: numbers(6, rng=place) for place, name in enumerate("sbmv")}
    constants |= {"kernels": kernels, "scale": numbers(6, 1, 1)}
    check(nodes, (3, 4, 2), constants, sizes=(1, 2))
    graph = gradient_graph(nodes, (3, 4, 2), constants)
    assert [each for each in graph.nodes if each.kind == "Mul" and set(each.inputs) & set(graph.constants)] == [
        each for each in graph.nodes if "scaled" in each.outputs
    ]


def test_factors_stay_where_a_convolution_is_used_twice():
    nodes = [
        node("Conv", ["x", "kernels"], ["convolved"]),
        node("BatchNormalization", ["convolved", *"sbmv"], ["normal"]),
        node("Add", ["normal", "convolved"], ["y"]),
    ]
    constants = {name: numbers(2, rng=place) for place, name in enumerate("sbmv")} | {"kernels": numbers(2, 1, 1, 2)}
    check(nodes, (1, 2, 3), constants, sizes=(2,))
