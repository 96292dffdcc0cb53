"""Where a net's weights come from, and what is told of a factory that fails."""

import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from xai_sidecar.backends.mindspore.device import select_device
from xai_sidecar.backends.mindspore.loading import load_net
from xai_sidecar.errors import ConfigError

FACTORIES = """
import numpy as np
import mindspore as ms
from mindspore import nn

FIXED = ms.Tensor(np.ones((2, 3), np.float32))

def random():
    return nn.Dense(3, 2)

def by_numpy():
    return nn.Dense(3, 2, weight_init=ms.Tensor(np.random.normal(size=(2, 3)).astype(np.float32)), has_bias=False)

def fixed():
    return nn.Dense(3, 2, weight_init=FIXED, has_bias=False)

def partly():
    return nn.SequentialCell(nn.Dense(3, 2, weight_init=FIXED, bias_init="zeros"), nn.Dense(2, 4, bias_init="zeros"))

def inner(depth):
    return {}[depth]

def raises(depth=3):
    return inner(depth)
"""


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    select_device("cpu")
    folder = tmp_path_factory.mktemp("loading")
    (folder / "weight_factories.py").write_text(FACTORIES)
    sys.path.append(str(folder))
    yield folder
    sys.path.remove(str(folder))


def load(name, checkpoint=None, **arguments):
    return load_net(f"weight_factories:{name}", arguments, checkpoint)


@pytest.mark.parametrize("name", ["random", "by_numpy"])
def test_random_weights_are_told_of_and_the_same_at_each_start(name):
    one, other = load(name), load(name)
    assert "drawn at random" in one.weights
    assert "model.checkpoint" in one.warning
    for a, b in zip(one.net.get_parameters(), other.net.get_parameters(), strict=True):
        np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())
    assert next(one.net.get_parameters()).asnumpy().std() > 0


def test_a_part_that_is_random_is_named():
    loaded = load("partly")
    assert loaded.weights.startswith("1 of 4 parameters are drawn at random")
    assert "1.weight" in loaded.warning


def test_weights_of_the_factory_are_no_reason_to_warn():
    loaded = load("fixed")
    assert loaded.weights == "All 1 parameters as the factory gives them, the same each time; no checkpoint."
    assert loaded.warning == ""


def test_weights_of_a_checkpoint(folder):
    values = {"weight": np.full((2, 3), 2, np.float32), "other": np.zeros(3, np.float32)}
    save_file(values, folder / "net.safetensors")
    loaded = load("fixed", folder / "net.safetensors")
    assert loaded.weights == "All 1 parameters from net.safetensors; 1 more in the file are not the net's."
    assert loaded.warning == ""
    np.testing.assert_array_equal(next(loaded.net.get_parameters()).asnumpy(), values["weight"])


def test_a_factory_that_raises_is_told_with_the_lines_that_it_came_from():
    line = FACTORIES.splitlines().index("    return {}[depth]") + 1
    with pytest.raises(ConfigError, match="KeyError: 3") as caught:
        load("raises")
    assert f"weight_factories.py:{line} in inner" in caught.value.message
    assert "in raises > " in caught.value.message
    with pytest.raises(ConfigError, match="'width'") as caught:
        load("raises", width=3)
    assert caught.value.message.endswith(". Correct model.arguments.")
