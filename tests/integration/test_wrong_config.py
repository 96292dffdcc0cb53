"""`check` and `serve` as processes: a wrong config ends them with status 2 and one message that names key and cure."""

import json
import re

import launcher
import numpy as np
import pytest
from safetensors.numpy import save_file

FACTORIES = """
import mindspore as ms
from mindspore import nn


class Small(nn.Cell):
    def __init__(self, classes=7, side=16):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()
        self.flatten = nn.Flatten()
        self.dense = nn.Dense(4 * side * side, classes)

    def construct(self, x):
        return self.dense(self.flatten(self.relu(self.conv(x))))


class Pair(Small):
    def construct(self, x):
        return super().construct(x), x


def small(classes=7, side=16):
    ms.set_seed(0)
    return Small(classes, side)


def pair():
    return Pair()


def raises():
    raise KeyError("no such variant")


def no_cell():
    return {"not": "a cell"}


number = 5
"""

CONFIG = """
[model]
name = "small"
factory = "factories:small"
batch_sizes = [1, 2]
compile_cache = false
[model.input]
size = 16
"""

WEIGHTS = {"conv.weight": (4, 3, 3, 3), "dense.weight": (7, 1024), "dense.bias": (7,)}


def weights(**shapes):
    generator = np.random.default_rng(0)
    return {name: generator.normal(0, 0.1, shape).astype(np.float32) for name, shape in {**WEIGHTS, **shapes}.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the processes run, with all that configs name."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "factories.py").write_text(FACTORIES)
    (folder / "broken_module.py").write_text("import a_package_that_is_not_there\n")
    (folder / "good.toml").write_text(CONFIG)
    (folder / "bad.toml").write_text(CONFIG.replace('"small"', "small", 1))
    save_file(weights(), folder / "good.safetensors")
    save_file(weights(**{"dense.weight": (10, 1024), "dense.bias": (10,)}), folder / "ten.safetensors")
    save_file({"other": np.zeros(3, np.float32)}, folder / "other.safetensors")
    for suffix in ("ckpt", "safetensors"):
        (folder / f"garbage.{suffix}").write_bytes(np.random.default_rng(0).bytes(3000))
        (folder / f"empty.{suffix}").touch()
    (folder / "labels.txt").write_text("".join(f"label {index}\n" for index in range(7)))
    (folder / "nine.txt").write_text("".join(f"label {index}\n" for index in range(9)))
    (folder / "latin.txt").write_bytes("größe\n".encode("latin-1") * 7)
    return folder


@pytest.fixture(scope="module")
def cli(folder):
    """Runs a command line in the folder."""

    def cli(*arguments):
        return launcher.run([*launcher.CLI, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)

    return cli


@pytest.fixture(scope="module")
def refused_config(cli):
    """The one message that a command leaves on stderr when it ends with status 2."""

    def refused_config(command, *overrides, config="good.toml"):
        sets = [argument for override in overrides for argument in ("--set", override)]
        if command == "serve":
            sets = ["--set", "server.grpc=127.0.0.1:0", "--set", "server.http=127.0.0.1:0", *sets]
        done = cli(command, "--config", config, *sets)
        lines = done.stderr.splitlines()
        told = [line for line in lines if line.startswith("xai-sidecar: ")]
        rest = [line for line in lines if line not in told and not _is_progress(line)]
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert rest == [], done.stderr
        assert len(told) == 1, done.stderr
        assert told[0].endswith((".", "?", ".)"))
        return told[0].removeprefix("xai-sidecar: ")

    return refused_config


def _is_progress(line):
    if re.match(r"\[ *\d+\.\d s\] \S", line):
        return True
    try:
        return json.loads(line)["event"] in ("starting", "loading")
    except ValueError:
        return False


# ------------------------------------------------------------------------------------------------ the file


@pytest.mark.parametrize("command", ["check", "serve"])
def test_an_unknown_key(command, refused_config):
    assert refused_config(command, "server.max_imges=3") == (
        "server.max_imges: there is no such key. Did you mean 'max_images'?"
    )


def test_bad_toml(refused_config):
    message = refused_config("serve", config="bad.toml")
    assert "bad.toml is not valid TOML" in message
    assert "line 3, column 8" in message


def test_no_such_file(refused_config):
    message = refused_config("check", config="missing.toml")
    assert "missing.toml cannot be read" in message
    assert "--config" in message


# ------------------------------------------------------------------------------------------------ what it names

TEN = r"dense\.weight \(\(10, 1024\) in the file, \(7, 1024\) in the net\)"

WRONG = {
    "shapes that do not fit": (["model.checkpoint=ten.safetensors"], "model.checkpoint", f"{TEN}.*model.arguments"),
    "arguments that do not fit": (
        ["model.checkpoint=good.safetensors", "model.arguments.classes=10"],
        "model.checkpoint",
        "does not fit the net.*number of classes",
    ),
    "weights of another net": (
        ["model.checkpoint=other.safetensors"],
        "model.checkpoint",
        r"no weights for conv\.weight, dense\.weight, dense\.bias",
    ),
    "a checkpoint of garbage": (["model.checkpoint=garbage.ckpt"], "model.checkpoint", "garbage.ckpt cannot be read"),
    "safetensors of garbage": (
        ["model.checkpoint=garbage.safetensors"],
        "model.checkpoint",
        "garbage.safetensors cannot be read",
    ),
    "an empty checkpoint": (["model.checkpoint=empty.ckpt"], "model.checkpoint", "empty.ckpt"),
    "a factory that raises": (["model.factory=factories:raises"], "model.factory", "KeyError.*no such variant"),
    "an argument that it does not take": (
        ["model.arguments.depth=3"],
        "model.factory",
        r"\(classes=7, side=16\).*'depth'.*model\.arguments",
    ),
    "no callable": (["model.factory=factories:number"], "model.factory", "no callable 'number'"),
    "no such name": (["model.factory=factories:smal"], "model.factory", "no callable 'smal'"),
    "no cell": (["model.factory=factories:no_cell"], "model.factory", r"returned a dict, not a mindspore\.nn\.Cell"),
    "no module": (["model.factory=nowhere.models:net"], "model.factory", "'nowhere.models'.*PYTHONPATH"),
    "a module that cannot be imported": (
        ["model.factory=broken_module:net"],
        "model.factory",
        "a_package_that_is_not_there",
    ),
    "a net that returns two things": (["model.factory=factories:pair"], "model.factory", r"logits of shape"),
    "nine labels for seven classes": (["model.labels=nine.txt"], "model.labels", r"nine\.txt has 9 labels.*7 outputs"),
    "labels in another encoding": (["model.labels=latin.txt"], "model.labels", "latin.txt cannot be read.*UTF-8"),
    "no GPU": (["model.device=gpu"], "model.device", "no device 'gpu'"),
    "no third Ascend": (["model.device=ascend:3"], "model.device", "no device 'ascend:3'"),
    "no second CPU": (["model.device=cpu:1"], "model.device", "no device 'cpu:1'"),
    "another input size": (["model.input.size=20"], "model.input", r"\(1, 3, 20, 20\).*size"),
    "another number of channels": (["model.input.channels=1"], "model.input", r"\(1, 1, 16, 16\).*channels"),
    "an unknown layer": (
        ["explainers.gradcam.layer=con"],
        "explainers.gradcam.layer",
        "no layer 'con'.*Close to it: conv",
    ),
    "no such OoD net": (["ood.checkpoint=nowhere.safetensors"], "ood.checkpoint", "no file .*nowhere.safetensors"),
    "an OoD net of garbage": (
        ["ood.checkpoint=garbage.safetensors"],
        "ood.checkpoint",
        "garbage.safetensors is no .safetensors file.*train-ood",
    ),
    "weights for an OoD net": (
        ["ood.checkpoint=good.safetensors"],
        "ood.checkpoint",
        "good.safetensors is no OoD net's file.*train-ood",
    ),
    "an engine that there is not": (["model.forward_engine=torch"], "model.forward_engine", "onnxruntime"),
    "a window larger than the input": (
        ["explainers.occlusion.window_size=17"],
        "explainers.occlusion.window_size",
        "17 pixels does not fit the input, whose shorter side is 16",
    ),
    "gaps between windows": (
        ["explainers.occlusion.window_size=4", "explainers.occlusion.stride=5"],
        "explainers.occlusion.stride",
        "5 leaves gaps between windows of 4 pixels",
    ),
    "an unknown further layer": (
        ["explainers.gradcam.layers=['conv', 'dense']"],
        "explainers.gradcam.layer",
        "no layer 'dense'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_the_config_names_is_wrong(case, refused_config):
    overrides, key, told = WRONG[case]
    # Both commands load alike; serving has to stop its sockets besides.
    command = "serve" if case in ("no GPU", "shapes that do not fit", "no module", "an unknown layer") else "check"
    message = refused_config(command, *overrides)
    assert message.startswith(f"{key}"), message
    assert re.search(told, message), message


# ------------------------------------------------------------------------------------------------ and what is right


def test_check_says_what_it_found(cli):
    arguments = ("model.checkpoint=good.safetensors", "model.labels=labels.txt")
    done = cli("check", "--config", "good.toml", *(each for one in arguments for each in ("--set", one)))
    assert done.returncode == 0, done.stderr
    found = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert found["model"].startswith("small, version ")
    assert found["weights"] == "All 3 parameters from good.safetensors."
    assert "warnings" not in found
    assert "3 x 16 x 16" in found["input"]
    assert "7 (label 0, …, label 6), softmax" in found["classes"]
    assert re.fullmatch(r"[\d.]+ ms for 1, [\d.]+ ms for 2", found["prediction"])
    for name in ("gradient", "guided_backprop", "deconvolution", "occlusion", "rise"):
        assert re.fullmatch(r"[\d.]+ ms for one target(, in bfloat16 .*)?", found[name])
    assert found["rise_plus"].startswith("not available: It needs an OoD net.")
    assert "none; train one with xai-sidecar train-ood" in found["OoD"]
    assert re.fullmatch(
        r"on +cpu, forward passes by ((openvino|onnxruntime)(-in-parts)? \d+\.\d+\.\d+(, )?)+", found["runs"]
    )
    assert re.fullmatch(r"[\d.]+ ms for one target at layer relu", found["gradcam"])
    assert "conv, relu" in found["layers"]
    assert all(_is_progress(line) for line in done.stderr.splitlines()), done.stderr
    assert "making and checking" in done.stderr


def test_help_and_version(cli):
    plain, told = cli(), cli("--help")
    assert (plain.returncode, plain.stderr) == (told.returncode, told.stderr) == (0, "")
    assert plain.stdout == told.stdout
    for command in ("serve", "check", "demo", "train-ood", "--config", "--set"):
        assert command in told.stdout
    version = cli("--version")
    assert version.returncode == 0
    assert re.fullmatch(r"xai-sidecar \d+\.\d+\.\d+\S*\n", version.stdout)


def test_wrong_use_of_the_command_line(cli):
    wrong = ((("serve",), "--config"), (("explain",), "explain"), (("check", "--conf"), "--conf"))
    for arguments, told in (*wrong, (("train-ood", "--config", "good.toml"), "--data")):
        done = cli(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert told in done.stderr
        assert "usage: xai-sidecar" in done.stderr
        assert "Traceback" not in done.stderr
