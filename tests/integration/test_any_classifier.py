"""Any classifier by config: one of MindCV's, wide and multi-label; a grey LeNet-5; a transformer."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from xai_client import Client
from xai_sidecar.zoo.sample import sample_picture

LENET = """
from mindspore import nn

class LeNet5(nn.Cell):
    \"\"\"LeCun et al. 1998, with ReLU and max pooling; one ReLU and one pooling cell serve throughout.\"\"\"
    def __init__(self, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, pad_mode="valid")
        self.conv2 = nn.Conv2d(6, 16, 5, pad_mode="valid")
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2, 2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Dense(16 * 5 * 5, 120)
        self.fc2 = nn.Dense(120, 84)
        self.fc3 = nn.Dense(84, classes)

    def construct(self, x):
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        x = self.flatten(x)
        return self.fc3(self.relu(self.fc2(self.relu(self.fc1(x)))))

def lenet5(classes=10):
    return LeNet5(classes)
"""

SAVE = """
import sys
sys.path.insert(0, sys.argv[1])
from xai_sidecar.backends.mindspore.runtime import ms
import numpy as np
from {module} import {name}
ms.set_seed(1)
net = {name}({arguments})
x = np.random.default_rng(0).standard_normal({shape}).astype(np.float32)
ms.save_checkpoint(net, sys.argv[1] + "/net{suffix}", format="{format}")
np.savez(sys.argv[1] + "/expected.npz", x=x, logits=net.set_train(False)(ms.Tensor(x[None])).asnumpy()[0])
"""

CONFIG = """
[model]
name = "{title}"
factory = "{module}:{name}"
arguments = {{ {arguments} }}
checkpoint = "net{suffix}"
activation = "{activation}"
batch_sizes = [1]
gradient_batch_sizes = [1]
compile_cache = false
[model.input]
{input}
"""

CLASSIFIERS = {
    "resnet50": {
        "module": "mindcv.models",
        "name": "resnet50",
        "arguments": "num_classes=20",
        "shape": (3, 96, 160),
        "input": "size = [96, 160]\nresize = 112",
        "activation": "sigmoid",
        "suffix": ".ckpt",
        "format": "ckpt",
        "layer": "layer4",
    },
    "lenet5": {
        "module": "users_lenet",
        "name": "lenet5",
        "arguments": "classes=7",
        "shape": (1, 32, 32),
        "input": "size = 32\nchannels = 1\nstretch = true",
        "activation": "softmax",
        "suffix": ".safetensors",
        "format": "safetensors",
        "layer": "conv2",
    },
    "vit": {
        "module": "mindcv.models.vit",
        "name": "VisionTransformer",
        "arguments": "image_size=64, patch_size=16, num_classes=9, embed_dim=48, depth=3, num_heads=3",
        "shape": (3, 64, 64),
        "input": "size = 64",
        "activation": "softmax",
        "suffix": ".ckpt",
        "format": "ckpt",
        # Behind the last attention only the class token matters, so this is the last layer of use.
        "layer": "blocks.2.norm1",
    },
}


@pytest.fixture(scope="module", params=CLASSIFIERS)
def classifier(request, tmp_path_factory, start_server):
    """A served classifier: its description, a client, and an input with its logits as computed by the net itself."""
    case = {"title": request.param, **CLASSIFIERS[request.param]}
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "users_lenet.py").write_text(LENET)
    (folder / "save.py").write_text(SAVE.format(**case))
    command = [sys.executable, str(folder / "save.py"), str(folder)]
    subprocess.run(command, check=True, timeout=120, cwd=folder)
    (folder / "sidecar.toml").write_text(CONFIG.format(**case))
    with start_server(folder / "sidecar.toml", cwd=folder) as server, Client(server.grpc) as client:
        yield case, client, np.load(folder / "expected.npz")


def test_it_answers_as_the_net_does(classifier):
    case, client, expected = classifier
    prediction = client.predict(expected["x"], top_k=len(expected["logits"]))
    logits = {one.class_id: one.logit for one in prediction.classes}
    np.testing.assert_allclose([logits[i] for i in range(len(logits))], expected["logits"], rtol=1e-4, atol=1e-4)
    probabilities = [one.probability for one in prediction.classes]
    assert probabilities == sorted(probabilities, reverse=True)
    if case["activation"] == "softmax":
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    else:
        assert [one.probability for one in prediction.classes] == pytest.approx(
            [1 / (1 + np.exp(-one.logit)) for one in prediction.classes], rel=1e-4
        )


def test_its_explanations_lie_on_the_picture(classifier):
    case, client, _ = classifier
    picture = sample_picture("chelsea")
    prediction = client.predict(picture, explain=["gradcam", "gradient"])
    for explanation in prediction.explanations.values():
        assert explanation.saliency.shape == case["shape"][1:]
        assert explanation.saliency.any()
        assert explanation.targets == (prediction.classes[0].class_id,)
        assert explanation.overlay(picture).size == Image.open(picture).size
    assert prediction.explanations["gradcam"].parameters["layer"] == case["layer"]


def test_it_describes_itself(classifier):
    case, client, _ = classifier
    info = client.model_info()
    assert (info.name, info.class_count) == (case["title"], len(info.labels))
    assert (info.input.channels, info.input.height, info.input.width) == case["shape"]
    assert info.explainers["gradcam"].parameters["layer"].default == case["layer"]
