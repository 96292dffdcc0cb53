"""Rules of convolutions."""

import numpy as np
import pytest
from differences import check, gradient_graph
from onnx import helper

from xai_sidecar.backends.graph.rules import NotDerivableError

CONVOLUTIONS = {
    "one by one": ((2, 3, 5), (4, 2, 1, 1), {}),
    "plain": ((2, 5, 4), (3, 2, 3, 2), {}),
    "a border on all sides": ((2, 4, 5), (3, 2, 3, 3), {"pads": [1, 1, 1, 1]}),
    "an uneven border": ((2, 4, 5), (3, 2, 3, 3), {"pads": [2, 0, 0, 1]}),
    "a border wider than the kernel": ((2, 3, 4), (3, 2, 1, 1), {"pads": [1, 1, 1, 1]}),
    "strides": ((2, 7, 6), (3, 2, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "strides that leave a rest": ((5, 8, 9), (3, 5, 3, 2), {"strides": [3, 4], "pads": [0, 1, 0, 0]}),
    "dilations": ((2, 6, 7), (3, 2, 2, 3), {"dilations": [3, 2], "pads": [1, 2, 0, 2]}),
    "strides and dilations": ((2, 8, 7), (3, 2, 2, 2), {"dilations": [3, 2], "strides": [2, 3], "pads": [1, 0, 2, 1]}),
    "groups": ((4, 5, 4), (6, 2, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "groups and strides": ((4, 5, 6), (6, 2, 3, 3), {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "channel by channel": ((3, 5, 4), (3, 1, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}),
    "channel by channel, strides": ((3, 6, 5), (3, 1, 3, 3), {"group": 3, "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    "two outputs for each channel": ((3, 5, 4), (6, 1, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}),
    "as wide as its strides": ((3, 6, 4), (5, 3, 2, 2), {"strides": [2, 2]}),
    "as wide as its strides, a rest": ((3, 7, 5), (5, 3, 2, 2), {"strides": [2, 2]}),
    "a first layer": ((1, 9, 8), (2, 1, 7, 7), {"strides": [2, 2], "pads": [3, 3, 3, 3]}),
    "a first layer, uneven border": ((1, 9, 8), (2, 1, 7, 7), {"strides": [2, 2], "pads": [2, 1, 3, 4]}),
    "a first layer, wide strides": ((1, 13, 12), (2, 1, 8, 7), {"strides": [4, 4], "pads": [2, 5, 1, 0]}),
    "one axis": ((2, 7), (3, 2, 3), {"pads": [1, 1]}),
    "one axis, strides": ((2, 8), (3, 2, 3), {"strides": [2], "pads": [0, 1]}),
    "three axes": ((1, 3, 4, 2), (2, 1, 2, 2, 2), {"pads": [0, 1, 0, 1, 0, 1]}),
    "three axes, strides": ((1, 3, 4, 3), (2, 1, 2, 2, 2), {"strides": [2, 2, 1]}),
}


@pytest.mark.parametrize(("shape", "kernels", "attributes"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution(shape, kernels, attributes):
    check_convolution("Conv", shape, kernels, kernels[0], **attributes)


@pytest.mark.parametrize("auto_pad", ["VALID", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(("size", "stride"), [(2, 1), (4, 2), (1, 2), (7, 2)])
def test_convolution_with_automatic_borders(auto_pad, size, stride):
    check_convolution("Conv", (2, 7, 8), (3, 2, size, size), 3, auto_pad=auto_pad, strides=[stride, stride])


TRANSPOSED = {
    "plain": ((2, 3, 4), (2, 3, 3, 2), {}),
    "strides": ((2, 3, 4), (2, 3, 3, 2), {"strides": [2, 3]}),
    "a border": ((2, 3, 4), (2, 3, 3, 3), {"strides": [2, 2], "pads": [1, 0, 0, 2]}),
    "extra elements": ((2, 3, 4), (2, 3, 3, 3), {"strides": [2, 3], "pads": [1, 1, 1, 1], "output_padding": [1, 2]}),
    "dilations": ((2, 3, 4), (2, 3, 2, 3), {"dilations": [3, 2], "pads": [1, 2, 0, 1]}),
    "groups": ((4, 3, 2), (4, 3, 3, 3), {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "channel by channel": ((3, 3, 2), (3, 1, 2, 2), {"group": 3, "strides": [2, 2]}),
    "one axis": ((2, 5), (2, 3, 3), {"strides": [2], "pads": [1, 0], "output_padding": [1]}),
    "three axes": ((1, 2, 3, 2), (1, 2, 2, 2, 2), {"strides": [1, 2, 2], "pads": [0, 1, 0, 1, 0, 1]}),
}


@pytest.mark.parametrize(("shape", "kernels", "attributes"), TRANSPOSED.values(), ids=TRANSPOSED)
def test_transposed_convolution(shape, kernels, attributes):
    check_convolution("ConvTranspose", shape, kernels, kernels[1] * attributes.get("group", 1), **attributes)


@pytest.mark.parametrize("auto_pad", ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("more", [{}, {"output_padding": [1, 0]}, {"output_shape": [5, 6]}], ids=str)
def test_transposed_convolution_with_automatic_borders(auto_pad, more):
    # OpenVINO cuts the smaller half off before, as for SAME_UPPER, and nothing without a shape.
    given = "output_shape" in more
    wrong = () if (auto_pad in ("NOTSET", "VALID")) != given else ("OpenVINO",)
    attributes = {"auto_pad": auto_pad, "strides": [2, 2], **more}
    check_convolution("ConvTranspose", (2, 3, 3), (2, 3, 3, 4), 3, wrong, **attributes)


def test_transposed_convolution_with_more_extra_elements_than_strides():
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], dilations=[3, 2], output_padding=[2, 1])
    weights = np.random.default_rng(1).standard_normal((2, 3, 2, 2))
    check(node, (2, 3, 4), {"w": weights}, opset=11, sizes=(2,), apart=True)  # ONNX Runtime refuses the node itself


@pytest.mark.parametrize("name", ["a border on all sides", "strides", "a first layer"])
def test_convolution_of_the_newest_version(name):
    shape, kernels, attributes = CONVOLUTIONS[name]
    check_convolution("Conv", shape, kernels, kernels[0], opset=22, **attributes)


def test_transposed_convolution_of_the_newest_version():
    shape, kernels, attributes = TRANSPOSED["extra elements"]
    check_convolution("ConvTranspose", shape, kernels, kernels[1], opset=22, **attributes)


def check_convolution(kind, shape, kernels, outputs, wrong=(), opset=11, **attributes):
    rng = np.random.default_rng(1)
    node = helper.make_node(kind, ["x", "w", "b"], ["y"], **attributes)
    constants = {"w": rng.standard_normal(kernels), "b": np.ones(outputs)}
    check(node, shape, constants, opset, sizes=(1, 3), apart=True, wrong=wrong)


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize(("channels", "attributes"), [(16, {"group": 2}), (12, {"strides": [2, 2]})], ids=str)
def test_the_forward_pass_and_the_gradient_use_the_same_kernels(kind, channels, attributes):
    # The activation keeps the forward pass in the gradient. With as many outputs as inputs, OpenVINO mixes kernels up
    # that a convolution and a transposed one have in common.
    convolution = helper.make_node(kind, ["x", "w"], ["c"], pads=[1, 1, 1, 1], **attributes)
    nodes = [convolution, helper.make_node("Sigmoid", ["c"], ["y"])]
    weights = np.random.default_rng(1).standard_normal((channels, channels // attributes.get("group", 1), 3, 3))
    check(nodes, (channels, 3, 2), {"w": weights / channels}, opset=11, sizes=(1,))


def test_kernels_that_are_others_flipped():
    # The gradient of the first convolution and that of the second, which has strides, take the same numbers.
    kernels = np.random.default_rng(1).standard_normal((8, 8, 3, 3)) / 8
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c", "flipped"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2]),
    ]
    flipped = np.flip(kernels.swapaxes(0, 1), (2, 3))
    check(nodes, (8, 3, 2), {"w": kernels, "flipped": flipped}, opset=11, sizes=(1,), apart=True)


def test_kernels_that_depend_on_the_picture_are_refused():
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["kernels"], axes=[0]),
        helper.make_node("Conv", ["x", "kernels"], ["y"]),
    ]
    with pytest.raises(NotDerivableError, match=r"Conv .* no derivative by its input 1, 'kernels'"):
        gradient_graph(nodes, (1, 3, 3), opset=11)


@pytest.mark.parametrize("kind", ["Conv", "MaxPool"])
def test_an_axis_that_goes_by_the_batch_size_is_refused(kind):
    inputs, attributes = (["t", "w"], {}) if kind == "Conv" else (["t"], {"kernel_shape": [1, 2]})
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 2, 0, 3]),
        helper.make_node(kind, inputs, ["y"], **attributes),
    ]
    with pytest.raises(NotDerivableError, match=rf"{kind} .* length goes by the batch size"):
        gradient_graph(nodes, (1, 2, 3), {"w": np.ones((1, 2, 1, 2))}, opset=11)


def test_an_output_that_kernels_do_not_fill_is_refused():
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], output_shape=[9, 9])
    with pytest.raises(NotDerivableError, match=r"ConvTranspose .*output_shape"):
        gradient_graph(node, (2, 3, 3), {"w": np.ones((2, 2, 3, 3))}, opset=11)
