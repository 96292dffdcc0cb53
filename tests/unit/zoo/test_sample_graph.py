"""The sample classifier's graph against the figures of its weights' own PyTorch package, and a convolution by hand."""

import numpy as np
import onnx
import onnxruntime
import pytest

from xai_sidecar import imaging
from xai_sidecar.zoo import sample, sample_graph

SPEC = imaging.InputSpec(3, 224, 224, 256, 256, False, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3)

# From efficientnet-lite-pytorch.
REFERENCE = {
    "chelsea": {282: 0.386, 285: 0.356, 281: 0.169},
    "coffee": {967: 0.951},
    "camera": {872: 0.937},
    "motorcycle_left": {665: 0.475},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return sample.prepare_sample(tmp_path_factory.mktemp("cache")).onnx


def test_reference_figures(path):
    pictures = [imaging.decode(sample.sample_picture(name).read_bytes(), 10_000_000) for name in REFERENCE]
    inputs = np.stack([imaging.prepare(picture, SPEC).array for picture in pictures])
    (logits,) = onnxruntime.InferenceSession(path).run(["logits"], {"input": inputs})
    exponents = np.exp(logits.astype(np.float64))
    for row, expected in zip(exponents / exponents.sum(axis=1, keepdims=True), REFERENCE.values(), strict=True):
        assert [row[class_id] for class_id in expected] == pytest.approx(list(expected.values()), abs=6e-4)
        assert row.argmax() == next(iter(expected))


def test_layers_lie_where_the_cells_do(path):
    onnx.checker.check_model(path)
    inferred = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    shapes = {
        value.name: tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    channels = [16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192, 320]
    sides = [112, 56, 56, 28, 28, 14, 14, 14, 14, 14, 14, 7, 7, 7, 7, 7]
    expected = {f"blocks.{i}": ("batch", c, s, s) for i, (c, s) in enumerate(zip(channels, sides, strict=True))}
    expected.update(stem=("batch", 32, 112, 112), head=("batch", 1280, 7, 7), logits=("batch", 1000))
    expected.update({"input": ("batch", 3, 224, 224), "blocks.0.depthwise": ("batch", 32, 112, 112)})
    expected.update({"blocks.2.project": ("batch", 24, 56, 56), "blocks.15.expand": ("batch", 1152, 7, 7)})
    assert {name: shapes.get(name) for name in expected} == expected
    kinds = [node.op_type for node in inferred.node]
    # A convolution for the stem, the head, and three of each block but the first, which widens nothing; ReLU6 behind
    # all but each block's last; an addition in each block that neither strides nor changes the number of channels.
    counts = {"Conv": 49, "Clip": 33, "Add": 9, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
    assert {kind: kinds.count(kind) for kind in set(kinds)} == counts


def test_a_batch_norm_is_folded_into_its_convolution():
    # The kernel 2 on the one channel, then (x - mean 5) / sqrt(variance 3.999 + 0.001) * 4 + 1: 4 x - 9 in all.
    weights = {"a.conv.weight": 2, "a.norm.gamma": 4, "a.norm.beta": 1, "a.norm.moving_mean": 5}
    weights["a.norm.moving_variance"] = 3.999
    kernel, bias = sample_graph._folded(
        {n: np.full((1, 1, 1, 1)[: 4 if "conv" in n else 1], v) for n, v in weights.items()}, "a"
    )
    assert (kernel.shape, bias.shape) == ((1, 1, 1, 1), (1,))
    assert (kernel.item(), bias.item()) == pytest.approx((4, -9))
