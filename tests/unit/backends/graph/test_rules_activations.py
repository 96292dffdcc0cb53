"""Rules of activations."""

from differences import check
from onnx import helper


def test_relu():
    check(helper.make_node("Relu", ["x"], ["y"]), (3, 4))
