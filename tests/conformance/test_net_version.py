"""The version of a net: another for another net, and no other for another release, machine or process."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from xai_sidecar.backends.mindspore.backend import MindSporeBackend
from xai_sidecar.backends.mindspore.compile_cache import cache_key
from xai_sidecar.backends.mindspore.layers import trace_calls
from xai_sidecar.backends.mindspore.net_version import net_version
from xai_sidecar.backends.mindspore.runtime import ms
from xai_sidecar.backends.mindspore.source import ModelSource
from xai_sidecar.backends.mindspore.surgery import shared_copy
from xai_sidecar.errors import ConfigError
from xai_sidecar.ood.head import check_head

HELPER = """
class Settings:
    def __init__(self, scale):
        self.scale = scale
        self.names = {"b", "a", "xyz"}
        self.around = [self, {"self": self}]
        self.around.append(self.around)

def double(x):
    return 2 * x
"""

MODEL = """
import functools
import logging
import time
import mindspore
import numpy as np
from mindspore import Tensor, nn, ops
from versioned_helper import Settings, double

in_order = iter

@mindspore.jit
def compiled(x):
    return x

class Block(nn.Cell):
    def __init__(self, factor, axis):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)
        self.scale = lambda x: x * factor
        self.softmax = nn.Softmax(axis)
    def construct(self, x):
        return self.softmax(self.scale(self.conv(x)))

class Net(nn.Cell):
    def __init__(self, factor=2.0, axis=1, alpha=0.2, scale=3.0, constant=1.0, key="k", rate=0.5, first="stem"):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4, eps=1e-4)
        self.blocks = nn.CellList([Block(factor, axis), Block(1.0, 1)])
        self.act = functools.partial(ops.leaky_relu, alpha=alpha)
        self.settings = Settings(scale)
        self.constants = {key: Tensor([constant]), "table": np.arange(3)}
        self.plain = [nn.Dropout(p=rate)]
        self.double = double
        self.functions = [compiled, np.tanh, ops.relu]
        self.mean = ops.ReduceMean(keep_dims=False)
        self.log = logging.getLogger('net')
        self.first = first
        self.head = nn.Dense(4, 5)
        self.seen = None
    def construct(self, x):
        steps = (self.stem, self.norm) if self.first == "stem" else (self.stem, self.norm, self.norm)
        for step in steps:
            x = step(x)
        for block in in_order(self.blocks):
            x = self.act(block(x))
        self.seen = time.perf_counter()  # what a run leaves behind is of no account
        return self.head(self.mean(self.double(x), (2, 3)))
"""

CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
import xai_sidecar
xai_sidecar.__version__ = "99.0"
import versioned_model
from xai_sidecar.backends.mindspore import compile_cache
from xai_sidecar.backends.mindspore.backend import MindSporeBackend
from xai_sidecar.backends.mindspore.runtime import ms
from xai_sidecar.backends.mindspore.source import ModelSource
ms.set_seed(7)
ms.nn.Conv2d(3, 8, 3)  # what was made before is of no account
ms.set_seed(0)
net = versioned_model.Net()
edited = compile_cache.cache_key(net)
ms.__version__ = "99.0"
backend = MindSporeBackend(ModelSource("", height=8, width=12), net=net)
print(json.dumps([backend.version, edited, compile_cache.cache_key(net)]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("versioned")
    (folder / "versioned_helper.py").write_text(HELPER)
    (folder / "versioned_model.py").write_text(MODEL)
    return folder


@pytest.fixture(scope="module")
def make(folder):
    """Makes the net, always of the same weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        module = importlib.import_module("versioned_model")

        def make(**arguments):
            ms.set_seed(0)
            return module.Net(**arguments)

        yield make


def version_of(net, height=8):
    example = np.zeros((1, 3, height, 12), np.float32)
    calls = trace_calls(shared_copy(net), example)
    return net_version(net, calls, "", "nchw", example.shape)


def test_another_process_release_and_helper_module_change_the_cache_key_alone(make, folder):
    net = make()
    backend = MindSporeBackend(ModelSource("", height=8, width=12), net=net)
    assert backend.version == version_of(net)
    key = cache_key(net)
    (folder / "versioned_helper.py").write_text(HELPER + "# edited\n")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    version, edited, upgraded = json.loads(done.stdout.splitlines()[-1])
    assert version == backend.version
    assert len({key, edited, upgraded}) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        {"factor": 2.5},  # in the closure of a lambda
        {"axis": 2},  # of an operation in a layer of MindSpore's
        {"alpha": 0.3},  # in a partial
        {"scale": 4.0},  # in an object of the user's
        {"constant": 2.0},  # in a tensor in a dict
        {"key": "other"},
        {"rate": 0.25},  # of a layer in a plain list, where MindSpore does not see it
        {"first": "norm"},
    ],
    ids=str,
)
def test_a_net_of_other_settings_has_another_version(make, arguments):
    assert version_of(make(**arguments)) != version_of(make()) == version_of(make())


def weight(net):
    bias = net.head.bias
    bias.set_data(bias + ms.Tensor(np.eye(1, 5, dtype=np.float32)[0]))


def renamed(net):
    net.head.bias.name = "head.offset"


def function(net):
    net.functions[1] = np.exp


def aliased(net):
    """As many objects of the same content, one of them twice."""
    net.settings.around[0] = type(net.settings)(net.settings.scale)


def operation(net):
    net.mean = ms.ops.ReduceMax(keep_dims=False)


def replaced(net):
    net.blocks[1].softmax = ms.nn.LogSoftmax(1)


@pytest.mark.parametrize("change", [weight, renamed, function, aliased, operation, replaced])
def test_a_net_of_other_weights_or_layers_has_another_version(make, change):
    net = make()
    change(net)
    assert version_of(net) != version_of(make())


def test_many_objects_that_refer_to_each_other_are_written_in_no_time(make):
    net = make()
    nodes = [type(net.settings)(scale) for scale in range(200)]
    for node in nodes:
        node.others = nodes
    before = version_of(net)
    net.settings.nodes = nodes
    assert version_of(net) != before


def test_another_size_of_the_input_makes_another_version(make):
    assert version_of(make(), height=16) != version_of(make())


def test_layers_that_run_in_another_order_make_another_version(make, monkeypatch):
    before = version_of(make())
    monkeypatch.setattr("versioned_model.in_order", reversed)
    assert version_of(make()) != before


def test_ood_nets_of_earlier_releases_stay_valid(small_net, head_of):
    """Those have the version that earlier releases computed; any other is refused."""
    source = ModelSource("", height=8, width=12, preparation="mean 0")
    plain = MindSporeBackend(source, net=small_net)
    assert plain._earlier_version() != plain.version
    for version in (plain._earlier_version(), plain.version):
        check_head(head_of(version), plain.version, plain._earlier_version)
    assert MindSporeBackend(replace(source, ood=head_of(plain._earlier_version())), net=small_net).ood is not None
    with pytest.raises(ConfigError, match="its net, weights or input are others"):
        check_head(head_of("another"), plain.version, plain._earlier_version)
