"""Any classifier by config: one of MindCV's, wide and multi-label; a grey LeNet-5; a transformer; two odd ones."""

import re

import launcher
import numpy as np
import pytest
from PIL import Image

from xai_client import Client, Explain, PreconditionError
from xai_sidecar.explainers.masks import MaskGrid
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
batch_sizes = [1, 8]
compile_cache = false
[model.input]
{input}
[explainers]
deconvolution.enabled = {deconvolution}
"""

CLASSIFIERS = {
    "resnet18": {
        "module": "mindcv.models",
        "name": "resnet18",
        "arguments": "num_classes=20",
        "shape": (3, 96, 160),
        "input": "size = [96, 160]\nresize = 112",
        "activation": "sigmoid",
        "suffix": ".ckpt",
        "format": "ckpt",
        "layer": "layer4",
        "deconvolution": "false",  # which saves some compiling
        "windows": (32, 32, 3 * 5),
        "ruled": True,
        "engine": ("onnxruntime ", "openvino "),
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
        "deconvolution": "true",
        "windows": (3, 1, 30 * 30),
        "ruled": True,
        "engine": ("onnxruntime ", "openvino "),
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
        "deconvolution": "true",
        "windows": (16, 16, 4 * 4),
        "ruled": False,
        "engine": ("mindspore ",),  # which cannot export the attention's unstacking to ONNX
    },
}


@pytest.fixture(scope="module", params=CLASSIFIERS)
def classifier(request, tmp_path_factory, start_server):
    """A served classifier: its description, a client, and an input with its logits as computed by the net itself."""
    case = {"title": request.param, **CLASSIFIERS[request.param]}
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "users_lenet.py").write_text(LENET)
    (folder / "save.py").write_text(SAVE.format(**case))
    launcher.run([launcher.PYTHON, str(folder / "save.py"), str(folder)], check=True, timeout=300, cwd=folder)
    (folder / "sidecar.toml").write_text(CONFIG.format(**case))
    with start_server(folder / "sidecar.toml", cwd=folder) as server, Client(server.grpc, timeout=120) as client:
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


def test_guided_backpropagation_where_every_relu_can_be_reached(classifier):
    case, client, expected = classifier
    names = ["guided_backprop"] if case["deconvolution"] == "false" else ["guided_backprop", "deconvolution"]
    told = client.model_info().explainers
    for name in names:
        assert told[name].available == case["ruled"]
        if case["ruled"]:
            answer = client.predict(expected["x"], explain=[name, "gradient"]).explanations
            ruled, plain = answer[name].saliency, answer["gradient"].saliency
            assert ruled.shape == case["shape"][1:]
            assert np.abs(ruled / ruled.max() - plain / plain.max()).max() > 0.1, "the rule made no difference"
            continue
        with pytest.raises(PreconditionError) as caught:
            client.predict(expected["x"], explain=[name])
        assert caught.value.field == "explanations[0].explainer"
        for message in (str(caught.value), told[name].unavailable_reason):
            assert "cannot reach every activation" in message
            assert "blocks.0.mlp" in message
            assert "Ask for gradient or gradcam instead." in message
    assert told["gradient"].available
    assert told["gradcam"].available


def covered(client, inputs, target):
    """The probability of a class for each of some model inputs."""
    answers = client.predict_many(list(inputs.astype(np.float32)), top_k=client.model_info().class_count)
    return np.array([{one.class_id: one.probability for one in answer.classes}[target] for answer in answers])


def fill_of(case):
    """The mean colour in the model input: middle grey where nothing is normalised, else that of ImageNet, its zero."""
    return np.float32(0.5 if "channels = 1" in case["input"] else 0)


def test_rise_by_hand(classifier):
    """The paper's average, out of predictions that anyone could ask for."""
    case, client, expected = classifier
    x = expected["x"]
    wanted = Explain("rise", targets=3, masks=16, seed=8, estimator="plain", grid_size=4)
    got = client.predict(x, explain=[wanted, Explain("rise", name="default", targets=3, masks=16, seed=8)])
    assert got.explanations["default"].parameters["grid_size"] == 7
    assert got.explanations["rise"].passes == 16
    grid = MaskGrid(*x.shape[1:], 4, 0.5)
    masks = np.concatenate([grid.enlarge(block) for block in grid.draw(8, 16)])
    inputs = x * masks[:, None] + fill_of(case) * (1 - masks[:, None])
    mean = np.einsum("n,nhw->hw", covered(client, inputs, 3), masks) / (16 * 0.5)
    np.testing.assert_allclose(got.explanations["rise"].saliency, mean, atol=1e-3 * mean.max())


def test_occlusion_by_hand(classifier):
    """The drop under a window, at the corners, where no other window covers the pixel."""
    case, client, expected = classifier
    x = expected["x"]
    window, stride, count = case["windows"]
    parameters = {} if case["title"] == "lenet5" else {"window_size": window, "stride": stride}
    got = client.predict(x, explain=[Explain("occlusion", targets=3, **parameters)]).explanations["occlusion"]
    assert (got.parameters["window_size"], got.parameters["stride"], got.passes) == (window, stride, 1 + count)
    rows, columns = slice(-window, None), slice(-window, None)
    inputs = np.repeat(x[None], 3, axis=0)
    inputs[1, :, :window, :window] = fill_of(case)
    inputs[2, :, rows, columns] = fill_of(case)
    probabilities = covered(client, inputs, 3)
    corners = np.array([got.saliency[0, 0], got.saliency[-1, -1]])
    np.testing.assert_allclose(corners, probabilities[0] - probabilities[1:], atol=1e-3 * np.abs(got.saliency).max())


def test_it_describes_itself(classifier):
    case, client, _ = classifier
    info = client.model_info()
    assert (info.name, info.class_count) == (case["title"], len(info.labels))
    assert info.engine.startswith(case["engine"])
    assert ("Unstack" in info.engine_note) == (case["engine"] == ("mindspore ",))
    assert (info.input.channels, info.input.height, info.input.width) == case["shape"]
    assert info.explainers["gradcam"].parameters["layer"].default == case["layer"]


def test_it_does_without_an_ood_net(classifier):
    _, client, expected = classifier
    info = client.model_info()
    assert info.ood is None
    assert not info.explainers["rise_plus"].available
    assert "train-ood" in info.explainers["rise_plus"].unavailable_reason
    for asked, field in (({"ood": True}, "ood"), ({"explain": "rise_plus"}, "explanations[0].explainer")):
        with pytest.raises(PreconditionError) as caught:
            client.predict(expected["x"], **asked)
        assert caught.value.field == field
        assert "train-ood" in str(caught.value)


# ------------------------------------------------------------------------------------------------ odd ones

ODD = """
from mindspore import nn, ops


class Functional(nn.Cell):
    \"\"\"Its activation is a function, which is reached in the net's graph alone.\"\"\"

    def __init__(self, activation):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.dense = nn.Dense(6, 5)
        self.activation = getattr(ops, activation)

    def construct(self, x):
        return self.dense(self.activation(self.conv(x)).mean((2, 3)))
"""

ODD_CONFIG = """
[model]
name = "{activation}"
factory = "odd_net:Functional"
arguments = {{ activation = "{activation}" }}
batch_sizes = [1, 2]
compile_cache = false
[model.input]
size = 32
"""

UNREACHED = "The rule cannot reach every activation of this net: the net itself (HSwish)."
RULED = ("guided_backprop", "deconvolution")


@pytest.fixture(scope="module", params=["relu", "hardswish"])
def odd(request, tmp_path_factory):
    """The activation's name, and the config of the net."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "odd_net.py").write_text(ODD)
    (folder / "sidecar.toml").write_text(ODD_CONFIG.format(activation=request.param))
    return request.param, folder / "sidecar.toml"


def run_check(config, *options):
    command = [*launcher.CLI, "check", "--config", str(config), *options]
    return launcher.run(command, capture_output=True, text=True, timeout=300)


def test_check_says_what_odd_nets_cannot_do(odd):
    activation, config = odd
    by_mindspore = activation == "hardswish"  # which cannot be exported
    done = run_check(config)
    assert done.returncode == 0, done.stderr
    for name in RULED:
        reason = re.escape(f"not available: {UNREACHED}") if by_mindspore else r"[\d.]+ ms for one target"
        assert re.search(rf"(?m)^{name} +{reason}", done.stdout)
    for name in ("gradient", "gradcam", "occlusion", "rise"):
        assert re.search(rf"(?m)^{name} +[\d.]+ ms for one target", done.stdout)
    engine = r"mindspore 2\.10" if by_mindspore else r"(onnxruntime|openvino) \d"
    assert re.search(rf"(?m)^runs on +cpu, forward passes by {engine}", done.stdout)
    assert ("MindSpore runs this net" in done.stdout) == by_mindspore


def test_odd_nets_are_served_by_what_can_run_them(odd, start_server):
    activation, config = odd
    picture = sample_picture("chelsea")
    with start_server(config) as server, Client(server.grpc, timeout=120) as client:
        info = client.model_info()
        if activation == "hardswish":
            for name in RULED:
                assert "HSwish" in info.explainers[name].unavailable_reason
                with pytest.raises(PreconditionError, match="HSwish"):
                    client.predict(picture, explain=name)
        else:
            answer = client.predict(picture, explain=list(RULED))
            assert all(one.saliency.any() for one in answer.explanations.values())
        answer = client.predict(picture, explain=["gradient", "gradcam", Explain("rise", masks=32)])
        assert all(one.saliency.shape == (32, 32) for one in answer.explanations.values())
        assert server.terminate() == 0
    if activation == "hardswish":
        assert info.engine.startswith("mindspore 2.10")
        assert "HSwish" in info.engine_note
    else:
        assert info.engine.startswith(("onnxruntime ", "openvino "))
        assert info.engine_note == ""


@pytest.mark.parametrize("odd", ["hardswish"], indirect=True)
def test_an_engine_that_cannot_run_the_net_is_refused(odd):
    done = run_check(odd[1], "--set", "model.forward_engine=onnxruntime")
    assert (done.returncode, done.stdout) == (2, "")
    told = done.stderr.splitlines()[-1]
    assert told.startswith("xai-sidecar: model.forward_engine: onnxruntime cannot run this net: ")
    assert "HSwish" in told
    assert "auto" in told
