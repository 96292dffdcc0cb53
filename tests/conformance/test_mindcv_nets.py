"""MindCV's nets, exported and derived as graphs, against MindSpore's own gradients of the cells.

Two nets by default; XAI_NETS=all for one or two of each family that can be exported.
"""

import os

import numpy as np
import pytest
from mindcv.models import create_model

from xai_sidecar.backends.mindspore.backend import MindSporeBackend
from xai_sidecar.backends.mindspore.rectifiers import rectified_copy
from xai_sidecar.backends.mindspore.runtime import ms
from xai_sidecar.backends.mindspore.source import ModelSource
from xai_sidecar.engine.work import INPUT_GRADIENT, Forward, Kind

FEW = ["mobilenet_v2_035_128", "squeezenet1_0"]
ALL = [*FEW, "densenet121", "googlenet", "resnet18"]
NETS = ALL if os.environ.get("XAI_NETS") == "all" else FEW
SIDE = 64
TARGETS = np.array([1, 3], np.int32)
RULES = ["guided", "deconvolution"]


class Case:
    """A net with weights drawn at random, as a cell and as a backend."""

    def __init__(self, name):
        ms.set_seed(0)
        np.random.seed(0)  # which initializers draw from
        self.net = seasoned(create_model(name, num_classes=10))
        source = ModelSource("", height=SIDE, width=SIDE, batch_sizes=(1, 2), gradient_batch_sizes=(1, 2))
        self.backend = MindSporeBackend(source, net=self.net)
        self.layer = self.backend.default_layer
        rules = [Kind("input_gradient", relu_rule=rule) for rule in RULES]
        self.said = []
        kinds = [Forward.kind, INPUT_GRADIENT, *rules, Kind("layer_gradient", self.layer)]
        self.refused = self.backend.warm_up(kinds, self.said.append)
        self.x = np.random.default_rng(5).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)

    def run(self, kind):
        return self.backend.run(kind, (self.x, TARGETS))


def seasoned(net):
    """The net with batch norms that have seen something: else what goes through it dwindles to nothing."""
    net.set_train(True)
    for seed in range(20):
        net(ms.Tensor(np.random.default_rng(seed).standard_normal((4, 3, SIDE, SIDE)).astype(np.float32)))
    return net.set_train(False)


@pytest.fixture(scope="module", params=NETS)
def case(request):
    return Case(request.param)


def chosen(logits):
    """The sum of the logits that are derived."""
    return logits[0, int(TARGETS[0])] + logits[1, int(TARGETS[1])]


def agree(ours, theirs):
    assert np.linalg.norm(theirs) > 0
    assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs)


def test_all_of_it_runs_as_a_graph(case):
    assert not case.refused
    assert not [line for line in case.said if line.startswith("MindSpore runs")]
    assert not case.backend.engine.startswith("mindspore")


def test_logits(case):
    agree(case.backend.run(Forward.kind, (case.x,))[0], case.net(ms.Tensor(case.x)).asnumpy())


def test_the_gradient_by_the_picture(case):
    agree(case.run(INPUT_GRADIENT)[0], ms.grad(lambda x: chosen(case.net(x)))(ms.Tensor(case.x)).asnumpy())


@pytest.mark.parametrize("rule", RULES)
def test_relu_rules(case, rule):
    """The cells' ReLUs are found one by one among the cells; the graph's, among its nodes."""
    copy = rectified_copy(case.net, rule)
    expected = ms.grad(lambda x: chosen(copy(x)))(ms.Tensor(case.x)).asnumpy()
    agree(case.run(Kind("input_gradient", relu_rule=rule))[0], expected)


def test_the_gradient_by_a_layer(case):
    """By what is added to the layer's output, as it passes."""
    outputs = []
    cell = dict(case.net.cells_and_names())[case.layer]
    watching = cell.register_forward_hook(lambda cell, inputs, output: outputs.append(output))
    case.net(ms.Tensor(case.x))
    watching.remove()
    added = []
    adding = cell.register_forward_hook(lambda cell, inputs, output: output + added[-1])

    def moved(delta):
        added.append(delta)
        return chosen(case.net(ms.Tensor(case.x)))

    try:
        expected = ms.grad(moved)(ms.ops.zeros_like(outputs[0])).asnumpy()
    finally:
        adding.remove()
    activations, gradients, _ = case.run(Kind("layer_gradient", case.layer))
    agree(activations, outputs[0].asnumpy())
    agree(gradients, expected)
