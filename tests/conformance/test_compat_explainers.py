"""MindSpore XAI's explainers: the same names and signatures, against what MindSpore and plain loops compute."""

import numpy as np
import pytest
from PIL import Image, ImageShow

from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.compat import saliency_to_image
from xai_sidecar.compat.explanation import (
    RISE,
    ClassSensitivity,
    Deconvolution,
    GradCAM,
    Gradient,
    GuidedBackprop,
    Occlusion,
    RISEPlus,
    SaliencyWarning,
)
from xai_sidecar.compat.ood_net import OoDNet

CLASSES = 5


class Net(nn.Cell):
    """What MindSpore XAI asks of a net with an OoD net: features on request."""

    def __init__(self, seed=0, bias=0.1):
        super().__init__()
        generator = np.random.default_rng(seed)

        def weight(*shape):
            return ms.Tensor(generator.normal(0, 0.5, shape).astype(np.float32))

        self.num_features = 6
        self.output_features = False
        self.conv1 = nn.Conv2d(3, 4, 3, pad_mode="pad", padding=1, weight_init=weight(4, 3, 3, 3))
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, pad_mode="pad", padding=1, weight_init=weight(6, 4, 3, 3))
        self.relu = nn.ReLU()
        self.dense = nn.Dense(
            6, CLASSES, weight_init=weight(CLASSES, 6), bias_init=ms.Tensor([bias] * CLASSES, ms.float32)
        )

    def construct(self, x):
        x = self.relu(self.conv2(self.relu(self.conv1(x)))).mean((2, 3))
        return x if self.output_features else self.dense(x)


@pytest.fixture(scope="module")
def net():
    return Net()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(0, 1, (3, 3, 12, 16)).astype(np.float32)


def logits(net, images):
    return net(ms.Tensor(images)).asnumpy()


def softmax(rows):
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def gradients(net, images, classes):
    """By MindSpore itself, picture by picture."""
    derive = ms.grad(lambda x, target: net(x)[0, target], 0)
    return np.stack([derive(ms.Tensor(x[None]), int(c)).asnumpy()[0] for x, c in zip(images, classes, strict=True)])


@pytest.mark.parametrize("targets", [2, np.int64(2), np.array([1, 4, 0])])
def test_gradient_is_mindspores_own(net, images, targets):
    classes = np.broadcast_to(targets, 3)
    expected = np.abs(gradients(net, images, classes)).max(axis=1)
    np.testing.assert_allclose(Gradient(net)(images, targets)[:, 0], expected, rtol=1e-4, atol=1e-7)


def test_several_classes_of_each_picture_give_a_map_each(net, images):
    targets = ms.Tensor([[1, 0], [4, 2], [0, 3]], ms.int32)
    both = Gradient(net)(ms.Tensor(images), targets).asnumpy()
    assert both.shape == (3, 2, 12, 16)
    for place in range(2):
        single = Gradient(net)(ms.Tensor(images), targets[:, place]).asnumpy()
        np.testing.assert_array_equal(both[:, place : place + 1], single)


def test_what_comes_back_is_of_the_type_that_came_in(net, images):
    assert isinstance(Gradient(net)(ms.Tensor(images), 1), ms.Tensor)
    assert isinstance(Gradient(net)(images, 1), np.ndarray)
    assert Gradient(net)(images.astype(np.float64), 1).dtype == np.float32


def test_grad_cam_at_the_picture_and_at_a_layer(net, images):
    derived = gradients(net, images, [2, 2, 2])
    at_picture = np.maximum((derived.mean(axis=(2, 3), keepdims=True) * images).sum(axis=1), 0)
    np.testing.assert_allclose(GradCAM(net)(images, 2)[:, 0], at_picture, rtol=1e-4, atol=1e-7)

    # At conv1, before the ReLU, as the name says.
    before = net.conv1(ms.Tensor(images))
    derive = ms.grad(lambda x: net.dense(net.relu(net.conv2(net.relu(x))).mean((2, 3)))[:, 2].sum(), 0)
    weights = derive(before).asnumpy().mean(axis=(2, 3), keepdims=True)
    expected = np.maximum((weights * before.asnumpy()).sum(axis=1), 0)
    np.testing.assert_allclose(GradCAM(net, layer="conv1")(images, 2)[:, 0], expected, rtol=1e-4, atol=1e-7)


def occluded(net, image, target, activation):
    """The drop of the probability under windows of 3 pixels, one apart, covered by 0."""
    height, width = image.shape[1:]
    drops, cover = np.zeros((height, width)), np.zeros((height, width))
    whole = activation(logits(net, image[None]))[0, target]
    for top in range(height - 2):
        for left in range(width - 2):
            copy = image.copy()
            copy[:, top : top + 3, left : left + 3] = 0
            drops[top : top + 3, left : left + 3] += whole - activation(logits(net, copy[None]))[0, target]
            cover[top : top + 3, left : left + 3] += 1
    return drops / cover


class Squared(nn.Cell):
    """An activation of the script's own."""

    def construct(self, x):
        return ms.ops.softmax(x, axis=-1) ** 2


@pytest.mark.parametrize(
    ("cell", "activation"),
    [
        (nn.Softmax(), softmax),
        (nn.Sigmoid(), lambda rows: 1 / (1 + np.exp(-rows))),
        (Squared(), lambda rows: softmax(rows) ** 2),
    ],
    ids=["softmax", "sigmoid", "own"],
)
def test_occlusion_by_a_loop(net, images, cell, activation):
    maps = Occlusion(net, cell, perturbation_per_eval=7)(images[:1], 3)
    expected = occluded(net, images[0], 3, activation)
    np.testing.assert_allclose(maps[0, 0], expected, rtol=1e-3, atol=2e-6)
    assert (maps < 0).any()  # with its sign


def test_rise_has_a_seed_and_does_not_depend_on_the_batch(net, images):
    def explain(**settings):
        return RISE(net, nn.Softmax(), **settings)(images[:1], 1)

    first = explain(masks=128)
    np.testing.assert_array_equal(first, explain(masks=128))
    assert not np.array_equal(first, explain(masks=128, seed=1))
    np.testing.assert_allclose(first, explain(masks=128, perturbation_per_eval=5), rtol=1e-4, atol=1e-6)


def test_rise_plus_takes_both_from_one_pass_or_from_two(net, images):
    own = OoDNet(net, CLASSES)
    copy = Net()  # of the same weights
    scorer = OoDNet(Net(seed=7), CLASSES)  # of other weights: two passes
    settings = {"masks": 64, "estimator": "plain", "seed": 3}
    first = RISEPlus(own, net, nn.Softmax(), **settings)(images[:1], 1)
    np.testing.assert_allclose(
        RISEPlus(OoDNet(copy, CLASSES), net, nn.Softmax(), **settings)(images[:1], 1), first, rtol=1e-5
    )
    other = RISEPlus(scorer, net, nn.Softmax(), **settings)(images[:1], 1)
    assert not np.allclose(other, first)
    # By hand: s f M over N p, with s from the OoD net's greatest score between those of nothing and of the picture.
    masks = masks_of(net, images[0], settings)
    covered = masks[:, None] * images[0]
    score = scorer(ms.Tensor(covered.astype(np.float32))).asnumpy().max(axis=1)
    low = scorer(ms.Tensor(np.zeros_like(images[:1]))).asnumpy().max()
    high = scorer(ms.Tensor(images[:1])).asnumpy().max()
    weights = (np.clip(score, low, high) - low) / (high - low) * softmax(logits(net, covered.astype(np.float32)))[:, 1]
    np.testing.assert_allclose(other[0, 0], (weights[:, None, None] * masks).sum(axis=0) / 64 / 0.5, rtol=1e-4)


def masks_of(net, image, settings):
    """The masks that RISE draws for a picture."""
    from xai_sidecar.engine.work import MaskedForward
    from xai_sidecar.explainers.base import Context
    from xai_sidecar.explainers.rise import Rise, RiseParameters

    parameters = RiseParameters(masks=settings["masks"], estimator="plain", grid_size=7)
    steps = Rise().explain(image, np.array([1], np.int32), parameters, Context(seed=settings["seed"]))
    seen, sent = [], None
    try:
        while True:
            work = steps.send(sent)
            sent = None
            if isinstance(work, MaskedForward):
                seen.append(work.masks)
                sent = np.zeros((len(work.masks), CLASSES), np.float32)
    except StopIteration:
        return np.concatenate(seen)


def test_a_net_that_was_trained_on_is_explained_as_it_is_now(images):
    net = Net()
    explain = Gradient(net)
    before = explain(images, 1)
    net.dense.weight.set_data(net.dense.weight * 2)
    np.testing.assert_allclose(explain(images, 1), 2 * before, rtol=1e-4)


def every_explainer(net):
    return [
        Gradient(net),
        GuidedBackprop(net),
        Deconvolution(net),
        GradCAM(net, layer="conv2"),
        Occlusion(net, nn.Softmax()),
        RISE(net, nn.Softmax(), masks=64),
        RISEPlus(OoDNet(net, CLASSES), net, nn.Softmax(), masks=64),
    ]


def test_in_graph_mode_maps_are_the_same_and_the_net_and_the_mode_stay_as_they_are(net, images):
    expected = [explain(images, 1) for explain in every_explainer(net)]
    score = ClassSensitivity().evaluate(Gradient(net), images)
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        another = Net()  # the same weights, of which nothing is compiled yet
        another.set_train(True)
        names = [parameter.name for parameter in another.get_parameters()]
        for explain, maps in zip(every_explainer(another), expected, strict=True):
            np.testing.assert_array_equal(explain(ms.Tensor(images), 1).asnumpy(), maps)
            assert ms.get_context("mode") == ms.GRAPH_MODE
        np.testing.assert_array_equal(ClassSensitivity().evaluate(Gradient(another), images), score)
        with pytest.raises(ValueError, match="there is no class 9"):
            Gradient(another)(images, 9)
        assert ms.get_context("mode") == ms.GRAPH_MODE
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)
    assert another.training
    assert [parameter.name for parameter in another.get_parameters()] == names
    assert not another.conv1._forward_hook


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda net, x: Gradient(np.zeros(3)), TypeError, "network"),
        (lambda net, x: Gradient(net)(x.tolist(), 1), TypeError, "inputs"),
        (lambda net, x: Gradient(net)(x[0], 1), ValueError, r"\(N, C, H, W\)"),
        (lambda net, x: Gradient(net)(x * np.nan, 1), ValueError, "finite"),
        (lambda net, x: Gradient(net)(x, 1.5), TypeError, "targets"),
        (lambda net, x: Gradient(net)(x, True), TypeError, "targets"),
        (lambda net, x: Gradient(net)(x, np.array([1.0, 2.0, 3.0])), TypeError, "whole numbers"),
        (lambda net, x: Gradient(net)(x, -1), ValueError, "from 0"),
        (lambda net, x: Gradient(net)(x, CLASSES), ValueError, "no class 5"),
        (lambda net, x: Gradient(net)(x, np.array([1, 2])), ValueError, r"\(3,\)"),
        (lambda net, x: Gradient(net)(x, 1, ret="array"), ValueError, "ret"),
        (lambda net, x: Gradient(net)(x, 1, show="yes"), TypeError, "show"),
        (lambda net, x: GradCAM(net, layer="conv9")(x, 1), ValueError, "conv9"),
        (lambda net, x: Occlusion(net, "softmax"), TypeError, "activation_fn"),
        (lambda net, x: Occlusion(net, nn.Softmax(), 0), ValueError, "perturbation_per_eval"),
        (lambda net, x: RISE(net, nn.Softmax(), masks=3), ValueError, "masks"),
        (lambda net, x: RISEPlus(net, net, nn.Softmax()), TypeError, "ood_net"),
        (lambda net, x: OoDNet(nn.ReLU(), 3), AttributeError, "num_features"),
        (lambda net, x: OoDNet(net, "3"), TypeError, "num_classes"),
    ],
)
def test_wrong_arguments_are_named(net, images, call, error, words):
    with pytest.raises(error, match=words):
        call(net, images)


def test_a_map_that_means_nothing_is_said(images):
    dead = Net()
    dead.conv2.weight.set_data(dead.conv2.weight * 0)
    with pytest.warns(SaliencyWarning, match="2 maps cannot be relied on.*picture 1 for class 0"):
        Gradient(dead)(images[:2], 0)


@pytest.mark.parametrize("make", [GuidedBackprop, Deconvolution])
def test_relu_rules_are_not_the_plain_gradient(net, images, make):
    assert not np.allclose(make(net)(images, 1), Gradient(net)(images, 1))


def test_maps_are_shown_where_that_is_wanted(net, images, monkeypatch):
    shown = []

    class Viewer(ImageShow.Viewer):
        def show(self, image, **options):
            shown.append(image)
            return True

    monkeypatch.setattr(ImageShow, "_viewers", [])
    ImageShow.register(Viewer())
    explain = GradCAM(net, layer="conv2")
    explain(images, 2, show=False)
    explain(images, 2)  # this is no notebook
    assert not shown
    images_of = explain(images, np.array([[2, 1]] * 3), ret="image", show=True)
    assert [len(row) for row in images_of] == [2, 2, 2]
    for one, other in zip(shown, (image for row in images_of for image in row), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_a_map_as_a_picture(net, images):
    maps = GradCAM(net, layer="conv2")(ms.Tensor(images[:1]), 2)
    plain = saliency_to_image(maps)
    assert (plain.mode, plain.size) == ("RGB", (16, 12))
    photograph = Image.new("RGB", (160, 120), (90, 120, 60))
    assert saliency_to_image(maps, photograph).size == (160, 120)
    clear = saliency_to_image(maps, with_alpha=True)
    alpha = np.asarray(clear)[..., 3]
    values = maps.asnumpy()[0, 0]
    assert clear.mode == "RGBA"
    assert alpha.flat[values.argmax()] == 255
    assert alpha.flat[values.argmin()] == 0
    levels = saliency_to_image(values, cm=lambda x: np.repeat(x[..., None], 4, axis=2), normalize=True)
    expected = (values - values.min()) / (values.max() - values.min())
    np.testing.assert_allclose(np.asarray(levels)[..., 0] / 255, expected, atol=0.003)
    images_of = GradCAM(net, layer="conv2")(images, 2, ret="image", show=False)
    assert [image.size for image in images_of] == [(16, 12)] * 3
    with pytest.raises(ValueError, match="one map"):
        saliency_to_image(GradCAM(net, layer="conv2")(images, 2))
