"""What MindSpore XAI's tutorials do, step by step, with a ResNet of 20 classes and photographs.

The smallest of that kind by default; XAI_NETS=all for the ResNet-50 that they have.
"""

import csv
import json
import os

import numpy as np
import pytest
from mindcv.models import resnet
from PIL import Image

from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.compat import ImageClassificationRunner, saliency_to_image
from xai_sidecar.compat.explanation import (
    RISE,
    ClassSensitivity,
    Faithfulness,
    GradCAM,
    Gradient,
    GuidedBackprop,
    Localization,
    OoDNet,
    RISEPlus,
    Robustness,
)
from xai_sidecar.runner.browsing import BrowsedRun
from xai_sidecar.runner.folder import RunFolder
from xai_sidecar.zoo.sample import sample_picture

CLASSES = 20
SIDE = 64
WHOLE = os.environ.get("XAI_NETS") == "all"
FEATURES = 2048 if WHOLE else 512


class WithFeatures(nn.Cell):
    """The net, with the two attributes that an OoD net asks for."""

    def __init__(self):
        super().__init__()
        self.num_features = FEATURES
        self.output_features = False
        ms.set_seed(1)
        net = resnet.ResNet(
            *((resnet.Bottleneck, [3, 4, 6, 3]) if WHOLE else (resnet.BasicBlock, [1] * 4)), num_classes=CLASSES
        )
        self.layer4 = net.layer4
        self.body = nn.SequentialCell([net.conv1, net.bn1, net.relu, net.max_pool, net.layer1, net.layer2, net.layer3])
        self.pool = net.pool
        self.classifier = net.classifier

    def construct(self, x):
        features = self.pool(self.layer4(self.body(x)))
        return features if self.output_features else self.classifier(features)


def load_image(name="chelsea"):
    with Image.open(sample_picture(name)) as picture:
        pixels = np.asarray(picture.convert("RGB").resize((SIDE, SIDE)), np.float32) / 255
    return ((pixels - 0.45) / 0.22).transpose(2, 0, 1)


@pytest.fixture(scope="module")
def net():
    return WithFeatures()


@pytest.fixture(scope="module")
def image():
    return ms.Tensor(load_image()[None])


def test_using_explainers(net, image):
    grad_cam = GradCAM(net, layer="layer4")
    saliency = grad_cam(image, targets=3, show=False)
    assert saliency.shape == (1, 1, SIDE, SIDE)
    with Image.open(sample_picture("chelsea")) as picture:
        assert saliency_to_image(saliency, picture).size == picture.size
    batch = ms.Tensor(np.stack([load_image("chelsea"), load_image("coffee"), load_image("rocket")]))
    several = grad_cam(batch, targets=ms.Tensor([3, 3, 3], dtype=ms.int32))
    assert several.shape == (3, 1, SIDE, SIDE)
    np.testing.assert_allclose(several[0].asnumpy(), saliency[0].asnumpy(), rtol=1e-3, atol=1e-6)


def test_using_rise_plus(net, image, tmp_path):
    names = ("chelsea", "coffee", "rocket", "astronaut")
    pictures = np.stack([load_image(name) for name in names])
    labels = np.eye(CLASSES, dtype=np.float32)[:4]
    train_ds = ms.dataset.NumpySlicesDataset((pictures, labels), ["image", "label"], shuffle=False).batch(2)
    ood_net = OoDNet(underlying=net, num_classes=CLASSES)
    ood_net.train(train_ds, loss_fn=nn.SoftmaxCrossEntropyWithLogits(), epoch=2)
    path = str(tmp_path / "ood_net.ckpt")
    ms.save_checkpoint(ood_net, path)

    again = OoDNet(underlying=WithFeatures(), num_classes=CLASSES)
    ms.load_param_into_net(again, ms.load_checkpoint(path))
    rise_plus = RISEPlus(ood_net=again, network=net, activation_fn=nn.Softmax(), masks=64)
    assert rise_plus(image, targets=3, show=False).shape == (1, 1, SIDE, SIDE)

    # Its percentiles are not known, so no picture is an outlier; rows that come once are run from the first on.
    rows = (row for row in [(load_image("chelsea"), np.array([3])), (load_image("rocket"), np.array([7]))])
    names = [f"class {number}" for number in range(CLASSES)]
    runner = ImageClassificationRunner(str(tmp_path / "run"), (rows, names), net, nn.Softmax())
    runner.register_saliency([rise_plus])
    runner.run()
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (found["pictures"], found["ood"]["pictures"], found["ood"]["share"]) == (2, 0, None)
    assert 0 < found["ood"]["mean_score"] < 1
    with pytest.raises(ValueError, match="of another OoD net"):
        runner.register_saliency([RISEPlus(ood_net=ood_net, network=net, activation_fn=nn.Softmax())])


def test_using_benchmarks(net, image):
    grad_cam = GradCAM(net, layer="layer4")
    saliency = grad_cam(image, targets=5)
    for metric in (Robustness(CLASSES, nn.Softmax()), Faithfulness(CLASSES, nn.Softmax())):
        assert metric.evaluate(grad_cam, image, targets=5, saliency=saliency).shape == (1,)
    assert ClassSensitivity().evaluate(grad_cam, image).shape == (1,)
    mask = np.zeros([1, 1, SIDE, SIDE])
    mask[:, :, 10:50, 20:60] = 1
    score = Localization(CLASSES).evaluate(grad_cam, image, targets=5, mask=ms.Tensor(mask, dtype=ms.float32))
    assert 0 <= score.asnumpy()[0] <= 1


def test_the_runner(net, tmp_path):
    """Explainers and metrics serve two runners, of which the second explains by one of them alone."""
    rows = [
        (load_image("chelsea"), np.array([3]), np.array([[10, 10, 40, 40]])),
        (load_image("rocket"), np.array([7, 3])),
    ]
    data = (rows, [f"class {number}" for number in range(CLASSES)])
    gradcam, guided, rise = GradCAM(net, layer="layer4"), GuidedBackprop(net), RISE(net, nn.Softmax(), masks=32)
    insertion = Faithfulness(num_labels=CLASSES, metric="InsertionAUC", activation_fn=nn.Softmax())
    pointing = Localization(num_labels=CLASSES, metric="PointingGame")
    runner = ImageClassificationRunner(str(tmp_path / "one"), network=net, activation_fn=nn.Softmax(), data=data)
    with pytest.raises(RuntimeError, match="register_saliency"):
        runner.run()
    runner.register_saliency([gradcam, guided, rise], [insertion, pointing])
    runner.run()
    found = json.loads((tmp_path / "one" / "summary.json").read_text())
    assert {row["explainer"] for row in found["scores"] if not row["control"]} == {"GradCAM", "GuidedBackprop", "RISE"}
    browsed = BrowsedRun(RunFolder(tmp_path / "one"))  # as the console shows it
    try:
        described = {each.name: each for each in browsed.describe().explainers}
    finally:
        browsed.close()
    assert set(described) == {"GradCAM", "GuidedBackprop", "RISE"}
    for row in found["scores"]:
        if not row["control"]:
            (quality,) = (each.row for each in described[row["explainer"]].quality if each.row.metric == row["metric"])
            assert (quality.statistics.mean, quality.statistics.count) == (pytest.approx(row["mean"]), row["count"])
    with (tmp_path / "one" / "scores.csv").open() as file:
        scores = list(csv.DictReader(file))
    assert {row["target"] for row in scores if row["name"] == "00000001"} >= {"7", "3"}
    # The same by the metric itself.
    maps = gradcam(load_image()[None], 3)
    mask = np.zeros((1, 1, SIDE, SIDE), np.float32)
    mask[0, 0, 10:50, 10:50] = 1
    (value,) = pointing.evaluate(gradcam, load_image()[None], 3, maps, mask)
    (row,) = [
        row
        for row in scores
        if (row["name"], row["target"], row["explainer"]) == ("00000000", "3", "GradCAM")
        and row["metric"] == "localization/pointing_game"
    ]
    assert float(row["value"]) == value

    second = ImageClassificationRunner(str(tmp_path / "two"), network=net, activation_fn=nn.Sigmoid(), data=data)
    second.register_saliency(explainers=[gradcam])
    second.run()
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["pictures"] == 2
    with pytest.raises(ValueError, match="another net"):
        second.register_saliency([Gradient(nn.ReLU())])
    with pytest.raises(ValueError, match="activation_fn of the RISE is Softmax, and that of the runner Sigmoid"):
        second.register_saliency([rise])
    with pytest.raises(ValueError, match="has a run with"):
        again = ImageClassificationRunner(str(tmp_path / "one"), network=net, activation_fn=nn.Softmax(), data=data)
        again.register_saliency([gradcam])
        again.run()
