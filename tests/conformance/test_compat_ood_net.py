"""MindSpore XAI's OoD net: a cell that is trained, saved and loaded, over a classifier that stays as it is."""

import numpy as np
import pytest

from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.compat.explanation import OoDNet
from xai_sidecar.ood.outliers import auroc

CLASSES = 3


class Classifier(nn.Cell):
    """The mean of each channel through a dense layer: pictures of class c are bright in channel c."""

    def __init__(self):
        super().__init__()
        self.num_features = 8
        self.output_features = False
        generator = np.random.default_rng(3)
        weight = generator.normal(0, 1, (8, 3)).astype(np.float32)
        self.body = nn.Dense(3, 8, weight_init=ms.Tensor(weight), bias_init="zeros")
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Dense(8, CLASSES)

    def construct(self, x):
        features = self.norm(self.body(x.mean(axis=(2, 3))))
        return features if self.output_features else self.head(features)


@pytest.fixture(scope="module")
def classifier():
    """A classifier that stays as it is. What it is compiled to is kept with it, and takes seconds to make."""
    return Classifier()


def batches(count, generator, one_hot=True):
    for _ in range(count):
        labels = generator.integers(0, CLASSES, 16)
        pictures = generator.normal(0, 0.2, (16, 3, 4, 4)).astype(np.float32)
        pictures[np.arange(16), labels] += 1
        yield pictures, np.eye(CLASSES, dtype=np.float32)[labels] if one_hot else labels


class Told(ms.train.Callback):
    """Keeps what it is told, and asks for the end after some steps."""

    def __init__(self, stop_after=None):
        super().__init__()
        self.events, self.losses, self.stop_after = [], [], stop_after

    def on_train_begin(self, run_context):
        self.events.append("begin")

    def on_train_epoch_end(self, run_context):
        self.events.append(f"epoch {run_context.original_args().cur_epoch_num}")

    def on_train_step_end(self, run_context):
        state = run_context.original_args()
        self.losses.append(float(state.net_outputs.asnumpy()))
        if state.cur_step_num == self.stop_after:
            run_context.request_stop()

    def on_train_end(self, run_context):
        self.events.append("end")


@pytest.mark.parametrize(
    ("loss", "brightness"),
    [(nn.SoftmaxCrossEntropyWithLogits, -1), (nn.BCEWithLogitsLoss, 1)],
    ids=["softmax", "sigmoid"],
)
def test_it_tells_inliers_from_what_it_has_not_seen(classifier, loss, brightness):
    generator = np.random.default_rng(0)
    names = [parameter.name for parameter in classifier.get_parameters()]
    before = [parameter.asnumpy().copy() for parameter in classifier.get_parameters()]
    net, told = OoDNet(classifier, CLASSES), Told()
    net.train(list(batches(6, generator)), loss(), callbacks=[told], epoch=3)
    assert told.losses[-1] < told.losses[0]
    assert told.events == ["begin", *(f"epoch {number}" for number in range(1, 4)), "end"]
    inliers = np.concatenate([pictures for pictures, _ in batches(4, generator)])
    outliers = generator.normal(brightness, 0.2, inliers.shape).astype(np.float32)  # the same in all channels
    scores = [net(ms.Tensor(each)).asnumpy() for each in (inliers, outliers)]
    assert scores[0].shape == (64, CLASSES)
    assert np.abs(scores[0]).max() <= 1 + 1e-6
    assert auroc(*(each.max(axis=1) for each in scores)) > 0.9
    # Whatever was done, it was not done to the classifier.
    assert [parameter.name for parameter in classifier.get_parameters()] == names
    assert classifier.output_features is False
    for parameter, value in zip(classifier.get_parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.asnumpy(), value)


def test_it_is_saved_and_loaded_with_its_classifier(classifier, tmp_path):
    generator = np.random.default_rng(1)
    net = OoDNet(classifier, CLASSES)
    net.train(list(batches(4, generator, one_hot=False)), nn.SoftmaxCrossEntropyWithLogits(), epoch=2)
    path = tmp_path / "ood_net.ckpt"
    ms.save_checkpoint(net, str(path))
    other = Classifier()
    other.body.weight.set_data(other.body.weight * 0)  # another one, which gets the weights of the first
    again = OoDNet(other, CLASSES)
    missing, unexpected = ms.load_param_into_net(again, ms.load_checkpoint(str(path)))
    assert (missing, unexpected) == ([], [])
    pictures = ms.Tensor(next(iter(batches(1, generator)))[0])
    np.testing.assert_array_equal(again(pictures).asnumpy(), net(pictures).asnumpy())
    np.testing.assert_array_equal(again.underlying(pictures).asnumpy(), net.underlying(pictures).asnumpy())


def test_scores_are_cosines(classifier):
    net = OoDNet(classifier, CLASSES)
    pictures = next(iter(batches(1, np.random.default_rng(5))))[0]
    features = net.features(pictures)
    weights = net.class_weights.asnumpy()
    norms = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(weights, axis=1)
    expected = features @ weights.T / norms
    np.testing.assert_allclose(net(ms.Tensor(pictures)).asnumpy(), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(net.class_scores(features), expected, rtol=1e-4, atol=1e-6)
    # In training they are divided by sigmoid(BatchNorm(w f)), with the batch's own mean and variance. The classifier,
    # which has a BatchNorm, too, stays as it is.
    moving_mean = classifier.norm.moving_mean.asnumpy().copy()
    assert net.set_train(True).training
    level = features @ net.divisor.asnumpy().T
    divisor = 1 / (1 + np.exp(-(level - level.mean()) / np.sqrt(level.var() + 1e-5)))
    np.testing.assert_allclose(net(ms.Tensor(pictures)).asnumpy(), expected / divisor, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(classifier.norm.moving_mean.asnumpy(), moving_mean)


def test_the_learning_rate_falls_and_arguments_reach_the_optimizer(classifier):
    net = OoDNet(classifier, CLASSES)
    data = list(batches(2, np.random.default_rng(2)))
    optimizer, scheduler = net.prepare_train(learning_rate=0.05, lr_base_factor=0.5, lr_epoch_denom=2)
    net.train(data, nn.SoftmaxCrossEntropyWithLogits(), epoch=4, optimizer=optimizer, scheduler=scheduler)
    assert float(optimizer.learning_rate.asnumpy()) == pytest.approx(0.0125)


def test_the_classifier_is_trained_along_where_that_is_wanted():
    classifier = Classifier()
    before = classifier.body.weight.asnumpy().copy()
    head = classifier.head.weight.asnumpy().copy()
    net = OoDNet(classifier, CLASSES)
    net.train(
        list(batches(2, np.random.default_rng(2))), nn.SoftmaxCrossEntropyWithLogits(), epoch=1, train_underlying=True
    )
    assert not np.array_equal(classifier.body.weight.asnumpy(), before)
    # The scores do not go through the head: all that it sees is the weight decay.
    np.testing.assert_allclose(classifier.head.weight.asnumpy(), head, rtol=1e-3)


def test_mindspores_own_data_set_and_a_callback_that_stops(classifier):
    rows = list(batches(3, np.random.default_rng(6)))
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    dataset = ms.dataset.NumpySlicesDataset(tuple(columns), ["image", "label"], shuffle=False).batch(8)
    told = Told(stop_after=4)
    OoDNet(classifier, CLASSES).train(dataset, nn.SoftmaxCrossEntropyWithLogits(), callbacks=told, epoch=5)
    assert len(told.losses) == 4
    assert told.events == ["begin", "epoch 1", "end"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "empty"),
        ([(np.zeros((3, 4, 4), np.float32), np.zeros(3))], "call batch"),
        ([(np.zeros((2, 3, 4, 4), np.float32), np.array([0, 7]))], "class 7"),
        ([(np.zeros((2, 3, 4, 4), np.float32), np.zeros((2, 4)))], "4 classes"),
        ([(np.full((4, 3, 4, 4), np.nan, np.float32), np.array([0, 1, 2, 0]))], "finite"),
    ],
    ids=["empty", "no batch", "class", "classes", "nan"],
)
def test_data_that_cannot_be_trained_on(classifier, data, words):
    net = OoDNet(classifier, CLASSES)
    with pytest.raises(ValueError, match=words):
        net.train(data, nn.SoftmaxCrossEntropyWithLogits(), epoch=1)
    assert not net.training
