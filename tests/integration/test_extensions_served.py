"""Explainers and metrics, a file each, in a copy of the package and in a package of somebody else's, asked for by name.

The server is the one of `tests/chaos/misbehaving.py`, which starts in a second.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from toys import EXPLAINER, METRIC, write_package

from xai_client import Client, Explain
from xai_client.errors import InvalidRequestError

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "tests" / "chaos" / "misbehaving.py"

NAMES = ("channel", "stranger")


def named(name):
    """The toy explainer, or the toy metric, by a name."""
    source, old = (METRIC, "toys/toy") if "share" in name else (EXPLAINER, "toy")
    return source.replace(f'"{old}"', f'"{name}"')


def write_strangers(folder):
    """Somebody else's package."""
    write_package(folder, "strangers", explainers=named("stranger"), metrics=named("strangers/share"))


@contextmanager
def running(folder, *paths):
    """A server process with the config in a folder, whose Python finds packages in these places first."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, paths), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(SERVER), "serve", "--config", str(folder / "sidecar.toml")]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(60)
        process.stderr.close()


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A folder with a copy of the package that has an explainer and a metric more: a file each, and nothing else."""
    folder = tmp_path_factory.mktemp("copy")
    package = folder / "xai_sidecar"
    shutil.copytree(ROOT / "sidecar" / "xai_sidecar", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "explainers" / "channel.py").write_text(named("channel"))
    (package / "metrics" / "share.py").write_text(named("share"))
    return folder


@pytest.fixture(scope="module")
def client(copy, tmp_path_factory):
    """A client of a server with two explainers and two metrics more."""
    folder = tmp_path_factory.mktemp("extensions")
    write_strangers(folder / "site")
    (folder / "sidecar.toml").write_text(f"""
        [model]
        factory = "none:none"
        input.size = 32
        [explainers]
        gradient.enabled = false
        guided_backprop.enabled = false
        deconvolution.enabled = false
        occlusion.enabled = false
        channel = {{ factor = 2.0, channel = 1 }}
        stranger.sign = "minus"
        [evaluator]
        sample_rate = 1.0
        interval_seconds = 0.1
        device_share = 1.0
        explainers = ["channel", "stranger"]
        metrics = ["share", "strangers/share"]
        store = "sqlite:///{folder / "store.sqlite"}"
        [evaluator.metric_parameters."strangers/share"]
        above = 0.5
        [server]
        grpc = "127.0.0.1:0"
        http = "127.0.0.1:0"
        """)
    with running(folder, copy, folder / "site") as process:
        for line in process.stderr:
            if line.startswith("{") and (entry := json.loads(line))["event"] == "ready":
                break
        else:
            raise AssertionError("the server ended")
        with Client(entry["grpc"]) as client:
            yield client


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(7).standard_normal((3, 32, 32)).astype(np.float32)


def test_they_are_listed_with_their_parameters(client):
    explainers = client.model_info().explainers
    assert "channel" in explainers
    assert list(explainers)[-1] == "stranger", "those of packages come last"
    for name, channel, factor, sign in (("channel", 1, 2, "plus"), ("stranger", 0, 1, "minus")):
        info = explainers[name]
        assert (info.available, info.description, info.cost.passes) == (True, "A channel of the picture.", 1)
        parameters = {
            each.name: (each.type, each.default, each.minimum, each.maximum, each.choices)
            for each in info.parameters.values()
        }
        assert parameters == {
            "normalization": ("string", "none", None, None, ("none", "max")),
            "channel": ("integer", channel, 0, 2, ()),
            "factor": ("number", factor, None, 100, ()),
            "sign": ("string", sign, None, None, ("plus", "minus")),
            "squared": ("boolean", False, None, None, ()),
        }
        assert info.parameters["squared"].description == "Whether it is squared."


@pytest.mark.parametrize(("name", "channel", "factor"), [("channel", 1, 2), ("stranger", 0, -1)])
def test_they_explain_by_the_parameters_of_the_config(client, image, name, channel, factor):
    explanation = client.predict(image, explain=name).explanations[name]
    np.testing.assert_array_equal(explanation.maps[0].values, factor * image[channel])


@pytest.mark.parametrize("name", NAMES)
def test_they_explain_by_the_parameters_of_a_request(client, image, name):
    asked = Explain(name, channel=2, factor=2.5, sign="minus", squared=True, targets=[3, 1])
    explanation = client.predict(image, explain=asked).explanations[name]
    assert [each.class_id for each in explanation.maps] == [3, 1]
    for each in explanation.maps:
        np.testing.assert_allclose(each.values, -2.5 * image[2] ** 2, rtol=1e-6)
    given = {"channel": 2, "factor": 2.5, "sign": "minus", "squared": True}
    assert explanation.parameters == {**given, "normalization": "none"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("parameters", "field", "said"),
    [
        ({"channel": 3}, ".channel", "less than or equal to 2"),
        ({"squared": 1}, ".squared", "valid boolean"),
        ({"sign": "none"}, ".sign", "'plus' or 'minus'"),
        ({"colour": 1}, "", "It has normalization, channel, factor, sign, squared."),
    ],
)
def test_what_they_do_not_take_is_refused(client, image, name, parameters, field, said):
    with pytest.raises(InvalidRequestError) as caught:
        client.predict(image, explain=Explain(name, **parameters))
    assert said in caught.value.message
    assert caught.value.field == f"explanations[0].named_parameters{field}"


def test_metrics_measure_by_the_parameters_of_the_config(client, image):
    # Of this picture alone, which all tests send: twice its channel 1, and minus its channel 0; above 0, and above 0.5.
    expected = {
        ("channel", "share"): (2 * image[1] > 0).mean(),
        ("channel", "strangers/share"): (2 * image[1] > 0.5).mean(),
        ("stranger", "share"): (-image[0] > 0).mean(),
        ("stranger", "strangers/share"): (-image[0] > 0.5).mean(),
    }
    client.predict(image)
    deadline = time.monotonic() + 60
    measured = {}
    while len(measured) < len(expected):
        assert time.monotonic() < deadline
        time.sleep(0.1)
        explainers = client.model_info().explainers
        measured = {(name, row.metric): row.mean for name in explainers for row in explainers[name].quality}
    assert measured == pytest.approx(expected)


def test_the_references_have_them(copy, tmp_path):
    (tmp_path / "generate.py").write_text((ROOT / "docs" / "generate.py").read_text())
    path = os.pathsep.join([str(copy), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, tmp_path / "generate.py"], env={**os.environ, "PYTHONPATH": path}, check=True)
    pages = {page.stem: page.read_text() for page in (tmp_path / "reference").iterdir()}
    assert "## `channel`\n\nA channel of the picture.\n" in pages["explainers"]
    assert "| `factor` | `1` | 0 to 100 | What it is multiplied by. |" in pages["explainers"]
    assert "| `share` | higher | 0 to 1 | The part of a map's pixels that are above a value" in pages["metrics"]
    assert "| `above` | `0.0` | number | Pixels above this value count. |" in pages["metrics"]
    assert "## `[explainers.channel]`" in pages["config"]
    assert "## `[evaluator.metric_parameters.share]`" in pages["config"]


def test_a_broken_package_ends_the_start_by_name(tmp_path):
    write_strangers(tmp_path / "site")
    module = tmp_path / "site" / "strangers_explainers.py"
    module.write_text(module.read_text().replace("from typing import Literal", "from typing import Literally"))
    (tmp_path / "sidecar.toml").write_text('[model]\nfactory = "none:none"\ninput.size = 32\n')
    with running(tmp_path, tmp_path / "site") as process:
        output = process.stderr.read()
        assert process.wait(60) == 2
    source = "xai_sidecar.explainers: plaything = strangers_explainers:Toy"
    assert f"the package strangers 1.5, by its entry point {source}" in output
    assert "cannot import name 'Literally'" in output
    assert "Traceback" not in output
