"""Exported nets, run by ONNX Runtime, against the nets themselves."""

import ast
import copy
import gc
import os
import sys
import tempfile

import numpy as np
import pytest

from xai_sidecar.backends.mindspore.onnx_export import ExportError, export_onnx
from xai_sidecar.backends.mindspore.programs import compiled_graphs, forward_program, release_graphs
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.runtimes.onnxruntime import OnnxProgram
from xai_sidecar.zoo.efficientnet_lite import efficientnet_lite0

HEIGHT, WIDTH = 8, 12
SIZES = (1, 2, 3, 8)


class Net(nn.Cell):
    """Cells for the nets below."""

    def __init__(self):
        super().__init__()
        generator = np.random.default_rng(3)

        def weight(*shape):
            return ms.Tensor(generator.normal(0, 0.3, shape).astype(np.float32))

        self.conv = nn.Conv2d(3, 4, 3, weight_init=weight(4, 3, 3, 3))
        self.relu = nn.ReLU()
        self.head = nn.Dense(4, 5, weight_init=weight(5, 4), bias_init=weight(5))
        self.wide_head = nn.Dense(4 * HEIGHT * WIDTH, 5, weight_init=weight(5, 4 * HEIGHT * WIDTH))
        self.flatten = nn.Flatten()
        self.hard_swish = nn.HSwish()
        self.token = ms.Parameter(weight(1, 1, 4), name="token")


class Flattened(Net):
    def construct(self, x):
        return self.wide_head(self.flatten(self.relu(self.conv(x))))


class FreeReshape(Net):
    def construct(self, x):
        return self.wide_head(self.relu(self.conv(x)).reshape((-1, 4 * HEIGHT * WIDTH)))


class BatchReshape(Net):
    def construct(self, x):
        return self.wide_head(self.relu(self.conv(x)).reshape(x.shape[0], -1))


class FullReshape(Net):
    def construct(self, x):
        return self.wide_head(self.relu(self.conv(x)).reshape(x.shape[0], 4 * HEIGHT * WIDTH))


class Windows(Net):
    """Attention's way: windows become rows, as many for each picture, and pictures again."""

    def construct(self, x):
        n = x.shape[0]
        x = self.conv(x).reshape(n, 4, 2, HEIGHT // 2, WIDTH).transpose(0, 2, 3, 4, 1).reshape(n * 2, -1, 4)
        x = ms.ops.softmax(x, 1) * x
        return self.head(x.reshape(n, 2, HEIGHT // 2, WIDTH, 4).mean((1, 2, 3)))


class Token(Net):
    """A row for the whole picture before those of its pixels, as in a vision transformer."""

    def construct(self, x):
        n = x.shape[0]
        pixels = self.conv(x).reshape(n, 4, HEIGHT * WIDTH).transpose(0, 2, 1)
        return self.head(ms.ops.concat((ms.ops.tile(self.token, (n, 1, 1)), pixels), 1).mean(1))


class Sliced(Net):
    """The end of a slice is 4 n - 1."""

    def construct(self, x):
        n = x.shape[0]
        planes = self.conv(x).reshape(n * 4, HEIGHT, WIDTH)
        rotated = ms.ops.concat((planes[n * 4 - 1 :], planes[: n * 4 - 1]), 0)
        return self.head((rotated + planes).reshape(n, 4, HEIGHT, WIDTH).mean((2, 3)))


class InPlace(Net):
    def construct(self, x):
        y = self.conv(x)
        z = self.relu(y)
        z += y
        z *= y
        return self.head(z.mean((2, 3)))


class FeaturesAndLogits(Net):
    def construct(self, x):
        features = self.relu(self.conv(x)).mean((2, 3))
        return features, self.head(features)


class ChannelsLast(Net):
    def construct(self, x):
        return self.head(self.conv(x.transpose(0, 3, 1, 2)).mean((2, 3)))


class HardSwish(Net):
    def construct(self, x):
        return self.head(self.hard_swish(self.conv(x)).mean((2, 3)))


class FloatsOfTheBatch(Net):
    def construct(self, x):
        return self.head(self.conv(x).mean((2, 3)) + ms.ops.full((1, 4), x.shape[0], dtype=ms.float32))


class RowNumbers(Net):
    """One constant has an integer for each row."""

    def construct(self, x):
        return self.head(ms.ops.gather(self.conv(x), ms.ops.arange(x.shape[0]), 0).mean((2, 3)))


class OneByOne(Net):
    def construct(self, x):
        return self.head(ms.ops.concat([self.conv(x[i : i + 1]) for i in range(x.shape[0])], 0).mean((2, 3)))


class OneAnswer(Net):
    def construct(self, x):
        return self.head(self.conv(x).mean((2, 3))).mean(0)


class Compiled(Net):
    @ms.jit
    def construct(self, x):
        return self.head(self.conv(x).mean((2, 3)))


def pictures(size, *shape):
    return np.random.default_rng(size).standard_normal((size, *(shape or (3, HEIGHT, WIDTH)))).astype(np.float32)


def outputs_of(net, inputs):
    outputs = net.set_train(False)(ms.Tensor(inputs))
    return [output.asnumpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


def check_same(net, *shape):
    program = OnnxProgram(export_onnx(net, pictures(1, *shape)))
    for size in SIZES:
        inputs = pictures(size, *shape)
        for output, expected in zip(program((inputs,)), outputs_of(net, inputs), strict=True):
            assert output.dtype == np.float32
            np.testing.assert_allclose(output, expected, atol=1e-5 * np.abs(expected).max())


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """Checks that nothing is left in the working directory, nor among temporary files."""
    folders = [tmp_path / "work", tmp_path / "temporary"]
    for folder in folders:
        folder.mkdir()
    monkeypatch.chdir(folders[0])
    monkeypatch.setattr(tempfile, "tempdir", str(folders[1]))
    yield
    assert [path for folder in folders for path in folder.rglob("*")] == []


def test_the_small_net(small_net, clean):
    check_same(small_net)


@pytest.mark.parametrize(
    "net", [Flattened, FreeReshape, BatchReshape, FullReshape, Windows, Token, Sliced, InPlace, FeaturesAndLogits]
)
def test_any_batch_size(net, clean):
    check_same(net())


def test_channels_last(clean):
    check_same(ChannelsLast(), HEIGHT, WIDTH, 3)


def test_the_sample_classifier(clean):
    net = efficientnet_lite0(10).set_train(False)
    program = OnnxProgram(export_onnx(net, pictures(1, 3, 64, 64)))
    inputs = pictures(3, 3, 64, 64)
    (expected,) = outputs_of(net, inputs)
    (logits,) = program((inputs,))
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


def test_features_come_before_logits():
    net = FeaturesAndLogits()
    program = OnnxProgram(export_onnx(net, pictures(1)))
    assert [output.shape for output in program((pictures(3),))] == [(3, 4), (3, 5)]


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (HardSwish, "HSwish"),
        (FloatsOfTheBatch, r"constant .* of shape \(1, 4\) depends on the batch size"),
        (RowNumbers, r"constant .* of shape \(2,\) depends on the batch size"),
        (OneByOne, "depend on the batch size"),
        (OneAnswer, "is not the batch"),
    ],
)
def test_a_net_that_cannot_be_exported_has_a_reason(net, reason, clean):
    with pytest.raises(ExportError, match=reason) as caught:
        export_onnx(net(), pictures(1))
    assert "\n" not in str(caught.value)


def test_without_the_package_there_is_a_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportError, match="onnx"):
        export_onnx(FeaturesAndLogits(), pictures(1))


@pytest.mark.parametrize("net", [InPlace, HardSwish, Compiled])
def test_the_net_stays_as_it_is(net, clean):
    net = net().set_train(True)
    net.head.register_forward_hook(unchanging_hook)
    names = [parameter.name for parameter in net.get_parameters()]
    values = [parameter.asnumpy().copy() for parameter in net.get_parameters()]
    attributes = attributes_of(net)
    if isinstance(net, HardSwish):
        with pytest.raises(ExportError):
            export_onnx(net, pictures(1))
    else:
        export_onnx(net, pictures(1))
    assert [parameter.name for parameter in net.get_parameters()] == names
    for parameter, value in zip(net.get_parameters(), values, strict=True):
        np.testing.assert_array_equal(parameter.asnumpy(), value)
    assert attributes_of(net) == attributes


def unchanging_hook(cell, inputs, output):
    return output


def attributes_of(net):
    """What every cell holds, its training flag and its hooks among it."""
    return [
        (
            name,
            cell,
            {
                key: copy.copy(value) if isinstance(value, dict | list | set) else value
                for key, value in vars(cell).items()
            },
        )
        for name, cell in net.cells_and_names()
    ]


def test_an_export_does_not_show_in_what_is_compiled_later():
    """In-place operators are read as others during an export only."""
    from mindspore.graph._parse import resources

    net = InPlace().set_train(False)
    (expected,) = outputs_of(net, pictures(2))
    export_onnx(net, pictures(1))
    with pytest.raises(ExportError):
        export_onnx(HardSwish(), pictures(1))
    assert resources.parse_augassign_object_map[ast.Add] != resources.parse_object_map[ast.Add]
    before = compiled_graphs()
    (logits,) = forward_program(net)((pictures(2),))
    release_graphs(compiled_graphs() - before)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_copies_and_their_graphs_are_freed():
    net = HardSwish()
    export_onnx(small := FeaturesAndLogits(), pictures(1))
    with pytest.raises(ExportError):
        export_onnx(net, pictures(1))
    gc.collect()
    assert [cell for cell in gc.get_objects() if type(cell) in (HardSwish, FeaturesAndLogits)] == [net, small]


def test_an_export_does_not_touch_the_compile_cache(monkeypatch, tmp_path):
    """It goes by the order of compiling, and whether there is an export may differ between two starts."""
    monkeypatch.setenv("MS_COMPILER_CACHE_ENABLE", "1")
    monkeypatch.setenv("MS_COMPILER_CACHE_PATH", str(tmp_path))
    export_onnx(FeaturesAndLogits(), pictures(1))
    assert list(tmp_path.rglob("*")) == []
    assert os.environ["MS_COMPILER_CACHE_ENABLE"] == "1"
