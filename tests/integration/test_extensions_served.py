"""Explainers and metrics, a file each, in a copy of the package and in a package of somebody else's, asked for by name.

The server is the one of `tests/chaos/misbehaving.py`, which starts in a second.
"""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from xai_client import Client, Explain
from xai_client.errors import InvalidRequestError

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "tests" / "chaos" / "misbehaving.py"

EXPLAINER = """
    from typing import Literal

    import numpy as np
    from pydantic import Field

    from xai_sidecar.engine.work import Forward
    from xai_sidecar.explainers.base import Computed, Explainer, ExplainerParameters


    class ChannelParameters(ExplainerParameters):
        channel: int = Field(default=0, ge=0, le=2, description="Which channel of the picture.")
        factor: float = Field(default=1.0, gt=0, le=100, description="What it is multiplied by.")
        sign: Literal["plus", "minus"] = Field(default="plus", description="Its sign.")
        squared: bool = Field(default=False, description="Whether it is squared.")


    class Channel(Explainer[ChannelParameters]):
        name = "NAME"
        description = "A channel of the picture."
        parameters_type = ChannelParameters

        def kind(self, parameters):
            return Forward.kind

        def _compute(self, image, targets, parameters, context):
            yield Forward(image[np.newaxis])
            channel = image[parameters.channel] ** (2 if parameters.squared else 1)
            factor = np.float32(parameters.factor * (1 if parameters.sign == "plus" else -1))
            return Computed(np.stack([factor * channel] * len(targets)), [None] * len(targets))
"""
METRIC = """
    from pydantic import Field

    from xai_sidecar.metrics.base import Metric, Need, MetricParameters, Score


    class ShareParameters(MetricParameters):
        above: float = Field(default=0.0, description="Pixels above this value count.")


    class Share(Metric[ShareParameters]):
        name = "NAME"
        description = "The part of a map's pixels that are above a value."
        higher_is_better = True
        value_range = (0, 1)
        needs = frozenset({Need.SALIENCY})
        parameters_type = ShareParameters

        def pass_count(self, parameters, model, call=None):
            return 0

        def _measure(self, instance, parameters, context):
            yield from ()
            return Score(float((instance.saliency > parameters.above).mean()))
"""


def write_package(folder):
    """Somebody else's package, as pip installs one."""
    folder.mkdir()
    (folder / "strangers.py").write_text(
        textwrap.dedent(EXPLAINER).replace("NAME", "stranger")
        + textwrap.dedent(METRIC).replace("NAME", "strangers/share")
    )
    info = folder / "strangers-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text(
        "[xai_sidecar.explainers]\nchannel = strangers:Channel\n[xai_sidecar.metrics]\nshare = strangers:Share\n"
    )


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
def client(tmp_path_factory):
    """A client of a server with two explainers and two metrics more."""
    folder = tmp_path_factory.mktemp("extensions")
    copy = folder / "copy" / "xai_sidecar"
    shutil.copytree(ROOT / "sidecar" / "xai_sidecar", copy, ignore=shutil.ignore_patterns("__pycache__"))
    # A file each, and nothing else.
    (copy / "explainers" / "channel.py").write_text(textwrap.dedent(EXPLAINER).replace("NAME", "channel"))
    (copy / "metrics" / "share.py").write_text(textwrap.dedent(METRIC).replace("NAME", "share"))
    write_package(folder / "site")
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
    with running(folder, folder / "copy", folder / "site") as process:
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
    assert list(explainers)[-2:] == ["channel", "stranger"]
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


@pytest.mark.parametrize("name", ["channel", "stranger"])
def test_they_explain_by_the_parameters_of_a_request(client, image, name):
    asked = Explain(name, channel=2, factor=2.5, sign="minus", squared=True, targets=[3, 1])
    explanation = client.predict(image, explain=asked).explanations[name]
    assert [each.class_id for each in explanation.maps] == [3, 1]
    for each in explanation.maps:
        np.testing.assert_allclose(each.values, -2.5 * image[2] ** 2, rtol=1e-6)
    given = {"channel": 2, "factor": 2.5, "sign": "minus", "squared": True}
    assert explanation.parameters == {**given, "normalization": "none"}


@pytest.mark.parametrize(
    ("parameters", "field", "said"),
    [
        ({"channel": 3}, ".channel", "less than or equal to 2"),
        ({"squared": 1}, ".squared", "valid boolean"),
        ({"sign": "none"}, ".sign", "'plus' or 'minus'"),
        ({"colour": 1}, "", "It has normalization, channel, factor, sign, squared."),
    ],
)
def test_what_they_do_not_take_is_refused(client, image, parameters, field, said):
    with pytest.raises(InvalidRequestError) as caught:
        client.predict(image, explain=Explain("stranger", **parameters))
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


def test_a_broken_package_ends_the_start_by_name(tmp_path):
    write_package(tmp_path / "site")
    module = tmp_path / "site" / "strangers.py"
    module.write_text(module.read_text().replace("from typing import Literal", "from typing import Literally"))
    (tmp_path / "sidecar.toml").write_text('[model]\nfactory = "none:none"\ninput.size = 32\n')
    with running(tmp_path, tmp_path / "site") as process:
        output = process.stderr.read()
        assert process.wait(60) == 2
    assert "the package strangers 2.0, by its entry point xai_sidecar.explainers: channel = strangers:Channel" in output
    assert "cannot import name 'Literally'" in output
    assert "Traceback" not in output
