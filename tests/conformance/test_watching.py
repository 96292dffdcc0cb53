"""The outputs of a net's layers, recorded while it runs."""

import numpy as np
import pytest

from xai_sidecar.backends.mindspore import watching
from xai_sidecar.backends.mindspore.runtime import nn
from xai_sidecar.backends.mindspore.watching import WatchedNet

SIZE = 4 * 3 * 5 * 4
"""Bytes of each layer's output."""


class Scaled(nn.Cell):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def construct(self, x):
        return x * self.factor


@pytest.mark.parametrize("pending", [0, SIZE, 10 * SIZE], ids=["each", "every second one", "at the end"])
@pytest.mark.parametrize("until", [None, "2", "1"])
def test_outputs_are_those_of_the_layers(monkeypatch, pending, until):
    """However many are waited for at a time; those of one pass are not changed by the next."""
    monkeypatch.setattr(watching, "_PENDING_BYTES", pending)
    watched = WatchedNet(nn.SequentialCell(*map(Scaled, (2.0, 3.0, 5.0, 7.0))), ["0", "2", "1"])
    inputs = np.random.default_rng(1).normal(0, 1, (2, 1, 3, 5, 4)).astype(np.float32)
    found = [watched.run(each, until) for each in inputs]
    factors = {"0": 2, "1": 6} | ({} if until == "1" else {"2": 30})
    for each, outputs in zip(inputs, found, strict=True):
        assert outputs.keys() == factors.keys()
        for name, factor in factors.items():
            np.testing.assert_allclose(outputs[name], each * factor, rtol=1e-6)


def test_values_are_waited_for_in_pieces(monkeypatch):
    """So that MindSpore's memory never holds all of them: what is copied is not kept."""
    monkeypatch.setattr(watching, "_PENDING_BYTES", SIZE)
    held = []

    class Holding(Scaled):
        def construct(self, x):
            held.append(len(watched._pending))
            return super().construct(x)

    watched = WatchedNet(nn.SequentialCell(*[Holding(1.0) for _ in range(6)]), list("012345"))
    outputs = watched.run(np.ones((1, 3, 5, 4), np.float32))
    assert held == [0, 1, 0, 1, 0, 1]
    assert not watched._pending
    assert all(output.base is None for output in outputs.values())  # no view of a tensor's memory


def test_a_pass_that_fails_leaves_nothing_to_the_next():
    class Failing(Scaled):
        def construct(self, x):
            if float(x.sum()) < 0:
                raise ValueError("below 0")
            return x

    watched = WatchedNet(nn.SequentialCell(Scaled(1.0), Failing(1.0), Scaled(2.0)), ["0", "2"])
    with pytest.raises(ValueError, match="below 0"):
        watched.run(-np.ones((1, 3, 5, 4), np.float32))
    assert watched.run(np.ones((1, 3, 5, 4), np.float32), until="0").keys() == {"0"}
    assert isinstance(watched.run(np.ones((1, 2), np.float32))["2"], np.ndarray)
