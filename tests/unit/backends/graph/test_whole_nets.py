"""Derivatives of whole nets, whose operators are tested one by one elsewhere, in double precision."""

import light_nets
import numpy as np
import pytest
from differences import run

from xai_sidecar.backends.graph.derivative import derive
from xai_sidecar.backends.graph.freeing import free_batch
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.loading import prepare
from xai_sidecar.backends.graph.rectifiers import find_rectifiers
from xai_sidecar.backends.graph.reference import Reference
from xai_sidecar.backends.graph.tracing import Traced, trace

SHAPE = (3, light_nets.SIDE, light_nets.SIDE)
STEP = 1e-7
"""Over the root mean square of what is moved. So short a step switches no ReLU, or next to none."""


class Net:
    """A net as it is served, in double precision: its graph, a picture, and the weights of its logits."""

    def __init__(self, name):
        rng = np.random.default_rng(1)
        examples = rng.standard_normal((3, *SHAPE)).astype(np.float32)
        plainly = Reference()
        file = prepare(light_nets.light_net(name), None, None, SHAPE, name)
        freed = free_batch(file.graph, file.was_static, examples, plainly)
        assert freed.rows is None, freed.note
        self.graph, traced = trace(freed.graph, examples[:1], plainly)
        self.graph.constants = {key: value.astype(doubled(value.dtype)) for key, value in self.graph.constants.items()}
        self.graph.input_dtypes = dict.fromkeys(self.graph.inputs, np.dtype(float))
        self.traced = Traced(traced.shapes, {key: doubled(dtype) for key, dtype in traced.dtypes.items()})
        (self.input,), (self.logits,) = self.graph.inputs, self.graph.outputs
        self.x = rng.standard_normal((1, *SHAPE))
        self.seed = rng.standard_normal([length or 1 for length in self.traced.shapes[self.logits]])

    def gradients(self, by, relu_rule="", of=None):
        """The gradients of sum(logits * seed) by some values, by their names; of another graph, too."""
        graph, traced = of or (self.graph, self.traced)
        rectifiers = find_rectifiers(graph) if relu_rule else ()
        derived, names = derive(graph, traced, self.logits, "seed", by, rectifiers, relu_rule)
        return dict(zip(by, run(derived.pruned(names), (self.x, self.seed)), strict=True))

    def values(self, names):
        return dict(zip(names, run(self.graph.pruned(names), (self.x,)), strict=True))

    def behind(self, name):
        """The graph from a value on; None if there is a way around it."""
        graph = self.graph.copy()
        graph.nodes = [node for node in graph.nodes if name not in node.outputs]
        graph.inputs = {name: self.traced.shapes[name]}
        return None if self.input in graph.before(graph.outputs) else graph.pruned(graph.outputs)

    def layer(self):
        """The last value on the picture that everything goes through."""
        shapes = self.traced.shapes
        spatial = [node.outputs[0] for node in self.graph.nodes if len(shapes[node.outputs[0]]) == 4]
        return next(name for name in spatial[::-1] if shapes[name][2] > 1 and self.behind(name))


def doubled(dtype):
    return np.dtype(float) if dtype.kind == "f" else dtype


@pytest.fixture(scope="module", params=light_nets.NAMES)
def net(request):
    return Net(request.param)


def slopes(graph, x, seed, directions):
    """Derivatives of sum(logits * seed) along directions, by central differences."""
    step = STEP * np.sqrt(np.mean(x**2))
    (logits,) = run(graph, (np.concatenate([x + step * directions, x - step * directions]),))
    up, down = np.split((logits * seed).reshape(len(logits), -1).sum(axis=1), 2)
    return (up - down) / (2 * step)


def test_gradients_by_the_picture_and_by_a_layer_are_what_small_steps_do(net):
    layer = net.layer()
    by = [net.input, layer]
    found = net.gradients(by)
    for place, value, graph in (
        (net.input, net.x, net.graph),
        (layer, net.values([layer])[layer], net.behind(layer)),
    ):
        gradient = found[place]
        directions = np.random.default_rng(2).standard_normal((2, *value.shape[1:])) * (value != 0)
        expected = slopes(graph, value, net.seed, directions)
        assert np.tensordot(directions, gradient[0], value.ndim - 1) == pytest.approx(
            expected, abs=1e-4 * np.linalg.norm(gradient)
        )


@pytest.mark.parametrize("net", ["bvlc_alexnet", "densenet121", "shufflenet", "squeezenet"], indirect=True)
@pytest.mark.parametrize("relu_rule", ["guided", "deconvolution"])
def test_a_relu_rule_gives_the_gradients_of_a_net_that_has_in_place_of_its_relus_what_they_let_through(net, relu_rule):
    rectifiers = {node.outputs[0]: node.inputs[0] for node in net.graph.nodes if node.kind == "Relu"}
    assert set(rectifiers) == find_rectifiers(net.graph)
    found = net.gradients([net.input, *rectifiers], relu_rule)
    values = net.values({*rectifiers, *rectifiers.values()})
    passes = {
        output: (found[output] > 0) & ((values[output] > 0) | (relu_rule == "deconvolution")) for output in rectifiers
    }
    linear = with_slopes(net, rectifiers, passes, values)
    for place, expected in net.gradients([net.input, *rectifiers], of=linear).items():
        np.testing.assert_allclose(found[place], expected, rtol=0, atol=1e-9 * np.abs(expected).max(), err_msg=place)


def with_slopes(net, rectifiers, slopes, values):
    """The net with slope * x + rest in the place of its ReLUs, whose values are the same at the picture."""
    shapes, graph = dict(net.traced.shapes), net.graph.copy()
    graph.nodes = []
    for node in net.graph.nodes:
        output = node.outputs[0]
        if output not in rectifiers:
            graph.nodes.append(node)
            continue
        slope, rest, product = (f"{output}/{part}" for part in ("slope", "rest", "product"))
        graph.constants[slope] = slopes[output].astype(float)
        graph.constants[rest] = values[output] - slopes[output] * values[rectifiers[output]]
        shapes |= {slope: slopes[output].shape, rest: slopes[output].shape, product: shapes[output]}
        graph.nodes.append(Node("Mul", (rectifiers[output], slope), (product,)))
        graph.nodes.append(Node("Add", (product, rest), (output,)))
    return graph, Traced(shapes, net.traced.dtypes | dict.fromkeys(shapes.keys() - net.traced.dtypes, np.dtype(float)))
