"""The MindSpore backend: it computes what the net computes, at every batch size, and leaves the net as it was."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import launcher
import numpy as np
import pytest

from xai_sidecar.backends.mindspore import compile_cache
from xai_sidecar.backends.mindspore.backend import MindSporeBackend
from xai_sidecar.backends.mindspore.compile_cache import cache_key, structure
from xai_sidecar.backends.mindspore.programs import compiled_graphs
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.source import ModelSource
from xai_sidecar.backends.mindspore.surgery import shared_copy, tapped_copy
from xai_sidecar.engine.work import INPUT_GRADIENT, Forward, Kind
from xai_sidecar.errors import ConfigError, PreconditionError

QUIET = lambda line: None  # noqa: E731


class WithTraining(nn.Cell):
    """Batch norm, dropout, a reused cell, cells in a list: all that a copy could get wrong."""

    def __init__(self, channels=3):
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.stages = nn.CellList([nn.Conv2d(8, 8, 3) for _ in range(3)])
        self.dropout = nn.Dropout(p=0.5)
        self.head = nn.Dense(8, 5)

    def construct(self, x):
        x = self.relu(self.norm(self.stem(x)))
        for stage in self.stages:
            x = self.relu(stage(x))
        return self.head(self.dropout(x.mean((2, 3))))


def loaded(net, *sizes, height=16, width=24, **more):
    sizes = sizes or (1,)
    source = ModelSource("", height=height, width=width, batch_sizes=sizes, gradient_batch_sizes=sizes, **more)
    return MindSporeBackend(source, net=net)


def warmed(net, *sizes, layer=None, **more):
    backend = loaded(net, *sizes, **more)
    backend.warm_up([Forward.kind, INPUT_GRADIENT, Kind("layer_gradient", layer or backend.default_layer)], QUIET)
    return backend


def inputs(count, height=16, width=24, channels=3):
    return np.random.default_rng(3).standard_normal((count, channels, height, width)).astype(np.float32)


def visible(net):
    """Everything of a net that its owner could see."""
    return {
        "structure": structure(net),
        "parameters": [(id(p), p.name, p.requires_grad, p.asnumpy().tobytes()) for p in net.get_parameters()],
        "cells": [(name, id(cell), type(cell), cell.training) for name, cell in net.cells_and_names()],
        "phase": net.phase,
        "hooks": [
            name
            for name, cell in net.cells_and_names()
            if cell._forward_hook or cell._forward_pre_hook or cell._backward_hook
        ],
    }


def test_loading_and_running_leave_the_net_as_it_was():
    net = WithTraining().set_train(True)
    before = visible(net)
    backend = warmed(net, 1, 2, layer="stages.2")
    for kind in (INPUT_GRADIENT, Kind("layer_gradient", "stages.2"), Kind("layer_gradient", "stages.0")):
        backend.run(kind, (inputs(1), np.array([0], np.int32)))
    backend.close()
    assert visible(net) == before


def test_the_weights_are_shared():
    net = WithTraining()
    weights = {parameter.name: id(parameter) for parameter in net.get_parameters()}
    tapped, tap = tapped_copy(net, net.stages[2])
    assert {p.name: id(p) for p in shared_copy(net).get_parameters()} == weights
    assert {p.name: id(p) for p in tapped.get_parameters() if not p.name.startswith("xai_tap")} == weights
    assert tapped.stages[2] is tap
    assert net.stages[2] is not tap


class Uncopied(nn.Cell):
    """With operations that MindSpore cannot copy."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.norm = nn.LRN() if hasattr(nn, "LRN") else ms.ops.LRN()
        self.dropout = nn.Dropout2d(p=0.5)
        self.head = nn.Dense(4, 5)

    def construct(self, x):
        return self.head(self.dropout(self.norm(self.stem(x))).mean((2, 3)))


def test_a_net_of_operations_that_cannot_be_copied():
    net = Uncopied()
    x = inputs(1)
    logits = warmed(net, 1, layer="stem").run(Forward.kind, (x,))[0]
    np.testing.assert_allclose(logits, net.set_train(False)(ms.Tensor(x)).asnumpy(), atol=1e-5)


def test_inference_mode_whatever_the_mode_of_the_net():
    net = WithTraining().set_train(True)
    x = inputs(2)
    first, second = (warmed(net, 1, 2).run(Forward.kind, (x,))[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, net.set_train(False)(ms.Tensor(x)).asnumpy(), atol=1e-5)


@pytest.mark.parametrize("engine", ["onnxruntime", "mindspore"])
def test_logits_do_not_depend_on_batch_size_and_padding(engine):
    backend = warmed(WithTraining(), 1, 2, 4, 8, forward_engine=engine)
    assert backend.engine.startswith(engine)
    x = inputs(8)
    alone = np.concatenate([backend.run(Forward.kind, (x[i : i + 1],))[0] for i in range(8)])
    for size in (2, 4, 8):
        rows = np.concatenate([backend.run(Forward.kind, (x[i : i + size],))[0] for i in range(0, 8, size)])
        np.testing.assert_allclose(rows, alone, atol=1e-4)
        padded = np.concatenate([x[3:4], np.repeat(x[:1] * 50, size - 1, axis=0)])
        np.testing.assert_allclose(backend.run(Forward.kind, (padded,))[0][0], alone[3], atol=1e-4)


def test_a_channels_last_net_takes_and_gives_channels_first():
    class Last(nn.Cell):
        def __init__(self, inner):
            super().__init__(auto_prefix=False)
            self.inner = inner

        def construct(self, x):
            return self.inner(x.transpose(0, 3, 1, 2))

    net = WithTraining()
    first = warmed(net, 1, layer="stages.2")
    last = warmed(Last(net), 1, layer="inner.stages.2", layout="nhwc")
    x, target = inputs(1), np.array([2], np.int32)
    for kind, other in (
        (Forward.kind, Forward.kind),
        (INPUT_GRADIENT, INPUT_GRADIENT),
        (Kind("layer_gradient", "stages.2"), Kind("layer_gradient", "inner.stages.2")),
    ):
        rows = (x,) if kind == Forward.kind else (x, target)
        for ours, theirs in zip(first.run(kind, rows), last.run(other, rows), strict=True):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_layers_with_a_spatial_output_are_found():
    backend = loaded(WithTraining())
    # relu runs four times, so "its output" means nothing; dropout and head have lost the picture.
    assert list(backend.layers) == ["stem", "norm", "stages.0", "stages.1", "stages.2"]
    assert backend.default_layer == "stages.2"
    layer = backend.layers["stages.2"]
    assert (layer.channels, layer.height, layer.width) == (8, 8, 12)


class ChannelsLastInside(nn.Cell):
    """Its last layer works channels last, with as many channels as are hard to tell from columns."""

    def __init__(self, channels):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, stride=2)
        self.mix = nn.Dense(channels, channels)
        self.head = nn.Dense(channels, 5)

    def construct(self, x):
        return self.head(self.mix(self.stem(x).transpose(0, 2, 3, 1)).mean((1, 2)))


@pytest.mark.parametrize("channels", [6, 11, 13, 40])
def test_axes_are_told_apart(channels):
    backend = loaded(ChannelsLastInside(channels))
    layer = backend.layers["mix"]
    assert (layer.axes, layer.channels, layer.height, layer.width) == ("nhwc", channels, 8, 12)
    assert backend.layers["stem"].axes == "nchw"


class Named(nn.Cell):
    """A layer called with a keyword, whose attribute the net reads."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, stride=2)
        self.channels = 4

    def construct(self, x, scale=1.0):
        return self.convolution(x) * scale


class CallsByName(nn.Cell):
    def __init__(self):
        super().__init__()
        self.block = Named()
        self.head = nn.Dense(4, 5)

    def construct(self, x):
        return self.head(self.block(x, scale=2.0).mean((2, 3)) / self.block.channels)


def test_a_layer_called_by_name_can_be_tapped():
    backend = warmed(CallsByName(), 1, layer="block")
    assert backend.default_layer == "block"


class MeasuresItsStages(nn.Cell):
    """Asks a cell something that a cell with a tap cannot answer."""

    def __init__(self):
        super().__init__()
        self.stages = nn.SequentialCell([nn.Conv2d(3, 4, 3, stride=2), nn.ReLU()])
        self.head = nn.Dense(4, 5)

    def construct(self, x):
        return self.head(self.stages(x).mean((2, 3))) * len(self.stages)


def test_a_layer_that_cannot_be_tapped_costs_no_more_than_its_explanation():
    backend = loaded(MeasuresItsStages(), forward_engine="mindspore")
    kind = Kind("layer_gradient", "stages")
    failed = backend.warm_up([Forward.kind, INPUT_GRADIENT, kind], QUIET)
    assert list(failed) == [kind]
    assert "layer gradient of stages" in failed[kind]
    assert backend.run(Forward.kind, (inputs(1),))[0].shape == (1, 5)


def test_a_layer_that_cannot_be_tapped_is_refused_on_demand():
    backend = loaded(MeasuresItsStages(), forward_engine="mindspore")
    backend.warm_up([Forward.kind], QUIET)
    for _ in range(2):
        with pytest.raises(PreconditionError, match="layer gradient of stages"):
            backend.run(Kind("layer_gradient", "stages"), (inputs(1), np.array([0], np.int32)))
    assert backend.run(Forward.kind, (inputs(1),))[0].shape == (1, 5)


def test_a_layer_that_cannot_be_tapped_is_a_value_of_the_graph():
    backend, kind = loaded(MeasuresItsStages()), Kind("layer_gradient", "stages")
    assert not backend.warm_up([Forward.kind, kind], QUIET)
    x, targets = inputs(1), np.array([2], np.int32)
    activations, gradients, _ = backend.run(kind, (x, targets))
    net = backend._net
    np.testing.assert_allclose(activations, net.stages(ms.Tensor(x)).asnumpy(), atol=1e-5)
    slopes = 2 * net.head.weight.asnumpy()[2] / np.prod(activations.shape[2:])
    np.testing.assert_allclose(gradients, np.broadcast_to(slopes[:, None, None], gradients.shape[1:])[None], atol=1e-6)


class FirstRowForAll(nn.Cell):
    """Gives every row the first one's answer."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Dense(3 * 16 * 24, 4)

    def construct(self, x):
        logits = self.dense(x.reshape(x.shape[0], -1))
        return ms.ops.tile(logits[0:1], (x.shape[0], 1))


def test_a_net_whose_rows_depend_on_each_other_is_refused():
    with pytest.raises(ConfigError, match="in row 1"):
        loaded(FirstRowForAll(), 1, 2).warm_up([Forward.kind], QUIET)


def test_a_layer_compiled_on_demand_is_checked_and_kept():
    backend = warmed(WithTraining(), 1, layer="stages.2")
    kind = Kind("layer_gradient", "stages.0")
    activations, gradients, _ = backend.run(kind, (inputs(1), np.array([0], np.int32)))
    assert activations.shape == gradients.shape == (1, 8, 8, 12)
    assert list(backend.costs(kind)) == [1]
    assert backend.costs(kind)[1] < 0.5


def test_layers_compiled_on_demand_do_not_pile_up(monkeypatch):
    monkeypatch.setattr("xai_sidecar.backends.mindspore.backend._ON_DEMAND_KEPT", 2)

    class Deep(nn.Cell):
        def __init__(self):
            super().__init__()
            self.stages = nn.CellList([nn.Conv2d(3, 3, 3) for _ in range(6)])
            self.head = nn.Dense(3, 5)

        def construct(self, x):
            for stage in self.stages:
                x = stage(x)
            return self.head(x.mean((2, 3)))

    backend = warmed(Deep(), 1, forward_engine="mindspore")
    graphs = []
    for layer in backend.layers:
        backend.run(Kind("layer_gradient", layer), (inputs(1), np.array([0], np.int32)))
        graphs.append(len(compiled_graphs()))
    assert len(graphs) == 6
    assert graphs[-1] == graphs[-3], "graphs of dropped programs are kept"
    backend.close()
    assert len(compiled_graphs()) < graphs[0]


def test_a_factory_that_switches_to_graph_mode_hides_nothing(tmp_path, monkeypatch):
    (tmp_path / "graph_mode_model.py").write_text(
        "import mindspore as ms\nfrom mindspore import nn\n"
        "def make():\n    ms.set_context(mode=ms.GRAPH_MODE)\n"
        "    return nn.SequentialCell([nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dense(4, 5)])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    backend = MindSporeBackend(ModelSource("graph_mode_model:make", height=16, width=24))
    assert backend.default_layer == "0"


def test_a_net_without_a_spatial_layer_has_no_default():
    net = nn.SequentialCell([nn.Flatten(), nn.Dense(3 * 16 * 24, 4)])
    backend = loaded(net)
    assert backend.default_layer is None
    assert not backend.layers


def test_a_compiled_program_that_disagrees_with_the_net_is_refused():
    class TwoMinds(nn.Cell):
        """Says one thing when it is traced in Python and another compiled."""

        def __init__(self):
            super().__init__()
            self.dense = nn.Dense(3 * 16 * 24, 4)

        def construct(self, x):
            logits = self.dense(x.reshape(x.shape[0], -1))
            return logits + 1 if ms.jit_class_marker() else logits

    ms.jit_class_marker = lambda: False
    try:
        backend = loaded(TwoMinds(), forward_engine="mindspore")
        ms.jit_class_marker = lambda: True
        with pytest.raises(ConfigError, match="differs from the net's own by"):
            backend.warm_up([Forward.kind], QUIET)
    finally:
        del ms.jit_class_marker


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.SequentialCell([nn.Conv2d(1, 4, 3)]), r"does not take an input of shape \(1, 3, 16, 24\)"),
        (nn.Conv2d(3, 4, 3), r"returned shape \(1, 4, 16, 24\)"),
    ],
)
def test_a_net_that_is_no_classifier_of_such_pictures(net, message):
    with pytest.raises(ConfigError, match=message):
        loaded(net)


CACHED = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from cached_model import Net
from xai_sidecar.backends.mindspore.backend import MindSporeBackend
from xai_sidecar.backends.mindspore.source import ModelSource
from xai_sidecar.backends.mindspore.runtime import ms
from xai_sidecar.engine.work import INPUT_GRADIENT, Forward, Kind
import numpy as np
ms.set_seed(int(sys.argv[2]))
backend = MindSporeBackend(
    ModelSource("", height=16, width=24, batch_sizes=(1, 2), gradient_batch_sizes=(1,), cache=Path(sys.argv[1]),
        forward_engine="mindspore"),
    net=Net(float(sys.argv[3])),
)
backend.warm_up([Forward.kind, INPUT_GRADIENT, Kind("layer_gradient", "conv")], print)
x = np.random.default_rng(1).standard_normal((1, 3, 16, 24)).astype(np.float32)
target = np.array([1], np.int32)
gradient, _ = backend.run(INPUT_GRADIENT, (x, target))
bumped = x + 0.01 * np.sign(gradient)
rise = backend.run(Forward.kind, (bumped,))[0][0, 1] - backend.run(Forward.kind, (x,))[0][0, 1]
print("slope", float(rise / (0.01 * np.abs(gradient).sum())))
"""

CACHED_MODEL = """
from mindspore import nn
class Net(nn.Cell):
    def __init__(self, factor):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Dense(8, 5)
        self.factor = factor
    def construct(self, x):
        return self.head(self.conv(x).mean((2, 3))) * self.factor
"""


def test_the_compile_cache_serves_only_what_it_was_made_for(tmp_path):
    """Other weights may use it, another constant in the net may not, and the values are right either way."""
    (tmp_path / "cached_model.py").write_text(CACHED_MODEL)
    (tmp_path / "run.py").write_text(CACHED)

    def run(seed, factor):
        command = [launcher.PYTHON, str(tmp_path / "run.py"), str(tmp_path), str(seed), str(factor)]
        done = launcher.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        # The net is linear, so the gradient must tell exactly how much a step along its sign raises the logit.
        assert float(done.stdout.split()[-1]) == pytest.approx(1, abs=1e-3)
        return "loading compiled" in done.stdout

    assert [run(1, 1.0), run(1, 1.0), run(2, 1.0), run(2, 3.0), run(1, 3.0)] == [False, True, True, False, True]
    assert len(list((tmp_path / "mindspore-graphs").iterdir())) == 2


def test_tidying_removes_nothing_but_old_graphs(tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache, "_used", False)
    foreign = [tmp_path / f"pictures-{i}" for i in range(20)]
    for folder in foreign:
        folder.mkdir()
    for i in range(12):
        monkeypatch.setattr(compile_cache, "_used", False)
        with compile_cache.compile_cache(tmp_path, f"key{i}") as warm:
            assert not warm
    assert all(folder.is_dir() for folder in foreign)
    assert {path.name for path in (tmp_path / "mindspore-graphs").iterdir()} == {f"key{i}" for i in range(4, 12)}


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch):
    monkeypatch.setattr(compile_cache, "_used", False)
    told = []
    with compile_cache.compile_cache(Path("/dev/null/cache"), "key", told.append) as warm:
        assert not warm
    assert "are not cached" in told[0]


def test_the_cache_key_is_the_same_for_the_same_net_and_only_then():
    def made(**changes):
        net = WithTraining(**changes)
        return cache_key(net, (1, 2))

    ms.set_seed(3)  # by which a dropout made later draws otherwise
    assert made() == made()
    assert made(channels=1) != made()
    assert cache_key(WithTraining(), (1, 2, 4)) != made()
    altered = WithTraining()
    altered.dropout.p = 0.25
    assert cache_key(altered, (1, 2)) != made()


def test_convolutions_run_on_a_fast_kernel():
    """Started without the setting, the process must end up with oneDNN's just-in-time kernels, not the reference."""
    script = textwrap.dedent(
        """
        import numpy as np
        from xai_sidecar.backends.mindspore.runtime import ms, nn
        nn.Conv2d(64, 64, 3, has_bias=False)(ms.Tensor(np.ones((1, 64, 56, 56), np.float32))).asnumpy()
        """
    )
    environment = {key: value for key, value in os.environ.items() if key != "ONEDNN_MAX_CPU_ISA"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        env={**environment, "DNNL_VERBOSE": "1"},
        check=True,
    )
    kernels = [line for line in done.stdout.splitlines() if ",exec," in line and ",convolution," in line]
    assert kernels
    assert all("ref" not in line.split(",convolution,")[1].split(",")[0] for line in kernels), kernels
