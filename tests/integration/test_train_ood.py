"""`xai-sidecar train-ood` as a process: pictures in folders and without, what it refuses, and going on after Ctrl-C."""

import fcntl
import hashlib
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from pathlib import Path

import launcher
import numpy as np
import pytest
import small_graphs
from PIL import Image
from safetensors.numpy import save_file

from xai_sidecar.ood.head import load_head

NET = """
from mindspore import nn


class Small(nn.Cell):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.relu = nn.ReLU()
        self.dense = nn.Dense(8, 4)

    def construct(self, x):
        return self.dense(self.relu(self.conv(x)).mean((2, 3)))
"""

CONFIG = """
[model]
name = "small"
onnx = "net.onnx"
labels = ["nothing", "clouds", "stripes", "crumbs"]
batch_sizes = [1, 16]
[model.input]
size = 32
"""

CELL = CONFIG.replace(
    'onnx = "net.onnx"',
    """factory = "small_net:Small"
checkpoint = "net.safetensors"
compile_cache = false""",
)

COMMAND = launcher.CLI
EPOCHS = 100
SHARD = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small classifier with two sets of weights: as ONNX files with a config, and as a cell with another config."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small_net.py").write_text(NET)
    (folder / "sidecar.toml").write_text(CONFIG)
    (folder / "cell.toml").write_text(CELL)
    generator = np.random.default_rng(0)
    for name in ("net", "other"):
        shapes = {"conv.weight": (8, 3, 3, 3), "dense.weight": (4, 8), "dense.bias": (4,)}
        weights = {key: generator.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
        save_file(weights, folder / f"{name}.safetensors")
        (folder / f"{name}.onnx").write_bytes(graph(weights))
    return folder


def graph(weights):
    """The classifier as an ONNX file."""
    nodes = [
        ("Conv", ["x", "conv.weight"], ["maps"], {"auto_pad": "SAME_UPPER"}),
        ("Relu", ["maps"], ["positive"], {}),
        ("GlobalAveragePool", ["positive"], ["means"], {}),
        ("Flatten", ["means"], ["features"], {"axis": 1}),
        ("Gemm", ["features", "dense.weight", "dense.bias"], ["logits"], {"transB": 1}),
    ]
    return small_graphs.serialised(nodes, {"x": ["batch", 3, "height", "width"]}, ["logits"], weights)


@pytest.fixture
def environment(tmp_path):
    """With an empty cache folder."""
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def train(folder, environment, tmp_path):
    """Runs the command in `tmp_path`; returns it ended."""

    def train(data, *options, config="sidecar"):
        command = [*COMMAND, "train-ood", "--config", str(folder / f"{config}.toml"), "--data", str(data), *options]
        return launcher.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    return train


@pytest.fixture
def refused(train):
    """The one message of a training that ends with status 2."""

    def refused(data, *options):
        done = train(data, *options)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        (told,) = (line for line in done.stderr.splitlines() if not re.match(r"\[ *[\d.]+ s\] ", line))
        assert told.startswith("xai-sidecar: ")
        assert told.endswith(".")
        return told.removeprefix("xai-sidecar: ")

    return refused


def draw(folder, count, grain):
    """Pictures of random patches, `grain` to a side."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(grain)
    for index in range(count):
        patches = generator.integers(0, 256, (grain, grain, 3), np.uint8)
        Image.fromarray(patches).resize((40, 40), Image.Resampling.NEAREST).save(folder / f"{index}.png")
    return folder


# ------------------------------------------------------------------------------------------------ trainings


@pytest.mark.parametrize("config", ["sidecar", "cell"])
def test_folders_named_by_label_or_id(config, folder, train, tmp_path):
    draw(tmp_path / "data" / "clouds", 12, 2)
    draw(tmp_path / "data" / "3" / "deeper", 8, 40)
    (tmp_path / "data" / "notes.txt").write_text("not a picture")
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.glob("*.*")}
    done = train("data", "--epochs", "20", config=config)
    assert done.returncode == 0, done.stderr
    assert before == {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.glob("*.*")}
    head = load_head(tmp_path / "ood.safetensors")
    assert head.class_ids.tolist() == [1, 3]
    assert (head.training.labels, head.training.sample_count, head.training.folder) == ("folders", 20, "data")
    assert (head.training.epochs, head.training.seed, head.training.class_count) == (20, 0, 4)
    assert len(head.reference_scores) == 4
    assert "features of pictures: 20 of 20 pictures" in done.stderr
    assert re.search(r"training: 20 of 20 epochs, loss [\d.e-]+, accuracy [\d.]+ %", done.stderr)
    first, *rows, last = done.stdout.splitlines()
    assert first == "trained on 20 pictures; how well it tells held-out ones from (AUROC):"
    printed = {kind: float(value) for kind, value in map(str.split, rows)}
    assert set(printed) == {"noise", "shuffled", "masked"}
    assert printed == pytest.approx(head.training.auroc, abs=6e-4)
    assert all(0 <= value <= 1 for value in printed.values())
    assert "ood.safetensors" in last
    assert "ood.checkpoint" in last


def test_no_folders_and_a_picture_that_is_none(train, tmp_path):
    """What the classifier predicts is their class, and what cannot be read is reported and left out."""
    data = draw(tmp_path / "data", 15, 3)
    draw(tmp_path / "more", 15, 40)
    for path in (tmp_path / "more").iterdir():
        path.rename(data / f"fine-{path.name}")
    (data / "broken.jpg").write_bytes(b"\xff\xd8\xff and no more")
    done = train(data, "--epochs", "5", "--out", "deep/er/net.safetensors", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert "1 of 31 pictures cannot be read and are left out: broken.jpg" in done.stderr
    head = load_head(tmp_path / "deep" / "er" / "net.safetensors")
    assert (head.training.labels, head.training.sample_count, head.training.seed) == ("predictions", 30, 3)


def test_what_cannot_be_trained_on(refused, tmp_path):
    assert refused("nowhere") == "data: nowhere is no folder. Name the folder of the training pictures."
    draw(tmp_path / "data" / "clouds", 9, 2)
    message = refused("data")
    assert message.startswith("data: data has 9 pictures")
    assert "at least 10" in message
    draw(tmp_path / "data" / "cloud", 9, 3)
    message = refused("data")
    assert "'cloud'" in message
    assert "'nothing'" in message
    assert "0 to 3" in message


@pytest.mark.parametrize(
    ("option", "value"),
    [("--epochs", "0"), ("--batch-size", "3"), ("--holdout", "1"), ("--holdout", "0"), ("--seed", "-1")],
)
def test_options_out_of_range(option, value, train, tmp_path):
    done = train(tmp_path, f"{option}={value}")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(rf"error: argument {option}: '?{value}'? is .*; give ", done.stderr)


OTHERS = {
    "other weights": ("check", ["model.onnx=other.onnx"]),
    "other weights, to serve": ("serve", ["model.onnx=other.onnx"]),
    "other normalisation": ("check", ["model.input.mean=0.1"]),
    "other size": ("check", ["model.input.size=48"]),
}


@pytest.fixture(scope="module")
def with_net(folder, only, tmp_path_factory):
    """Runs check or serve with an OoD net for the classifier and overrides of the config."""
    data = tmp_path_factory.mktemp("two")
    for name, grain in (("clouds", 2), ("crumbs", 40)):
        draw(data / name, 6, grain)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}

    def run(command, *options):
        whole = [*COMMAND, command, "--config", str(folder / "sidecar.toml"), *options]
        return launcher.run(whole, env=environment, capture_output=True, text=True, timeout=300)

    trained = run("train-ood", "--data", str(data), "--out", str(folder / "ood.safetensors"), "--epochs", "5")
    assert trained.returncode == 0, trained.stderr
    always = (
        "ood.checkpoint=ood.safetensors",
        "server.grpc=127.0.0.1:0",
        "server.http=127.0.0.1:0",
        *only("rise_plus"),
    )
    return lambda command, *overrides: run(command, *(each for one in (*always, *overrides) for each in ("--set", one)))


def test_the_net_of_this_classifier_is_taken(with_net):
    right = with_net("check")
    assert right.returncode == 0, right.stderr
    assert re.search(r"(?m)^OoD net +trained on 12 pictures; AUROC [\d.]+ against noise, [\d.]+ against", right.stdout)
    assert re.search(r"(?m)^rise_plus +[\d.]+ ms for one target(, in bfloat16 .*)?$", right.stdout)


@pytest.mark.parametrize("case", OTHERS)
def test_the_net_of_another_classifier_is_refused(case, with_net):
    command, overrides = OTHERS[case]
    wrong = with_net(command, *overrides)
    assert wrong.returncode == 2, wrong.stdout
    assert "xai-sidecar: ood.checkpoint: the OoD net was trained for the classifier of version" in wrong.stderr
    assert "train-ood" in wrong.stderr


# ------------------------------------------------------------------------------------------------ Ctrl-C


@pytest.fixture
def many(tmp_path):
    """640 pictures in two folders, most of them hard links."""
    for name, grain in (("clouds", 2), ("crumbs", 40)):
        first = draw(tmp_path / "many" / name, 1, grain) / "0.png"
        for index in range(1, 320):
            os.link(first, first.with_name(f"{index}.png"))
    return tmp_path / "many"


class Terminal:
    """A training whose standard error is a terminal; all that it shows is collected."""

    def __init__(self, command, environment, cwd, start=subprocess.Popen):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        # A width in the environment, as pytest's workers have it, wins over that of the terminal.
        plain = {name: value for name, value in environment.items() if name != "COLUMNS"}
        self.process = start(
            command,
            cwd=cwd,
            env={**plain, "TERM": "xterm"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._master = master
        self._shown = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while True:
            try:
                self._shown.append(os.read(self._master, 65536))
            except OSError:  # as reads end whose other end is closed
                os.close(self._master)
                return

    def interrupt(self):
        """Ctrl-C, while it runs; it has to end soon, and returns its exit status and all that was shown."""
        assert self.process.poll() is None, "it ended before it could be interrupted"
        self.process.send_signal(signal.SIGINT)
        return self.wait(60)

    def wait(self, seconds):
        status = self.process.wait(seconds)
        self._reader.join(10)
        return status, self.shown()

    def shown(self):
        return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", b"".join(self._shown).decode(errors="replace"))


def test_ctrl_c_while_mindspore_is_being_imported(folder, environment, tmp_path, eventually):
    data = draw(tmp_path / "data", 12, 2)
    command = [*COMMAND, "train-ood", "--config", str(folder / "cell.toml"), "--data", str(data)]
    started = Terminal(command, environment, tmp_path)
    try:
        eventually(lambda: "_c_expression" in Path(f"/proc/{started.process.pid}/maps").read_text(), pause=0.005)
        status, shown = started.interrupt()
    finally:
        started.process.kill()
    assert status == 130, shown
    assert "Traceback" not in shown
    assert "Fatal" not in shown


def test_ctrl_c_loses_nothing(folder, train, many, environment, tmp_path, eventually):
    """Interrupted while it computes features, and again while it trains: the net is that of a training at one go."""
    options = ("--epochs", str(EPOCHS), "--batch-size", "4", "--out", "net.safetensors")
    command = [*COMMAND, "train-ood", "--config", str(folder / "sidecar.toml"), "--data", str(many), *options]

    def cached(pattern):
        return {path.name: path.stat().st_ino for path in tmp_path.glob(f"cache/*/ood-features/*/{pattern}")}

    started = []

    def start():
        started.append(Terminal(command, environment, tmp_path, launcher.Popen))
        return started[-1]

    try:
        first = start()
        eventually(lambda: cached("000002.npz"), pause=0.005)
        _check_interrupted(*first.interrupt())
        shards = cached("0*.npz")
        assert 3 <= len(shards) < 10, "it was not in the middle of the features"

        second = start()
        eventually(lambda: re.search(rf"training .* [1-9]\d*/{EPOCHS} ", second.shown()))
        shown = _check_interrupted(*second.interrupt())
        assert _first(shown, "features of pictures", 640) == SHARD * len(shards)
        assert shards.items() <= cached("0*.npz").items(), "features were computed again"
        assert len(cached("0*.npz")) == 10
        reached = max(map(int, re.findall(rf"(\d+)/{EPOCHS} ", shown)))
        assert not (tmp_path / "net.safetensors").exists()

        third = start()
        status, shown = third.wait(300)
    finally:
        for terminal in started:
            terminal.process.kill()
    assert status == 0, shown
    assert _first(shown, "features of pictures", 640) == 640
    assert 1 < _first(shown, "training", EPOCHS) <= reached + 1
    assert cached("training.safetensors") == {}

    environment["XDG_CACHE_HOME"] = str(tmp_path / "another")
    straight = train(many, *options[:4], "--out", "straight.safetensors")
    assert straight.returncode == 0, straight.stderr
    one, other = (load_head(tmp_path / f"{name}.safetensors") for name in ("net", "straight"))
    for name in ("weights", "class_ids", "reference_scores"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.training.auroc == other.training.auroc


def _check_interrupted(status, shown):
    assert status == 130, shown
    assert "Traceback" not in shown
    assert re.search(r"Interrupted\. What is done is kept in \S+: start the same again to go on from there\.", shown)
    return shown


def _first(shown, stage, total):
    """Where the bar of a stage began."""
    return int(re.search(rf"{stage} [━╸╺]* *(\d+)/{total} ", shown).group(1))
