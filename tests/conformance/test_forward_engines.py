"""What runs forward passes: the same answers whoever does, and the choice told."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from xai_sidecar.backends.mindspore.backend import MindSporeBackend
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.source import ModelSource
from xai_sidecar.backends.runtimes import onnxruntime
from xai_sidecar.backends.runtimes.openvino import OpenVino
from xai_sidecar.engine.batching import masked
from xai_sidecar.engine.work import (
    INPUT_GRADIENT,
    Features,
    Forward,
    Kind,
    MaskedForward,
    MaskedOodScore,
    OodScore,
)
from xai_sidecar.errors import ConfigError, PreconditionError
from xai_sidecar.ood.head import OodHead, TrainingRecord

ENGINES = pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "mindspore"])
KINDS = [Forward.kind, MaskedForward.kind, Features.kind, OodScore.kind, MaskedOodScore.kind]
QUIET = lambda line: None  # noqa: E731


def weight(*shape):
    """The same weights for the same shape, and no seed set for the tests that follow."""
    return ms.Tensor(np.random.default_rng(3).normal(0, 0.5, shape).astype(np.float32))


def convolution(inputs, outputs, **more):
    return nn.Conv2d(inputs, outputs, 3, weight_init=weight(outputs, inputs, 3, 3), **more)


class Net(nn.Cell):
    def __init__(self, last=False):
        super().__init__()
        self.last = last
        self.stem = convolution(3, 6, stride=2)
        self.relu = nn.ReLU()
        self.head = nn.Dense(6, 5, weight_init=weight(5, 6), bias_init=weight(5))

    def construct(self, x):
        if self.last:
            x = x.transpose(0, 3, 1, 2)
        return self.head(self.relu(self.stem(x)).mean((2, 3)))


def loaded(net, engine="auto", sizes=(1, 2, 4), **more):
    source = ModelSource("", height=8, width=12, batch_sizes=sizes, gradient_batch_sizes=(1,), forward_engine=engine)
    source = replace(source, **more)
    version = MindSporeBackend(source, net=net).version
    weights = np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32)
    record = TrainingRecord(100, 1.7e9, {}, version, 6, 5, "folders", "pictures", 90, 0)
    head = OodHead(weights, np.arange(5, dtype=np.int32), np.linspace(-1, 1, 21, dtype=np.float32), record)
    return MindSporeBackend(replace(source, ood=head), net=net)


def inputs(count):
    return np.random.default_rng(5).standard_normal((count, 3, 8, 12)).astype(np.float32)


def cosines(features, weights):
    return np.array(
        [[f @ w / np.linalg.norm(f) / np.linalg.norm(w) for w in weights] for f in features.astype(np.float64)]
    )


@pytest.fixture(scope="module", params=itertools.product(("onnxruntime", "openvino", "mindspore"), ("nchw", "nhwc")))
def compiled(request):
    """A net in a layout, and a backend with all kinds of forward passes of it."""
    engine, layout = request.param
    net = Net(layout == "nhwc")
    backend = loaded(net, engine, layout=layout)
    assert not backend.warm_up(KINDS, QUIET)
    assert backend.engine.startswith(engine)
    return net, layout, backend


@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_kind_of_forward_pass(compiled, size):
    net, layout, backend = compiled
    x = inputs(size)
    seen = ms.Tensor(x if layout == "nchw" else x.transpose(0, 2, 3, 1))
    logits = net(seen).asnumpy()
    features = net.relu(net.stem(ms.Tensor(x))).mean((2, 3)).asnumpy()
    np.testing.assert_allclose(backend.run(Forward.kind, (x,))[0], logits, atol=1e-5)
    for output, right in zip(backend.run(Features.kind, (x,)), (features, logits), strict=True):
        np.testing.assert_allclose(output, right, atol=1e-5)
    weights = np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32)
    scores, percentiles, same = backend.run(OodScore.kind, (x,))
    np.testing.assert_allclose(scores, cosines(features, weights).max(axis=1), atol=1e-5)
    reference = np.linspace(-1, 1, 21)
    np.testing.assert_allclose(percentiles, [100 * (reference < score).mean() for score in scores])
    np.testing.assert_allclose(same, logits, atol=1e-5)
    masks = np.random.default_rng(6).random((size, 8, 12)).astype(np.float32)
    for fill in (0.0, 1.5, np.random.default_rng(7).standard_normal((3, 8, 12)).astype(np.float32)):
        rows = MaskedForward(x[0], masks, fill).rows
        covered = np.stack([x[0] * mask + fill * (1 - mask) for mask in masks]).astype(np.float32)
        expected = backend.run(Forward.kind, (covered,))[0]
        np.testing.assert_allclose(backend.run(MaskedForward.kind, rows)[0], expected, atol=1e-5)
        np.testing.assert_allclose(backend.run(MaskedOodScore.kind, rows)[2], expected, atol=1e-5)
        assert backend.costs(MaskedForward.kind) == backend.costs(Forward.kind)


def test_masking_by_its_definition():
    rng = np.random.default_rng(0)
    images, masks = rng.random((3, 2, 4, 5)).astype(np.float32), rng.random((3, 4, 5)).astype(np.float32)
    fill = rng.random((2, 4, 5)).astype(np.float32)
    one = MaskedForward(images[0], masks, fill).rows
    number = MaskedForward(images[0], masks, 2.0).rows
    zero = MaskedForward(images[0], masks).rows
    mixed = tuple(np.concatenate(pair) for pair in zip(one, MaskedForward(images[1], masks).rows, strict=True))
    for rows in (one, number, zero, mixed):
        expected = np.stack([i * m + f * (1 - m) for m, i, f in zip(*rows, strict=True)])
        np.testing.assert_allclose(masked(*rows), expected, atol=1e-6)
        assert masked(*rows).dtype == np.float32
    assert one[1].strides[0] == 0, "the image is copied for every mask"


class Skips(nn.Cell):
    """A layer that part of the net goes round, inside a block that is a layer, too."""

    def __init__(self):
        super().__init__()
        self.stem = convolution(3, 6, stride=2)
        self.block = nn.SequentialCell([convolution(6, 6), nn.ReLU()])
        self.head = nn.Dense(6, 5, weight_init=weight(5, 6), bias_init=weight(5))

    def construct(self, x):
        x = self.stem(x)
        return self.head((self.block(x) * x).mean((2, 3)))


class InPlace(nn.Cell):
    """Changes a tensor in place that another operation needs as it was."""

    def __init__(self):
        super().__init__()
        self.stem = convolution(3, 6, stride=2)
        self.relu = nn.ReLU()
        self.head = nn.Dense(6, 5, weight_init=weight(5, 6), bias_init=weight(5))

    def construct(self, x):
        y = self.relu(self.stem(x))
        y -= 1
        y += y * y
        return self.head(y.mean((2, 3)))


def test_gradients_of_what_changes_in_place():
    kinds = [Forward.kind, INPUT_GRADIENT, Kind("layer_gradient", "stem")]
    for engine in ("onnxruntime", "mindspore"):
        assert not loaded(InPlace(), engine).warm_up(kinds, QUIET)


def test_layers_of_the_graph_are_those_of_the_cell():
    sizes = (1, 3)
    kinds = [Forward.kind, Features.kind] + [Kind("layer_gradient", name) for name in ("stem", "block", "block.0")]
    both = []
    for engine in ("onnxruntime", "mindspore"):
        backend = loaded(Skips(), engine, gradient_batch_sizes=sizes)
        assert not backend.warm_up(kinds, QUIET)
        both.append(backend)
    rng = np.random.default_rng(1)
    for size in sizes:
        for _ in range(2):  # what was put in before must not stay
            x = rng.standard_normal((size, 3, 8, 12)).astype(np.float32)
            targets = rng.integers(0, 5, size).astype(np.int32)
            for kind in kinds[2:]:
                for ours, theirs in zip(*(one.run(kind, (x, targets)) for one in both), strict=True):
                    np.testing.assert_allclose(ours, theirs, atol=1e-5)
                    assert np.abs(theirs).max() > 1e-3


def test_a_faster_engine_is_chosen_where_it_is_right():
    told = []
    backend = loaded(Net())
    backend.warm_up([Forward.kind], told.append)
    assert backend.engine.startswith(("onnxruntime ", "openvino "))
    assert backend.engine_note == ""
    assert any("ONNX" in line for line in told)


def test_a_wrong_export_is_found_out_and_told(monkeypatch):
    """Wrong by 1 % in the third row of a batch of four, and nowhere else."""

    class SlightlyWrong(onnxruntime.OnnxProgram):
        def __call__(self, rows):
            outputs = super().__call__(rows)
            if len(rows[0]) == 4:
                outputs[-1][2] *= 1.01
            return outputs

    monkeypatch.setattr(onnxruntime, "OnnxProgram", SlightlyWrong)
    monkeypatch.setattr(OpenVino, "missing", lambda self: "openvino is not installed")
    backend, told = loaded(Net()), []
    assert not backend.warm_up(KINDS, told.append)
    assert backend.engine.startswith("mindspore ")
    assert "in row 2" in backend.engine_note
    assert told.count(backend.engine_note) == 1
    x = inputs(4)
    np.testing.assert_allclose(backend.run(Forward.kind, (x,))[0], Net()(ms.Tensor(x)).asnumpy(), atol=1e-5)
    with pytest.raises(ConfigError) as caught:
        loaded(Net(), "onnxruntime").warm_up([Forward.kind], QUIET)
    assert caught.value.field == "model.forward_engine"


class NoExport(Net):
    def construct(self, x):
        return super().construct(ms.ops.hardswish(x))


def test_a_net_that_cannot_be_exported_runs_on_mindspore():
    backend = loaded(NoExport())
    assert not backend.warm_up([Forward.kind], QUIET)
    assert backend.engine.startswith("mindspore ")
    assert "MindSpore runs this net" in backend.engine_note
    assert "HSwish" in backend.engine_note


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    backend = loaded(Net())
    backend.warm_up([Forward.kind], QUIET)
    assert backend.engine.startswith("mindspore ")
    assert "onnxruntime" in backend.engine_note


class Bent(Net):
    """The same weights under the same names, another activation."""

    def construct(self, x):
        return self.head(ms.ops.tanh(self.stem(x)).mean((2, 3)))


def test_the_version_of_features_tells_what_they_depend_on():
    source = ModelSource("", height=8, width=12, batch_sizes=(1,), gradient_batch_sizes=(1,), preparation="mean 0")
    same = MindSporeBackend(source, net=Net()).version
    assert MindSporeBackend(source, net=Net()).version == same
    others = [
        MindSporeBackend(replace(source, preparation="mean 1"), net=Net()),
        MindSporeBackend(replace(source, height=16), net=Net()),
        MindSporeBackend(source, net=Bent()),
    ]
    assert len({same, *(other.version for other in others)}) == 4


def test_an_ood_net_of_another_classifier_is_refused():
    source = ModelSource("", height=8, width=12, batch_sizes=(1,), gradient_batch_sizes=(1,))
    record = TrainingRecord(100, 1.7e9, {}, "another", 6, 5, "folders", "pictures", 90, 0)
    head = OodHead(np.ones((5, 6), np.float32), np.arange(5, dtype=np.int32), np.zeros(1, np.float32), record)
    with pytest.raises(ConfigError, match="was trained for the classifier of version another") as caught:
        MindSporeBackend(replace(source, ood=head), net=Net())
    assert caught.value.field == "ood.checkpoint"


def test_scores_without_an_ood_net():
    backend = MindSporeBackend(ModelSource("", height=8, width=12, batch_sizes=(1,)), net=Net())
    backend.warm_up([Forward.kind], QUIET)
    assert backend.ood is None
    with pytest.raises(PreconditionError, match=r"ood\.checkpoint"):
        backend.run(OodScore.kind, (inputs(1),))
