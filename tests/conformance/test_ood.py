"""The OoD net in MindSpore: features out of any net, and a training that computes what the paper says."""

import os
import signal
import time

import numpy as np
import pytest

from xai_sidecar.backends.mindspore.features import features_net
from xai_sidecar.backends.mindspore.ood_net import OoDNet, TrainingStep, fit
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.engine.work import IntArray
from xai_sidecar.errors import ConfigError, PreconditionError
from xai_sidecar.interrupt import interruptible
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


def loss_of(flat, features, labels, classes):
    """The mean cross-entropy of softmax(h / g), of all parameters in a row, in float64."""
    count = features.shape[1]
    weights = flat[: classes * count].reshape(classes, count)
    divisor, gamma, beta = flat[classes * count : -2], flat[-2], flat[-1]
    cosines = np.array([[f @ w / np.linalg.norm(f) / np.linalg.norm(w) for w in weights] for f in features])
    values = features @ divisor
    normalised = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
    logits = cosines * (1 + np.exp(-(gamma * normalised + beta)))[:, None]
    return np.mean([np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, labels, strict=True)])


@pytest.mark.parametrize(("scale", "shortened"), [(1, False), (0.1, True)])
def test_steps_are_those_of_gradient_descent(scale, shortened):
    """Three steps, against derivatives taken by differences. Short weights have a long gradient."""
    generator = np.random.default_rng(0)
    classes, count, samples = 3, 5, 7
    features = generator.standard_normal((samples, count)).astype(np.float32)
    labels = generator.integers(0, classes, samples).astype(np.int32)
    weights = (scale * generator.standard_normal((classes, count))).astype(np.float32)
    divisor = generator.standard_normal(count).astype(np.float32)
    step = TrainingStep(OoDNet(weights, divisor).set_train())
    flat = np.concatenate([weights.ravel(), divisor, [1, 0]]).astype(np.float64)
    moment = np.zeros_like(flat)
    lengths = []
    for _ in range(3):
        loss = loss_of(flat, features.astype(np.float64), labels, classes)
        gradient = np.zeros_like(flat)
        for index, unit in enumerate(np.eye(len(flat)) * 1e-6):
            up, down = (loss_of(flat + sign * unit, features, labels, classes) for sign in (1, -1))
            gradient[index] = (up - down) / 2e-6
        lengths.append(np.linalg.norm(gradient))
        moment = 0.9 * moment + gradient / max(1, lengths[-1]) + 1e-4 * flat
        flat -= 0.1 * moment
        told, _ = step(ms.Tensor(features), ms.Tensor(labels), ms.Tensor(0.1, ms.float32))
        assert float(told) == pytest.approx(loss, abs=1e-5)
    assert (max(lengths) > 1) == shortened
    got = np.concatenate([parameter.asnumpy().ravel() for parameter in step.parameters])
    np.testing.assert_allclose(got, flat, atol=1e-5)


def test_without_training_the_head_gives_cosines():
    weights = np.array([[3, 4], [0, -2]], np.float32)
    net = OoDNet(weights, np.ones(2, np.float32)).set_train(False)
    scores = net(ms.Tensor(np.array([[4, 3], [0, 0]], np.float32))).asnumpy()
    np.testing.assert_allclose(scores, [[0.96, -0.6], [0, 0]], atol=1e-6)


def clusters(classes=5, count=60, per_class=30, seed=0):
    """Features as nets have them: none below 0, and far more alike than not."""
    generator = np.random.default_rng(seed)
    centres = np.abs(generator.standard_normal((classes, count)))
    labels = np.tile(np.arange(classes, dtype=np.int32), per_class)
    features = np.abs(centres[labels] + 0.5 * generator.standard_normal((len(labels), count)))
    return features.astype(np.float32), labels


def cosines(features, weights):
    return (
        features
        @ weights.T
        / np.linalg.norm(features, axis=1, keepdims=True)
        / np.linalg.norm(weights, axis=1)[None, :]
    )


def trained(features, labels: IntArray, **more):
    return fit(features, labels, **{"epochs": 12, "batch_size": 32, "seed": 1, **more})


@pytest.fixture(scope="module")
def told():
    """What was told of the epochs of `whole`."""
    return []


@pytest.fixture(scope="module")
def whole(told):
    """What `trained` makes of `clusters`, without an interruption."""
    return trained(*clusters(), report=lambda *line: told.append(line))


def test_a_trained_head_knows_its_classes_and_strangers(whole, told):
    new, labels = clusters(per_class=200)
    scores = cosines(new, whole.weights)
    assert (scores.argmax(axis=1) == labels).mean() > 0.99
    strangers, _ = clusters(seed=1)
    assert auroc(scores.max(axis=1), cosines(strangers, whole.weights).max(axis=1)) > 0.95
    assert [epoch for epoch, _, _ in told] == list(range(1, 13))
    assert told[-1][1] < 0.1 < told[0][1]
    assert (whole.loss, whole.accuracy) == told[-1][1:]


def test_neither_the_scale_of_the_features_nor_the_state_matters_but_the_seed_does(whole, tmp_path):
    features, labels = clusters()
    scaled = trained(features * np.float32(2.0**70), labels, state=tmp_path / "state")
    np.testing.assert_allclose(scaled.weights, whole.weights, atol=1e-4)
    other = trained(features, labels, seed=2)
    assert not np.allclose(other.weights, whole.weights, atol=1e-4)


def test_going_on_is_the_same_as_not_having_been_interrupted(tmp_path, whole):
    features, labels = clusters()
    state = tmp_path / "state"
    done = []

    def go_on(until):
        return trained(
            features,
            labels,
            state=state,
            report=lambda epoch, loss, accuracy: done.append(epoch),
            stop=lambda: len(done) == until,
        )

    for until in (1, 7):
        with pytest.raises(KeyboardInterrupt):
            go_on(until)
        assert done == list(range(1, until + 1))
    for resumed in (go_on(None), go_on(None)):  # over, it stays over
        assert done == list(range(1, 13))
        np.testing.assert_array_equal(resumed.weights, whole.weights)
        assert (resumed.loss, resumed.accuracy) == (whole.loss, whole.accuracy)


def test_ctrl_c_reaches_python_between_two_steps(tmp_path, whole):
    """MindSpore puts its own handler in the place of Python's, and that one ends the process."""
    features, labels = clusters()
    state = tmp_path / "state"

    def ctrl_c(epoch, loss, accuracy):
        if epoch == 3:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)

    with pytest.raises(KeyboardInterrupt), interruptible():
        trained(features, labels, state=state, report=ctrl_c)
    np.testing.assert_array_equal(trained(features, labels, state=state).weights, whole.weights)


def test_a_state_of_another_training_or_a_damaged_one_is_not_gone_on_with(tmp_path):
    features, labels = clusters(per_class=2)
    state = tmp_path / "state"
    given = {"features": features, "labels": labels, "epochs": 1, "state": state}
    over = trained(**given)
    content = state.read_bytes()
    np.testing.assert_array_equal(trained(**given, stop=lambda: True).weights, over.weights)
    for damaged in (b"", content[:50], content[:-1], bytes(len(content))):
        state.write_bytes(damaged)
        with pytest.raises(KeyboardInterrupt):  # asked, since there is something to do
            trained(**given, stop=lambda: True)
    other = np.roll(labels, 1)
    for change in ({"seed": 5}, {"epochs": 2}, {"batch_size": 16}, {"labels": other}, {"features": features * 2}):
        state.write_bytes(content)
        with pytest.raises(KeyboardInterrupt):
            trained(**{**given, **change}, stop=lambda: True)


def test_what_must_not_happen_is_an_error(tmp_path):
    features, labels = clusters(per_class=2)
    with pytest.raises(ConfigError, match="diverged") as caught:
        trained(features * np.float32(np.nan), labels)
    assert caught.value.field == "data"
    with pytest.raises(ConfigError, match="cannot be kept"):
        trained(features, labels, state=tmp_path / "none" / "state", stop=lambda: True)
