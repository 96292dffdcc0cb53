"""Training a head: what the paper says, by derivatives that are those of differences, and going on after a stop."""

import numpy as np
import pytest

from xai_sidecar.engine.work import IntArray
from xai_sidecar.errors import ConfigError
from xai_sidecar.ood.descent import Descent, Parameters, loss_and_gradient
from xai_sidecar.ood.fitting import fit
from xai_sidecar.ood.outliers import auroc


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


def by_differences(flat, features, labels, classes):
    """The gradient of `loss_of`, number by number."""
    step = 1e-6
    moves = np.eye(len(flat)) * step
    up, down = ([loss_of(flat + sign * move, features, labels, classes) for move in moves] for sign in (1, -1))
    return np.subtract(up, down) / (2 * step)


def drawn(seed, classes, count, samples, scale=1.0):
    """Parameters in float64, features and labels."""
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((samples, count))
    labels = generator.integers(0, classes, samples).astype(np.int32)
    weights = scale * generator.standard_normal((classes, count))
    return Parameters.first(weights, generator.standard_normal(count)), features, labels


def in_a_row(parameters):
    return np.concatenate([array.ravel() for array in parameters.arrays().values()])


@pytest.mark.parametrize(("classes", "count", "samples"), [(3, 5, 7), (2, 1, 4), (6, 4, 5), (4, 9, 1)])
def test_derivatives_are_those_of_differences(classes, count, samples):
    parameters, features, labels = drawn(classes, classes, count, samples)
    parameters.gamma[:], parameters.beta[:] = 0.7, -0.4
    flat = in_a_row(parameters)
    loss, accuracy, gradient = loss_and_gradient(parameters, features, labels)
    assert loss == pytest.approx(loss_of(flat, features, labels, classes), rel=1e-9)
    np.testing.assert_allclose(in_a_row(gradient), by_differences(flat, features, labels, classes), atol=1e-7)
    logits = cosines(features, parameters.weights)  # that the divisor scales alike for all classes
    assert accuracy == (logits.argmax(axis=1) == labels).mean()


@pytest.mark.parametrize(("scale", "shortened"), [(1, False), (0.1, True)])
def test_steps_are_those_of_gradient_descent(scale, shortened):
    """Three steps, against derivatives taken by differences. Short weights have a long gradient."""
    parameters, features, labels = drawn(0, 3, 5, 7, scale)
    descent = Descent(parameters)
    flat = in_a_row(parameters)
    moment = np.zeros_like(flat)
    lengths = []
    for rate in (0.1, 0.1, 0.01):
        loss = loss_of(flat, features, labels, 3)
        gradient = by_differences(flat, features, labels, 3)
        lengths.append(np.linalg.norm(gradient))
        moment = 0.9 * moment + gradient / max(1, lengths[-1]) + 1e-4 * flat
        flat -= rate * moment
        told, _ = descent.step(features, labels, rate)
        assert told == pytest.approx(loss, abs=1e-7)
    assert (max(lengths) > 1) == shortened
    np.testing.assert_allclose(in_a_row(parameters), flat, atol=1e-7)


def test_features_and_weights_that_are_all_zero_have_a_finite_gradient():
    parameters, features, labels = drawn(0, 3, 5, 7)
    features[2] = 0
    parameters.weights[1] = 0
    _, _, gradient = loss_and_gradient(parameters, features, labels)
    assert np.isfinite(in_a_row(gradient)).all()


def test_single_precision_stays_single_precision():
    parameters, features, labels = drawn(0, 3, 5, 7)
    single = Parameters(*(array.astype(np.float32) for array in parameters.arrays().values()))
    descent = Descent(single)
    for each in (parameters, single):
        Descent(each).step(features.astype(each.beta.dtype), labels, 0.1)
    descent.step(features.astype(np.float32), labels, 0.1)
    for each in (single, descent.moments, loss_and_gradient(single, features.astype(np.float32), labels)[2]):
        assert {array.dtype for array in each.arrays().values()} == {np.dtype(np.float32)}


# ------------------------------------------------------------------------------------------------------ whole trainings


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
    """Wherever it is stopped: before an epoch, or between two of its five steps."""
    features, labels = clusters()
    state = tmp_path / "state"
    done = []

    def go_on(steps):
        asked = iter(range(steps))
        return trained(
            features,
            labels,
            state=state,
            report=lambda epoch, loss, accuracy: done.append(epoch),
            stop=lambda: next(asked, None) is None,
        )

    for steps, epochs in ((0, 0), (5, 1), (3, 1), (1, 1), (1, 2), (22, 6)):
        with pytest.raises(KeyboardInterrupt):
            go_on(steps)
        assert done == list(range(1, epochs + 1))
    for resumed in (go_on(1000), go_on(0)):  # over, it stays over
        assert done == list(range(1, 13))
        np.testing.assert_array_equal(resumed.weights, whole.weights)
        assert (resumed.loss, resumed.accuracy) == (whole.loss, whole.accuracy)


def test_an_exception_costs_no_more_than_what_was_not_kept_yet(tmp_path, whole, monkeypatch):
    features, labels = clusters()
    state = tmp_path / "state"
    monkeypatch.setattr("xai_sidecar.ood.fitting._SAVE_SECONDS", 0)

    def ctrl_c(epoch, loss, accuracy):
        if epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(features, labels, state=state, report=ctrl_c)
    epochs = []
    resumed = trained(features, labels, state=state, report=lambda epoch, *more: epochs.append(epoch))
    assert epochs == list(range(3, 13))
    np.testing.assert_array_equal(resumed.weights, whole.weights)


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
