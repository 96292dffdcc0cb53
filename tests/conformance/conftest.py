"""Small nets whose answers can be worked out without MindSpore."""

from dataclasses import replace

import numpy as np
import pytest

from xai_sidecar.backends.graph.backend import GraphBackend
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.backends.mindspore.backend import MindSporeBackend
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.source import ModelSource
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.work import (
    INPUT_GRADIENT,
    Features,
    Forward,
    Kind,
    MaskedForward,
    MaskedOodScore,
    OodScore,
    drive,
)
from xai_sidecar.ood.head import OodHead, TrainingRecord

# MindSpore takes no device any more once something has run, and which tests run first is not for the tests to say.
ms.set_device("CPU")


class SmallNet(nn.Cell):
    """Convolution, ReLU, strided convolution, ReLU, mean, dense; one ReLU cell serves twice."""

    def __init__(self, channels=3, classes=4):
        super().__init__()
        generator = np.random.default_rng(5)

        def weight(*shape):
            return ms.Tensor(generator.normal(0, 0.5, shape).astype(np.float32))

        self.first = nn.Conv2d(
            channels,
            5,
            3,
            pad_mode="pad",
            padding=1,
            has_bias=True,
            weight_init=weight(5, channels, 3, 3),
            bias_init=weight(5),
        )
        self.second = nn.Conv2d(5, 6, 3, stride=2, pad_mode="pad", padding=1, weight_init=weight(6, 5, 3, 3))
        self.relu = nn.ReLU()
        self.features = nn.SequentialCell([self.first, self.relu, self.second, nn.ReLU()])
        self.head = nn.Dense(6, classes, weight_init=weight(classes, 6), bias_init=weight(classes))

    def construct(self, x):
        return self.head(self.features(x).mean((2, 3)))


class NumpySmallNet:
    """The same in float64, written out: the independent answer."""

    def __init__(self, net):
        self.weights = {p.name: p.asnumpy().astype(np.float64) for p in net.get_parameters()}

    def layer(self, x):
        """(C, H, W) → (6, H/2, W/2), the output of `features`."""
        names = sorted(self.weights)
        first = next(self.weights[n] for n in names if self.weights[n].ndim == 4 and self.weights[n].shape[0] == 5)
        bias = next(self.weights[n] for n in names if self.weights[n].shape == (5,))
        second = next(self.weights[n] for n in names if self.weights[n].ndim == 4 and self.weights[n].shape[0] == 6)
        hidden = np.maximum(convolved(x, first, 1) + bias[:, None, None], 0)
        return np.maximum(convolved(hidden, second, 2), 0)

    def top(self, activations):
        """The output of `features` → logits."""
        return self.weights["head.weight"] @ activations.mean(axis=(1, 2)) + self.weights["head.bias"]

    def logits(self, x):
        return self.top(self.layer(x))


def convolved(x, weight, stride):
    """A 3x3 convolution with a rim of one zero, by its definition."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("chwij,ocij->ohw", windows, weight)


def derived(function, x, step=1e-6):
    """The gradient of a scalar function by central differences, in float64."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        gradient[index] = (function(x + shift) - function(x - shift)) / (2 * step)
    return gradient


HEIGHT, WIDTH = 8, 12


@pytest.fixture(scope="session")
def small_net():
    return SmallNet()


@pytest.fixture(scope="session")
def numpy_net(small_net):
    return NumpySmallNet(small_net)


KINDS = [
    Forward.kind,
    MaskedForward.kind,
    Features.kind,
    OodScore.kind,
    MaskedOodScore.kind,
    INPUT_GRADIENT,
    Kind("input_gradient", relu_rule="guided"),
    Kind("input_gradient", relu_rule="deconvolution"),
    Kind("layer_gradient", "features"),
]


def make_head(version, classes=4, features=6):
    """An OoD net's head with weights drawn at random."""
    weights = np.random.default_rng(8).normal(0, 1, (classes, features)).astype(np.float32)
    record = TrainingRecord(100, 1.7e9, {"noise": 0.9}, version, features, classes, "folders", "pictures", 90, 0)
    return OodHead(weights, np.arange(classes, dtype=np.int32), np.linspace(0, 1, 50, dtype=np.float32), record)


@pytest.fixture
def head_of():
    """Makes an OoD net's head that was trained for a version of a classifier."""
    return make_head


def make_backend(net, *sizes, **more):
    source = ModelSource("", height=HEIGHT, width=WIDTH, batch_sizes=sizes, gradient_batch_sizes=sizes, **more)
    head = make_head(MindSporeBackend(source, net=net).version)
    return MindSporeBackend(replace(source, ood=head), net=net)


def file_backend(net, path, *sizes):
    """The small net in an ONNX file, written out by hand, as a backend."""
    from onnx import TensorProto, helper, numpy_helper, save

    weights = (net.first.weight, net.first.bias, net.second.weight, net.head.weight, net.head.bias)
    first, bias, second, head_weights, head_bias = (weight.asnumpy() for weight in weights)
    padded = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], **padded),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], strides=[2, 2], **padded),
        helper.make_node("Relu", ["c"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "w3", "b3"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = {"w1": first, "b1": bias, "w2": second, "w3": head_weights, "b3": head_bias}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", first.shape[1], HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    source = GraphSource(path, height=HEIGHT, width=WIDTH, batch_sizes=sizes, gradient_batch_sizes=sizes)
    head = make_head(GraphBackend(source).version)
    return GraphBackend(replace(source, ood=head))


@pytest.fixture(scope="session", params=["mindspore", "onnxruntime", "openvino", "file"])
def small_backend(request, small_net, tmp_path_factory):
    """The small net at 8 x 12 on each engine, in batch sizes 1, 2, 3 and 4 for everything."""
    if request.param == "file":
        backend = file_backend(small_net, tmp_path_factory.mktemp("onnx") / "small.onnx", 1, 2, 3, 4)
    else:
        backend = make_backend(small_net, 1, 2, 3, 4, forward_engine=request.param)
    said = []
    assert not backend.warm_up(KINDS, said.append)
    assert request.param == "file" or backend.engine.startswith(request.param)
    assert not [line for line in said if line.startswith("MindSpore runs")], "not everything runs on that engine"
    return backend


@pytest.fixture(scope="session")
def small_engine(small_net):
    """The small net in an engine, in batch sizes 1 and 4."""
    engine = Engine(lambda: make_backend(small_net, 1, 4))
    engine.start(lambda backend: KINDS).result(120)
    yield engine
    assert engine.close(60)


@pytest.fixture(scope="session")
def images():
    """Four model inputs, (4, 3, 8, 12) float32."""
    return np.random.default_rng(2).standard_normal((4, 3, HEIGHT, WIDTH)).astype(np.float32)


@pytest.fixture(scope="session")
def derive():
    return derived


@pytest.fixture(scope="session")
def run_in_chunks():
    """Drives a computation on a backend, its rows cut into launches of one size, the last one padded."""

    def run_in_chunks(backend, steps, size):
        def run(kind, rows):
            outputs = []
            for start in range(0, len(rows[0]), size):
                part = [array[start : start + size] for array in rows]
                count = len(part[0])
                part = [np.concatenate([array, np.repeat(array[-1:], size - count, axis=0)]) for array in part]
                outputs.append([output[:count] for output in backend.run(kind, tuple(part))])
            return tuple(np.concatenate(column) for column in zip(*outputs, strict=True))

        return drive(steps, run)

    return run_in_chunks
