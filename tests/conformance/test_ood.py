"""The OoD net and MindSpore: features out of any cell, and a training like that of MindSpore's own derivatives."""

import numpy as np
import pytest

from xai_sidecar.backends.mindspore.features import features_net
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.errors import PreconditionError
from xai_sidecar.ood.fitting import first_weights, fit
from xai_sidecar.ood.outliers import auroc

CLASSES = 4


class Net(nn.Cell):
    """Convolution, ReLU, mean, and whatever a test puts behind."""

    def __init__(self, features=6):
        super().__init__()
        self.conv = nn.Conv2d(3, features, 3, pad_mode="pad", padding=1, has_bias=True)
        self.norm = nn.BatchNorm2d(features)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(p=0.5)

    def spatial(self, x):
        return self.relu(self.norm(self.conv(x)))

    def pooled(self, x):
        return self.spatial(x).mean((2, 3))


class Plain(Net):
    """Dropout and a dense layer."""

    def __init__(self):
        super().__init__()
        self.head = nn.Dense(6, CLASSES)

    def construct(self, x):
        return self.head(self.dropout(self.pooled(x)))


class InASequence(Net):
    """The last layer stands in a sequence, and another one with as many outputs before it."""

    def __init__(self):
        super().__init__()
        self.head = nn.SequentialCell(nn.Dense(6, CLASSES), nn.ReLU(), nn.Dropout(p=0.1), nn.Dense(CLASSES, CLASSES))

    def construct(self, x):
        return self.head(self.pooled(x))

    def features(self, x):
        return self.head[1](self.head[0](self.pooled(x)))


class Scaled(Net):
    """The logits are scaled, and shaped to what they are."""

    def __init__(self):
        super().__init__()
        self.head = ms.mint.nn.Linear(6, CLASSES)

    def construct(self, x):
        return 0.1 * self.head(self.pooled(x)).reshape(x.shape[0], -1)


class Convolutional(Net):
    """As SqueezeNet: a convolution to the classes, ReLU, mean."""

    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(6, CLASSES, 1, has_bias=True, weight_init="normal")

    def construct(self, x):
        return self.relu(self.last(self.dropout(self.spatial(x)))).mean((2, 3))


class PerPosition(Net):
    """A dense layer at each position, and the mean of its outputs."""

    def __init__(self):
        super().__init__()
        self.head = nn.Dense(6, CLASSES)

    def construct(self, x):
        return self.head(self.spatial(x).reshape(x.shape[0], 6, -1).transpose(0, 2, 1)).mean(1)


class Declaring(Net):
    """As MindSpore XAI wants it."""

    def __init__(self):
        super().__init__()
        self.num_features = 5
        self.output_features = False
        self.fc1 = nn.Dense(6, self.num_features)
        self.fc2 = nn.Dense(self.num_features, CLASSES)

    def construct(self, x):
        x = self.relu(self.fc1(self.pooled(x)))
        return x if self.output_features else self.fc2(x)

    def features(self, x):
        return self.relu(self.fc1(self.pooled(x)))


class DeclaringInFrontOfAProduct(Net):
    """Its last layer is no cell."""

    def __init__(self):
        super().__init__()
        self.num_features = 6
        self.output_features = False
        self.weight = ms.Parameter(ms.ops.ones((6, CLASSES), ms.float32), name="product")

    def construct(self, x):
        x = self.pooled(x)
        if self.output_features:
            return x
        return ms.ops.matmul(x, self.weight)


NETS = [Plain, InASequence, Scaled, Convolutional, PerPosition, Declaring, DeclaringInFrontOfAProduct]
ONE_PASS = {Plain, InASequence, Declaring}


def made(kind):
    """A net with weights and statistics of its own, in training mode, as users leave them."""
    net = kind()
    generator = np.random.default_rng(3)
    for parameter in net.get_parameters():
        values = generator.normal(0, 0.5, parameter.shape)
        if "gamma" in parameter.name or "variance" in parameter.name:
            values = np.abs(values) + 0.5
        parameter.set_data(ms.Tensor(values.astype(np.float32)))
    return net.set_train(True)


def visible(net):
    """Everything of a net that its owner could see."""
    return {
        "parameters": [(id(p), p.name, p.requires_grad, p.asnumpy().tobytes()) for p in net.get_parameters()],
        "cells": [(name, id(cell), type(cell), cell.training, cell.phase) for name, cell in net.cells_and_names()],
        "attributes": {name: repr(value) for name, value in vars(net).items() if isinstance(value, (bool, int, str))},
        "hooks": [name for name, cell in net.cells_and_names() if cell._forward_hook or cell._forward_pre_hook],
    }


class Compiled(nn.Cell):
    def __init__(self, net):
        super().__init__(auto_prefix=False)
        self.net = net

    @ms.jit
    def construct(self, inputs):
        return self.net(inputs)


@pytest.fixture
def inputs():
    return np.random.default_rng(7).standard_normal((3, 3, 6, 10)).astype(np.float32)


@pytest.mark.parametrize("kind", NETS)
def test_features_come_with_the_logits_and_the_net_stays_as_it_was(kind, inputs):
    net = made(kind)
    before = visible(net)
    both = features_net(net, inputs[:1], CLASSES)
    assert visible(net) == before
    features, logits = (output.asnumpy() for output in both(ms.Tensor(inputs)))
    compiled = [output.asnumpy() for output in Compiled(both)(ms.Tensor(inputs))]
    assert visible(net) == before
    net.set_train(False)
    np.testing.assert_allclose(logits, net(ms.Tensor(inputs)).asnumpy(), atol=1e-5)
    right = net.features if hasattr(net, "features") else net.pooled
    expected = right(ms.Tensor(inputs)).asnumpy() * (0.1 if kind is Scaled else 1)  # a scale is nothing to an angle
    np.testing.assert_allclose(features, expected, atol=1e-5)
    np.testing.assert_allclose(compiled[0], features, atol=1e-5)
    np.testing.assert_allclose(compiled[1], logits, atol=1e-5)


@pytest.mark.parametrize("kind", NETS)
def test_one_pass_is_enough_where_a_dense_layer_comes_last(kind, inputs):
    net = made(kind)
    both = features_net(net, inputs[:1], CLASSES)
    convolutions = [cell for _, cell in both.cells_and_names() if isinstance(cell, nn.Conv2d)]
    assert (len(convolutions) == 1) == (kind in ONE_PASS)


def test_the_features_follow_the_weights_of_the_net(inputs):
    net = made(Plain)
    both = features_net(net, inputs[:1], CLASSES)
    net.head.bias.set_data(net.head.bias + 1000)
    assert both(ms.Tensor(inputs))[1].asnumpy().min() > 900


class Softmaxed(Net):
    """Something else than averaging and scaling follows."""

    def __init__(self):
        super().__init__()
        self.head = nn.Dense(6, CLASSES)

    def construct(self, x):
        return ms.ops.softmax(self.head(self.pooled(x)), axis=1)


class Twice(Net):
    """The last layer runs twice."""

    def __init__(self):
        super().__init__()
        self.head = nn.Dense(6, CLASSES)

    def construct(self, x):
        return self.head(self.pooled(x)) + self.head(self.pooled(x * 2))


class ByHand(Net):
    """No layer at all."""

    def construct(self, x):
        return self.pooled(x)[:, :CLASSES]


class Clipped(Plain):
    """The logits are clipped, where the example's are not."""

    def construct(self, x):
        return ms.ops.clip(self.head(self.pooled(x)), -1000, 1000)


@pytest.mark.parametrize("kind", [Softmaxed, Twice, ByHand])
def test_a_net_that_ends_otherwise_is_refused_with_the_cure(kind, inputs):
    net = made(kind)
    before = visible(net)
    with pytest.raises(PreconditionError, match=r"cannot have an OoD net.*num_features.*output_features"):
        features_net(net, inputs[:1], CLASSES)
    assert visible(net) == before


def test_logits_that_are_clipped_stay_clipped(inputs):
    net = made(Clipped)
    both = features_net(net, inputs[:1], CLASSES)
    net.head.bias.set_data(net.head.bias + 5000)
    assert both(ms.Tensor(inputs))[1].asnumpy().max() == 1000


class Raising(Declaring):
    def construct(self, x):
        if self.output_features:
            raise ValueError("not today")
        return self.fc2(self.relu(self.fc1(self.pooled(x))))


class Lying(Declaring):
    def construct(self, x):
        x = self.pooled(x)
        return x if self.output_features else self.fc2(self.relu(self.fc1(x)))


class Talkative(Declaring):
    def construct(self, x):
        x = self.relu(self.fc1(self.pooled(x)))
        return (x, self.fc2(x)) if self.output_features else self.fc2(x)


@pytest.mark.parametrize(
    ("kind", "saying"),
    [(Raising, "raised ValueError: not today"), (Lying, r"shape \(1, 6\)"), (Talkative, "returned tuple")],
)
def test_a_declaration_that_does_not_hold_is_refused_and_nothing_is_left_set(kind, saying, inputs):
    net = made(kind)
    before = visible(net)
    with pytest.raises(PreconditionError, match=saying):
        features_net(net, inputs[:1], CLASSES)
    assert net.output_features is False
    assert visible(net) == before


# ------------------------------------------------------------------------------------------------------ the training


class Head(nn.Cell):
    """The head in training: cosines over sigmoid(BatchNorm(w · f))."""

    def __init__(self, weights, divisor):
        super().__init__()
        self.weights = ms.Parameter(ms.Tensor(weights), name="weights")
        self.divisor = nn.Dense(len(divisor), 1, weight_init=ms.Tensor(divisor[None]), has_bias=False)
        self.norm = nn.BatchNorm1d(1, gamma_init="ones", beta_init="zeros")

    def construct(self, features):
        cosines = ms.ops.matmul(unit(features), unit(self.weights).T)
        return cosines / ms.ops.sigmoid(self.norm(self.divisor(features)))


def unit(rows):
    return rows / (rows * rows).sum(1, keepdims=True).sqrt()


def by_mindspore(weights, divisor, batches, rates):
    """The weights after some steps along MindSpore's own derivatives, clipped, with momentum and weight decay."""
    net = Head(weights, divisor).set_train()
    parameters = net.trainable_params()
    derive = ms.value_and_grad(lambda x, y: ms.ops.cross_entropy(net(x), y), None, parameters)
    moments = [0.0] * len(parameters)
    for (features, labels), rate in zip(batches, rates, strict=True):
        gradients = [gradient.asnumpy() for gradient in derive(ms.Tensor(features), ms.Tensor(labels))[1]]
        length = np.sqrt(sum(np.sum(gradient**2) for gradient in gradients))
        for place, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            value = parameter.asnumpy()
            moments[place] = 0.9 * moments[place] + gradient / max(1, length) + 1e-4 * value
            parameter.set_data(ms.Tensor((value - rate * moments[place]).astype(np.float32)))
    return net.weights.asnumpy()


def drawn(count, seed):
    """Features of six classes, and of two more that are never learned, all much alike; and the classes."""
    generator = np.random.default_rng(seed)
    centres = np.abs(np.random.default_rng(5).standard_normal((8, 40)))
    labels = (np.arange(count) % 8).astype(np.int32)
    return np.abs(centres[labels] + generator.standard_normal((count, 40))).astype(np.float32), labels


def test_a_head_is_what_mindspore_makes_of_the_same_features_in_the_same_order():
    features, labels = drawn(160, 0)
    features, labels = features[labels < 6], labels[labels < 6]
    epochs, size, seed = 3, 40, 3
    trained = fit(features, labels, epochs=epochs, batch_size=size, seed=seed)

    generator = np.random.default_rng([seed, 0])
    divisor = generator.uniform(-1, 1, features.shape[1]) / np.sqrt(features.shape[1])
    weights = first_weights(features, labels, generator)
    scaled = features / np.sqrt(np.mean(features**2))
    orders = [np.random.default_rng([seed, 1, epoch]).permutation(len(labels)) for epoch in range(epochs)]
    batches = [(scaled[rows], labels[rows]) for order in orders for rows in np.split(order, len(labels) // size)]
    rates = [0.1 * 0.1 ** (step // (len(batches) // 3)) for step in range(len(batches))]
    expected = by_mindspore(weights, divisor.astype(np.float32), batches, rates)
    np.testing.assert_allclose(trained.weights, expected, atol=2e-4)

    new, classes = drawn(800, 1)
    scores, others = (cosines(new, each) for each in (trained.weights, expected))
    assert np.corrcoef(scores.ravel(), others.ravel())[0, 1] > 0.99999
    areas = [auroc(each.max(1)[classes < 6], each.max(1)[classes >= 6]) for each in (scores, others)]
    assert areas[0] == pytest.approx(areas[1], abs=1e-3)
    assert areas[0] > 0.7


def cosines(features, weights):
    return features @ weights.T / np.linalg.norm(features, axis=1)[:, None] / np.linalg.norm(weights, axis=1)
