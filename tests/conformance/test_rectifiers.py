"""Guided backpropagation and deconvolution against the same written out in NumPy; and what they cannot reach."""

import math
import re

import numpy as np
import pytest
from mindcv.models import create_model

from xai_sidecar.backends.mindspore.compile_cache import structure
from xai_sidecar.backends.mindspore.programs import compiled_graphs, input_gradient_program
from xai_sidecar.backends.mindspore.rectifiers import check_rectifiers, rectified_copy, unreached_activations
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.errors import PreconditionError
from xai_sidecar.zoo.efficientnet_lite import efficientnet_lite0

RULES = ["guided", "deconvolution"]
TARGETS = np.array([1, 3, 0, 2], np.int32)


# ---------------------------------------------------------------------------------------- the answers, in float64


def windows(padded, stride):
    """(C, H, W) with its rim → (C, H', W', 3, 3)."""
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::stride, ::stride]


def convolved(x, weight, stride):
    return np.einsum("chwij,ocij->ohw", windows(np.pad(x, ((0, 0), (1, 1), (1, 1))), stride), weight)


def convolved_back(gradient, weight, stride, shape):
    """The gradient of `convolved` by x: every output gives to what it was made of."""
    padded = np.zeros((shape[0], shape[1] + 2, shape[2] + 2))
    _, height, width = gradient.shape
    for i in range(3):
        for j in range(3):
            part = np.einsum("ohw,oc->chw", gradient, weight[:, :, i, j])
            padded[:, i : i + stride * height : stride, j : j + stride * width : stride] += part
    return padded[:, 1:-1, 1:-1]


def rectified_back(rule, gradient, z, ceiling):
    if rule == "deconvolution":
        return np.maximum(gradient, 0)
    masked = np.where((z > 0) & (z < ceiling), gradient, 0)
    return np.maximum(masked, 0) if rule == "guided" else masked


def answer(net, rule, x, target, ceilings=(math.inf, math.inf)):
    """The map and the logits of one input, (C, H, W), by the layers `first`, `second` and `head` of a net."""
    weights = {p.name: p.asnumpy().astype(np.float64) for p in net.get_parameters()}
    first, bias, second = (
        getattr(layer, name).asnumpy().astype(np.float64)
        for layer, name in ((net.first, "weight"), (net.first, "bias"), (net.second, "weight"))
    )
    x = x.astype(np.float64)
    z1 = convolved(x, first, 1) + bias[:, None, None]
    a1 = np.clip(z1, 0, ceilings[0])
    z2 = convolved(a1, second, 2)
    a2 = np.clip(z2, 0, ceilings[1])
    logits = weights["head.weight"] @ a2.mean((1, 2)) + weights["head.bias"]

    gradient = weights["head.weight"][target][:, None, None] * np.ones_like(a2) / a2[0].size
    gradient = rectified_back(rule, gradient, z2, ceilings[1])
    gradient = convolved_back(gradient, second, 2, a1.shape)
    gradient = rectified_back(rule, gradient, z1, ceilings[0])
    return convolved_back(gradient, first, 1, x.shape), logits, (z1, z2)


def answers(net, rule, x, targets, ceilings=(math.inf, math.inf)):
    return np.stack([answer(net, rule, *pair, ceilings)[0] for pair in zip(x, targets, strict=True)])


def agree(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


# ---------------------------------------------------------------------------------------- nets


class TwoConvs(nn.Cell):
    """Convolution, rectifier, strided convolution, rectifier, mean, dense, on weights scaled by a gain."""

    def __init__(self, gain=1.0):
        super().__init__()
        generator = np.random.default_rng(6)

        def weight(*shape):
            return ms.Tensor((gain * generator.normal(0, 0.5, shape)).astype(np.float32))

        self.first = nn.Conv2d(
            3, 5, 3, pad_mode="pad", padding=1, has_bias=True, weight_init=weight(5, 3, 3, 3), bias_init=weight(5)
        )
        self.second = nn.Conv2d(5, 6, 3, stride=2, pad_mode="pad", padding=1, weight_init=weight(6, 5, 3, 3))
        self.head = nn.Dense(6, 4, weight_init=weight(4, 6), bias_init=weight(4))


class OneCellTwice(TwoConvs):
    def __init__(self, act, gain=1.0):
        super().__init__(gain)
        self.act = act

    def construct(self, x):
        return self.head(self.act(self.second(self.act(self.first(x)))).mean((2, 3)))


class Compiled(nn.Cell):
    """Compiled on its own, with a rectifier inside."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    @ms.jit
    def construct(self, x):
        return self.act(x)


class Nested(TwoConvs):
    """The rectifiers in lists and sequences, one with a ceiling, one in a part compiled on its own."""

    def __init__(self):
        super().__init__(gain=2.0)
        self.blocks = nn.CellList(
            [
                nn.SequentialCell([nn.SequentialCell([self.first, nn.Hardtanh(0.0, 4.0)])]),
                nn.SequentialCell([self.second, Compiled(nn.ReLU())]),
            ]
        )

    def construct(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Overwriting(TwoConvs):
    """Changes what a rectifier has put out, in place or not."""

    def __init__(self, in_place):
        super().__init__()
        self.act = nn.ReLU()
        self.in_place = in_place

    def construct(self, x):
        y = self.act(self.first(x))
        if self.in_place:
            y -= 1
        else:
            y = y - 1
        return self.head(self.act(self.second(y)).mean((2, 3)))


class Tail(nn.Cell):
    """A convolution, something behind it, mean, dense; and a rectifier that may be used."""

    def __init__(self, act=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.act = act or nn.Identity()
        self.relu = nn.ReLU()
        self.relu6 = nn.ReLU6()
        self.head = nn.Dense(4, 4)

    def construct(self, x):
        return self.head(self.behind(self.conv(x)).mean((2, 3)))

    def behind(self, x):
        return self.act(x)


class FunctionalBesideAnIdleCell(Tail):
    def behind(self, x):
        return ms.ops.relu(x)


class FunctionalBesideAReachedCell(Tail):
    def behind(self, x):
        return self.relu(x) + ms.ops.relu(x)  # on the same value, so that they may be taken for one


class PrimitiveMadeInPassing(Tail):
    def behind(self, x):
        return ms.ops.ReLU6()(self.relu(x))


class MintFunction(Tail):
    def behind(self, x):
        return ms.mint.nn.functional.relu(self.relu(x) - 1)


class MaximumOfZero(Tail):
    def behind(self, x):
        return ms.ops.maximum(self.relu(x) - 1, 0)


class Clipped(Tail):
    def behind(self, x):
        return (self.relu(x) - 1).clip(0, 6)


class Masked(Tail):
    def behind(self, x):
        return x * (x > 0).astype(x.dtype)


class HardSwishByHand(Tail):
    """Its rectifier is reached, yet what it makes is no rectifier."""

    def behind(self, x):
        return x * self.relu6(x + 3) / 6


class ADenominator(Tail):
    def behind(self, x):
        return x / (1 + self.relu(x))


class IntoABuffer(Tail):
    """The second rectifier acts on what was made as a constant."""

    def behind(self, x):
        buffer = ms.ops.zeros((1, 4, 8, 12))
        buffer.add_(self.relu(x))
        return ms.ops.relu(buffer)


class Branching(Tail):
    def behind(self, x):
        return ms.ops.abs(ms.ops.tanh(x) if x.sum() > 0 else self.relu(x))


class LeftInOnePiece(nn.Cell):
    """Becomes a function that the graph calls."""

    @ms.lazy_inline
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU()

    def construct(self, x):
        return self.act(self.norm(self.conv(x)))


class InAListOfPython(Tail):
    """Not a child as far as MindSpore knows."""

    def __init__(self):
        super().__init__()
        self.hidden = (nn.ReLU(),)
        self.others = {"act": nn.ReLU()}

    def behind(self, x):
        return self.hidden[0](x)


class OwnGradient(nn.Cell):
    def __init__(self):
        super().__init__()
        self.inner = nn.ReLU()

    def construct(self, x):
        return self.inner(x)

    def bprop(self, x, out, dout):
        return (dout,)


class OwnReLU(nn.ReLU):
    """A rectifier whose gradient its owner has already replaced."""

    def bprop(self, x, out, dout):
        return (dout,)


class OfThePlainSort(nn.Cell):
    """What a classifier may well have besides rectifiers: none of it to be reached by the rules."""

    def __init__(self):
        super().__init__()
        self.stem = nn.SequentialCell([nn.Conv2d(3, 8, 3, pad_mode="pad", padding=1), nn.BatchNorm2d(8), nn.ReLU()])
        self.pools = nn.CellList([nn.MaxPool2d(3, 2, pad_mode="same"), nn.AvgPool2d(3, 2, pad_mode="same")])
        self.norms = nn.CellList([nn.GroupNorm(2, 8), nn.LayerNorm((6,))])
        self.scale = ms.Parameter(ms.ops.ones((1, 8, 1, 1)), name="scale")
        self.dropout = nn.Dropout(p=0.5)
        self.head = nn.Dense(16, 4, activation="relu")
        self.unused = nn.Tanh()

    def construct(self, x):
        x = self.stem(x)
        x += self.stem[2](-x)
        x = ms.ops.concat([pool(x) for pool in self.pools], 1)
        first, second = ms.ops.split(x, 8, 1)
        first = self.norms[1](self.norms[0](first * self.scale / 2))
        x = ms.ops.concat([first, second.transpose(0, 1, 3, 2).reshape(second.shape)], 1)
        return self.head(self.dropout(x.mean((2, 3))))


EXAMPLE = np.random.default_rng(4).standard_normal((1, 3, 8, 12)).astype(np.float32)


# ---------------------------------------------------------------------------------------- the rules


@pytest.mark.parametrize("rule", RULES)
def test_the_small_net_at_every_batch_size(small_net, images, rule):
    program = input_gradient_program(rectified_copy(small_net, rule), 4)
    expected = answers(small_net, rule, images, TARGETS)
    for size in (1, 2, 3, 4):
        gradients, logits = program((images[-size:], TARGETS[-size:]))
        agree(gradients, expected[-size:])
        np.testing.assert_allclose(logits, small_net(ms.Tensor(images[-size:])).asnumpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("act", "ceiling"),
    [(nn.ReLU, math.inf), (nn.ReLU6, 6), (lambda: nn.Hardtanh(0.0, 3.0), 3)],
    ids=["ReLU", "ReLU6", "Hardtanh"],
)
def test_one_cell_that_serves_twice(images, rule, act, ceiling):
    net = OneCellTwice(act(), gain=2.0)
    *_, (z1, z2) = answer(net, rule, images[0], 1, (ceiling, ceiling))
    for z in (z1, z2):  # else the ceiling or zero would not have been tried
        assert (z < 0).any()
        assert (z > 6).any()
    gradients, logits = input_gradient_program(rectified_copy(net, rule), 4)((images[:2], TARGETS[:2]))
    agree(gradients, answers(net, rule, images[:2], TARGETS[:2], (ceiling, ceiling)))
    agree(logits[0], answer(net, rule, images[0], 1, (ceiling, ceiling))[1])


@pytest.mark.parametrize("rule", RULES)
def test_nested_cells(images, rule):
    net = Nested()
    gradients, _ = input_gradient_program(rectified_copy(net, rule), 4)((images[:3], TARGETS[:3]))
    agree(gradients, answers(net, rule, images[:3], TARGETS[:3], (4, math.inf)))


@pytest.mark.parametrize("rule", RULES)
def test_a_rectified_value_that_is_overwritten(images, rule):
    maps = [
        input_gradient_program(rectified_copy(Overwriting(in_place), rule), 4)((images[:2], TARGETS[:2]))[0]
        for in_place in (True, False)
    ]
    agree(*maps)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("net", "ceilings"),
    [(OneCellTwice(nn.ReLU6(), gain=2.0), (6, 6)), (Nested(), (4, math.inf))],
    ids=["cell", "nested"],
)
def test_uncompiled(images, rule, net, ceilings):
    copy = rectified_copy(net, rule)
    chosen = ms.Tensor(np.eye(4, dtype=np.float32)[TARGETS])
    gradients = ms.grad(lambda x: (copy(x) * chosen).sum())(ms.Tensor(images)).asnumpy()
    agree(gradients, answers(net, rule, images, TARGETS, ceilings))


def test_the_answers_by_the_chain_rule_are_the_plain_gradient(images):
    """So that the written-out answers are themselves held to something."""
    net = OneCellTwice(nn.ReLU6(), gain=2.0)
    gradients, _ = input_gradient_program(net, 4)((images[:2], TARGETS[:2]))
    agree(gradients, answers(net, "chain", images[:2], TARGETS[:2], (6, 6)))


@pytest.mark.parametrize(
    ("act", "plain", "guided", "deconvolution"), [(nn.ReLU, 37, 38, 35), (nn.ReLU6, 9, 10, 35)], ids=["ReLU", "ReLU6"]
)
def test_on_paper(act, plain, guided, deconvolution):
    """From x = 2, z = (2, −2, 4, 8) by weights (1, −1, 2, 4); the logit weighs the rectified z by (−1, 3, 5, 7).

    Plain: −1·1 + 5·2 + 7·4 = 37, without z₂, which is below zero. Guided: the −1 is stopped as well, 5·2 + 7·4 = 38.
    Deconvolution: only the −1 is stopped, 3·(−1) + 5·2 + 7·4 = 35. With ReLU6, z₄ = 8 is above the ceiling, which
    takes 28 from all but the last.
    """
    net = nn.SequentialCell(
        [
            nn.Conv2d(1, 4, 1, weight_init=ms.Tensor(np.float32([1, -1, 2, 4]).reshape(4, 1, 1, 1))),
            act(),
            nn.Flatten(),
            nn.Dense(4, 1, weight_init=ms.Tensor(np.float32([[-1, 3, 5, 7]])), has_bias=False),
        ]
    )
    rows = (np.full((1, 1, 1, 1), 2, np.float32), np.array([0]))
    maps = {rule: input_gradient_program(rectified_copy(net, rule), 1)(rows)[0].item() for rule in RULES}
    assert input_gradient_program(net, 1)(rows)[0].item() == pytest.approx(plain)
    assert maps == {"guided": pytest.approx(guided), "deconvolution": pytest.approx(deconvolution)}


def test_an_unknown_rule():
    with pytest.raises(ValueError, match="no rule 'plain', only guided, deconvolution"):
        rectified_copy(Nested(), "plain")


# ---------------------------------------------------------------------------------------- no traces


def visible(net):
    """Everything of a net that its owner could see, and what MindSpore notes down in cells."""
    return {
        "structure": structure(net),
        "parameters": [(id(p), p.name, p.requires_grad, p.asnumpy().tobytes()) for p in net.get_parameters()],
        "cells": [(name, id(cell), type(cell), cell.training) for name, cell in net.cells_and_names()],
        "notes": [(cell.phase, dict(cell.phase_cache), cell.get_scope()) for _, cell in net.cells_and_names()],
    }


def test_the_net_stays_as_it_was_and_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = OfThePlainSort().set_train(True)
    before, graphs = visible(net), compiled_graphs()
    check_rectifiers(net, EXAMPLE)
    with pytest.raises(PreconditionError):
        check_rectifiers(Tail(nn.GELU()), EXAMPLE)
    with pytest.raises(PreconditionError):
        check_rectifiers(LeavesMindSpore(), EXAMPLE)
    assert compiled_graphs() == graphs
    copy = rectified_copy(net, "guided")
    input_gradient_program(copy, 4)((EXAMPLE, TARGETS[:1]))
    assert visible(net) == before
    assert {p.name: id(p) for p in copy.get_parameters()} == {p.name: id(p) for p in net.get_parameters()}
    assert not list(tmp_path.iterdir())


def test_the_compile_cache_is_left_alone(tmp_path, monkeypatch):
    """It takes graphs by the order in which they are compiled, and would hand over one for another."""
    monkeypatch.setenv("MS_COMPILER_CACHE_ENABLE", "1")
    monkeypatch.setenv("MS_COMPILER_CACHE_PATH", str(tmp_path))
    monkeypatch.setattr("mindspore.graph.api.entry_script_path", __file__)  # the cache looks into its imports
    assert unreached_activations(Tail(nn.Tanh()), EXAMPLE) == ["act (Tanh)"]
    assert not list(tmp_path.iterdir())
    forward = input_gradient_program(Tail(nn.Tanh()), 4)
    forward((EXAMPLE, TARGETS[:1]))
    assert list(tmp_path.iterdir()), "nothing would have been cached here anyway"


# ---------------------------------------------------------------------------------------- what is not reached


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (Tail(nn.GELU()), "act (GeLU)"),
        (Tail(nn.GELU(approximate=False)), "act (Erf, Mul)"),
        (Tail(nn.SiLU()), "act (SiLU)"),
        (Tail(nn.HSwish()), "act (HSwish)"),
        (Tail(nn.HSigmoid()), "act (HSigmoid)"),
        (Tail(nn.Sigmoid()), "act (Sigmoid)"),
        (Tail(nn.Tanh()), "act (Tanh)"),
        (Tail(nn.ELU()), "act (Elu)"),
        (Tail(nn.LeakyReLU()), "act (Maximum)"),
        (Tail(nn.PReLU()), "act (PReLU)"),
        (Tail(nn.Softmax(1)), "act (Softmax)"),
        (Tail(nn.Hardtanh(-1.0, 1.0)), "act (Maximum, Minimum)"),
        (Tail(Compiled(nn.Tanh())), "act.act (Tanh)"),
        (Tail(OwnReLU()), "act (functional ReLU)"),
        (Tail(OwnGradient()), "act (its own bprop)"),
        (FunctionalBesideAnIdleCell(), "the net itself (functional ReLU)"),
        (FunctionalBesideAReachedCell(), "the net itself (functional ReLU)"),
        (PrimitiveMadeInPassing(), "the net itself (functional ReLU6)"),
        (MintFunction(), "the net itself (functional ReLU)"),
        (MaximumOfZero(), "the net itself (Maximum)"),
        (Clipped(), "the net itself (ClampScalar)"),
        (Masked(), "the net itself (Greater, Mul)"),
        (HardSwishByHand(), "the net itself (Mul)"),
        (ADenominator(), "the net itself (Div)"),
        (Tail(ms.mint.nn.ReLU6(inplace=True)), "act (InplaceHardtanh)"),
        (IntoABuffer(), "the net itself (InplaceAddExt)"),
        (Branching(), "the net itself (Greater, Abs, Tanh)"),
    ],
)
def test_an_activation_that_is_not_reached(net, expected):
    assert unreached_activations(net, EXAMPLE) == [expected]
    with pytest.raises(PreconditionError, match=re.escape(f"every activation of this net: {expected}. Ask for grad")):
        check_rectifiers(net, EXAMPLE)


def test_a_rectifier_that_is_no_child_of_the_net():
    (found,) = unreached_activations(InAListOfPython(), EXAMPLE)
    assert found.endswith("(functional ReLU)")


def test_a_net_of_the_plain_sort_is_reached_altogether():
    net = OfThePlainSort().set_train(True)
    assert unreached_activations(net, EXAMPLE) == []
    check_rectifiers(net, EXAMPLE)


def test_a_cell_that_stays_a_function_is_searched_like_any_other():
    check_rectifiers(Tail(LeftInOnePiece()), EXAMPLE)
    behind = nn.SequentialCell([LeftInOnePiece(), nn.Tanh()])
    assert unreached_activations(Tail(behind), EXAMPLE) == ["act.1 (Tanh)"]


def test_the_cells_of_mint_are_reached():
    for act in (ms.mint.nn.ReLU(), ms.mint.nn.ReLU6(), ms.mint.nn.Hardtanh(0, 6)):
        check_rectifiers(Tail(act), EXAMPLE)


def test_a_net_without_rectifiers():
    assert unreached_activations(Tail(), EXAMPLE) == []
    with pytest.raises(PreconditionError, match=r"No ReLU or the like runs in this net.*Ask for gradient or gradcam"):
        check_rectifiers(Tail(), EXAMPLE)


def test_an_error_names_some_and_counts_the_rest():
    class Five(nn.Cell):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d, self.e = (nn.Tanh() for _ in range(5))
            self.flatten = nn.Flatten()

        def construct(self, x):
            return self.flatten(self.e(self.d(self.c(self.b(self.a(self.a(x)))))))

    with pytest.raises(PreconditionError, match=r"net: a \(Tanh ×2\), b \(Tanh\), c \(Tanh\) and 2 more\."):
        check_rectifiers(Five(), EXAMPLE)


class LeavesMindSpore(Tail):
    def behind(self, x):
        return ms.Tensor(np.maximum(x.asnumpy(), 0))


def test_a_net_that_cannot_be_searched():
    with pytest.raises(
        PreconditionError, match=r"cannot be searched for activations: RuntimeError: .*Ask for gradient"
    ):
        check_rectifiers(LeavesMindSpore(), EXAMPLE)
    check_rectifiers(Tail(nn.ReLU()), EXAMPLE)  # the next one is none the worse for it


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "squeezenet1_0"])
def test_real_nets_that_are_reached_altogether(name):
    net = efficientnet_lite0(10) if name == "efficientnet_lite0" else create_model(name, num_classes=10)
    check_rectifiers(net, np.zeros((1, 3, 64, 96), np.float32))


def test_a_real_net_that_is_not():
    found = unreached_activations(create_model("mobilenet_v3_small_100", num_classes=10), EXAMPLE.repeat(8, 2))
    operations = {operation for name in found for operation in re.sub(r".*\(|\)| ×\d+", "", name).split(", ")}
    assert operations == {"HSwish", "HSigmoid", "Mul"}
