"""A cell's parameters that lie in a file are the same numbers, whenever their memory was given back."""

import tempfile

import numpy as np
import pytest

from xai_sidecar.backends.mindspore.resting_parameters import RestingParameters
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.surgery import shared_copy
from xai_sidecar.backends.runtimes.mapped import MappedFile

SIDE = 40


class Net(nn.Cell):
    """A dense layer, and a further one in half precision; a bias each."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(1)
        wide = rng.standard_normal((SIDE, SIDE)).astype(np.float32)
        self.wide = nn.Dense(SIDE, SIDE, weight_init=ms.Tensor(wide))
        self.half = nn.Dense(SIDE, SIDE, weight_init=ms.Tensor(wide[::-1].copy()))
        self.half.weight.set_dtype(ms.float16)

    def construct(self, x):
        return ms.ops.matmul(self.wide(x), self.half.weight.astype(ms.float32))


def outputs(net):
    return net(ms.Tensor(np.random.default_rng(2).standard_normal((3, SIDE)).astype(np.float32))).asnumpy()


@pytest.fixture
def released(monkeypatch):
    found = []
    release = MappedFile.release
    monkeypatch.setattr(MappedFile, "release", lambda self: found.append(self) or release(self))
    return found


def test_a_net_computes_the_same_after_its_parameters_were_put_away(released):
    net = Net()
    copy = shared_copy(net)
    before, numbers = outputs(net), {each.name: each.asnumpy().copy() for each in net.get_parameters()}
    resting = RestingParameters(copy)
    for _ in range(2):
        resting.rest()
        for each in (net, copy):
            np.testing.assert_array_equal(outputs(each), before)
    assert len(released) == 2
    assert released[0].bytes.size == SIDE * SIDE * 4
    for each in net.get_parameters():
        np.testing.assert_array_equal(each.asnumpy(), numbers[each.name])


def test_another_s_net_is_left_alone(released):
    RestingParameters(None).rest()
    assert released == []


def test_where_no_file_can_be_written_they_stay_where_they_are(monkeypatch, released):
    def full(**more):
        raise OSError(28, "No space left on device")

    net = Net()
    before = outputs(net)
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    RestingParameters(net).rest()
    assert released == []
    np.testing.assert_array_equal(outputs(net), before)
