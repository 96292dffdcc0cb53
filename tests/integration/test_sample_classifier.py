"""The sample classifier as a MindSpore cell, against its graph and the figures of its weights' PyTorch package."""

import copy

import numpy as np
import onnxruntime
import pytest

from xai_sidecar import imaging
from xai_sidecar.backends.mindspore.runtime import ms
from xai_sidecar.zoo import sample

SPEC = imaging.InputSpec(3, 224, 224, 256, 256, False, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3)

# From efficientnet-lite-pytorch.
REFERENCE = {
    "chelsea": {282: 0.386, 285: 0.356, 281: 0.169},
    "coffee": {967: 0.951},
    "camera": {872: 0.937},
    "motorcycle_left": {665: 0.475},
}


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    from xai_sidecar.zoo.efficientnet_lite import efficientnet_lite0

    checkpoint = sample.sample_checkpoint(tmp_path_factory.mktemp("cache"))
    cell = efficientnet_lite0()
    parameters = ms.load_checkpoint(str(checkpoint), format="safetensors")
    assert ms.load_param_into_net(cell, parameters, strict_load=True) == ([], [])
    return cell.set_train(False)


@pytest.fixture(scope="module")
def logits(net):
    compiled = ms.jit(net)
    return lambda array: compiled(ms.Tensor(array[None])).asnumpy()[0].astype(np.float64)


@pytest.fixture(scope="module")
def probabilities(logits):
    def probabilities(array):
        values = logits(array)
        exponents = np.exp(values - values.max())
        return exponents / exponents.sum()

    return probabilities


@pytest.mark.parametrize("name", REFERENCE)
def test_reference_figures(probabilities, name):
    picture = imaging.decode(sample.sample_picture(name).read_bytes(), 10_000_000)
    got = probabilities(imaging.prepare(picture, SPEC).array)
    for class_id, expected in REFERENCE[name].items():
        assert got[class_id] == pytest.approx(expected, abs=0.01)
    assert got.argmax() == next(iter(REFERENCE[name]))


def test_the_graph_computes_the_same(logits, tmp_path):
    session = onnxruntime.InferenceSession(sample.prepare_sample(tmp_path).onnx)
    noise = np.random.default_rng(0).standard_normal((3, 224, 224)).astype(np.float32)
    pictures = [imaging.decode(sample.sample_picture(name).read_bytes(), 10_000_000) for name in REFERENCE]
    inputs = np.stack([noise, *(imaging.prepare(picture, SPEC).array for picture in pictures)])
    (got,) = session.run(["logits"], {"input": inputs})
    expected = np.stack([logits(one) for one in inputs])
    assert (np.linalg.norm(got - expected, axis=1) <= 1e-4 * np.linalg.norm(expected, axis=1)).all()


def test_layers(net):
    names = {name for name, _ in net.cells_and_names()}
    assert {"stem", "head", "classifier", *(f"blocks.{index}" for index in range(16))} <= names
    assert "blocks.16" not in names
    # Every activation is a cell, which an explainer can replace: of the stem, of the head, and two of each block but
    # the first, which widens nothing.
    assert sum(isinstance(cell, ms.nn.ReLU6) for _, cell in net.cells_and_names()) == 2 + 2 * 16 - 1


def test_a_deep_copy_computes_the_same(net):
    picture = ms.Tensor(np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32))
    twin = copy.deepcopy(net)
    np.testing.assert_array_equal(twin(picture).asnumpy(), net(picture).asnumpy())
    assert twin.classifier.weight is not net.classifier.weight


def test_other_sizes_and_class_counts():
    from xai_sidecar.zoo.efficientnet_lite import efficientnet_lite0

    cell = efficientnet_lite0(num_classes=7).set_train(False)
    assert cell(ms.Tensor(np.zeros((2, 3, 97, 64), np.float32))).shape == (2, 7)
