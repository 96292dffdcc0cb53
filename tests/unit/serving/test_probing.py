"""What the probes tell of nets whose contract is known, since they are written out here."""

import re
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from xai_sidecar.command.summary import summary
from xai_sidecar.engine.engine import Engine
from xai_sidecar.errors import ConfigError
from xai_sidecar.explainers.activations import sigmoid, softmax
from xai_sidecar.imaging import InputSpec
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.model import start_model
from xai_sidecar.serving.probing import doubts, label_doubts

UNMEASURED = ExplanationCosts(SimpleNamespace(usual_slowdown=lambda label: 1.0))

SIDE = 8


def spec(mean=0.45, std=0.25):
    return InputSpec(3, SIDE, SIDE, SIDE, SIDE, False, "bilinear", (mean,) * 3, (std,) * 3)


@dataclass
class Net:
    """A small net in numpy, as a backend: two layers with a ReLU, and something in the end."""

    end: object = staticmethod(lambda logits: logits)
    classes: int = 5
    seed: int = 0
    bias: float = 0.1
    sizes: tuple = (1, 4)

    def costs(self, kind):
        return dict.fromkeys(self.sizes, 0.001)

    def run(self, kind, rows):
        assert len(rows[0]) in self.sizes
        generator = np.random.default_rng(self.seed)
        first = generator.normal(0, 0.1, (3 * SIDE * SIDE, 16))
        second = generator.normal(0, 0.5, (16, self.classes))
        hidden = np.maximum(rows[0].reshape(len(rows[0]), -1) @ first, 0)
        logits = hidden @ second + generator.normal(0, self.bias, self.classes)
        return (np.asarray(self.end(logits), np.float32),)


def told(net, activation="softmax", of=None):
    return doubts(net, of or spec(), activation)


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def cosines(logits):
    """Of vectors in one octant, as of a head by angles without a scale."""
    return 0.2 + 0.6 * sigmoid(logits)


# ------------------------------------------------------------------------------------------------ nothing to say


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("classes", [2, 3, 20])
def test_nothing_is_said_of_nets_that_return_logits(classes, activation):
    for seed in range(20):
        for bias in (0.0, 0.1, 10.0):
            assert told(Net(classes=classes, seed=seed, bias=bias), activation) == []


def test_nothing_is_said_of_one_output_under_a_sigmoid():
    for seed in range(20):
        assert told(Net(classes=1, seed=seed), "sigmoid") == []


def test_nothing_is_said_of_pixels_from_0_to_255():
    assert told(Net(), of=spec(mean=0.45, std=1 / 255)) == []


def test_any_batch_size_will_do():
    assert told(Net(sizes=(1,))) == told(Net(sizes=(1, 1024))) == []


# ------------------------------------------------------------------------------------------------ what cannot be right

REFUSED = {
    "softmax": (softmax, "softmax", "model.factory", "ends in a softmax"),
    "softmax under sigmoid": (softmax, "sigmoid", "model.factory", "ends in a softmax"),
    "percentages": (lambda logits: 100 * softmax(logits), "softmax", "model.factory", "ends in a softmax"),
    "clipped": (lambda x: np.clip(softmax(x), 1e-7, 1 - 1e-7), "softmax", "model.factory", "ends in a softmax"),
    "sigmoid": (sigmoid, "sigmoid", "model.factory", "ends in a sigmoid"),
    "sigmoid under softmax": (sigmoid, "softmax", "model.factory", "ends in a sigmoid"),
    "hard sigmoid": (lambda x: np.clip(x / 6 + 0.5, 0, 1), "sigmoid", "model.factory", "ends in a sigmoid"),
    "log-softmax": (log_softmax, "sigmoid", "model.activation", "log-softmax.*model.activation to softmax"),
    "one output": (lambda x: x[:, :1], "softmax", "model.activation", "model.activation to sigmoid"),
    "NaN": (lambda x: np.full_like(x, np.nan), "softmax", "model.factory", "not finite for any picture"),
    "one infinite weight": (lambda x: x + np.array([0, 0, np.inf, 0, 0]), "softmax", "model.factory", "not finite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_right_is_refused(case):
    end, activation, field, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message) as caught:
        told(Net(end), activation)
    assert caught.value.field == field
    if field == "model.factory" and "not finite" not in message:
        assert "model.activation" in caught.value.message


@pytest.mark.parametrize("classes", [2, 100])
def test_probabilities_are_known_of_few_classes_and_of_many(classes):
    for seed in range(5):
        for end in (softmax, sigmoid):
            with pytest.raises(ConfigError, match="probabilities already"):
                told(Net(end, classes=classes, seed=seed))
    with pytest.raises(ConfigError, match="ends in a sigmoid"):
        told(Net(sigmoid, classes=1), "sigmoid")


# ------------------------------------------------------------------------------------------------ what may not be meant

WARNED = {
    "log-softmax": (log_softmax, "log-softmax"),
    "zero weights": (np.zeros_like, "are the same for black.*model.checkpoint.*model.input.mean"),
    "a net for 0 to 255": (lambda x: np.arange(5) + x / 3000, "nearly the same.*0.00392"),
    "between 0 and 1": (cosines, "between 0 and 1 for every picture.*model.activation"),
}


@pytest.mark.parametrize("case", WARNED)
def test_what_may_not_be_meant_is_told(case):
    end, message = WARNED[case]
    (warning,) = told(Net(end))
    assert re.search(message, warning), warning


def test_pictures_without_an_answer_are_named():
    class PerPicture(Net):
        """Divides each picture by its own contrast, which a black one does not have."""

        def run(self, kind, rows):
            flat = rows[0].reshape(len(rows[0]), -1)
            with np.errstate(divide="ignore", invalid="ignore"):
                scaled = (flat - flat.mean(axis=1, keepdims=True)) / np.ptp(flat, axis=1, keepdims=True)
                return super().run(kind, (scaled.reshape(rows[0].shape),))

    assert told(PerPicture()) == [
        "The outputs of the net are not finite for black, white: such pictures get no prediction."
    ]


def test_inputs_divided_twice_are_told():
    (warning,) = told(Net(), of=spec(mean=0.45 / 255, std=0.25 / 255))
    assert "up to 1.02e+03" in warning
    assert "model.input.std" in warning


def test_a_device_that_fails_is_told_and_no_reason_to_end():
    class Failing(Net):
        def run(self, kind, rows):
            raise RuntimeError("out of memory")

    (warning,) = told(Failing())
    assert "RuntimeError: out of memory" in warning


# ------------------------------------------------------------------------------------------------ at start


@pytest.fixture
def load(make_net, make_model, request):
    """Starts a model whose logits are a function of the picture."""

    def load(logits, *overrides):
        net = make_net()
        net.logits = logits
        engine = Engine(lambda: net)
        request.addfinalizer(lambda: engine.close(10))
        return start_model(engine, make_model(*overrides, backend=net).config, lambda line: None)

    return load


def test_a_start_keeps_what_may_not_be_meant_and_check_lists_it(load):
    model = load(lambda image: np.zeros(4, np.float32)).result(10)
    (warning,) = model.warnings
    assert "are the same for black" in warning
    assert re.search(rf"(?m)^warnings +{re.escape(warning)}$", summary(model, UNMEASURED))
    model = load(lambda image: image[0].mean(axis=1)[:4]).result(10)
    assert model.warnings == ()
    assert "warnings" not in summary(model, UNMEASURED)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([], None),
        (["a", "A", "a b", "ab"], None),
        (["a", "b", "a"], "'a' is that of classes 0, 2."),
        (["a"] * 4 + ["b"], "'a' is that of classes 0, 1, 2 and 1 more."),
        (
            [*"abcd", *"dcba"],
            "'a' is that of classes 0, 7; 'b' is that of classes 1, 6; 'c' is that of classes 2, 5; and 1 more.",
        ),
    ],
)
def test_labels_of_several_classes_are_named(labels, said):
    warnings = label_doubts(labels)
    assert len(warnings) == (said is not None)
    assert all(f"the same label: {said} ReportGroundTruth.labels takes no label" in warning for warning in warnings)


def test_a_start_warns_of_labels_of_several_classes(load):
    model = load(lambda image: image[0].mean(axis=1)[:4], "model.labels=['x', ' y', 'y', 'z']").result(10)
    assert model.warnings == tuple(label_doubts(model.labels))
    assert "'y' is that of classes 1, 2." in summary(model, UNMEASURED)


def test_a_start_ends_where_something_cannot_be_right(load):
    with pytest.raises(ConfigError, match="ends in a softmax"):
        load(lambda image: softmax(image[0].mean(axis=1)[:4])).result(10)
