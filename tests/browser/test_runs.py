"""The folder of an offline run in the console: what was measured, and that there is no model to ask."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MISBEHAVING = Path(__file__).parents[1] / "chaos" / "misbehaving.py"
CONFIG = """
[model]
factory = "none:none"
input.size = 32
labels = ["ash", "birch", "cedar", "elm", "fir"]
[explainers]
gradient.enabled = false
guided_backprop.enabled = false
deconvolution.enabled = false
occlusion.enabled = false
rise.enabled = false
[evaluator]
metrics = ["faithfulness/srg"]
metric_parameters."faithfulness/srg".steps = 8
"""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of four pictures, by a model of arithmetic."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "sidecar.toml").write_text(CONFIG)
    for number, label in enumerate(("ash", "birch", "elm", "fir")):
        pixels = np.random.default_rng(number).integers(0, 255, (48, 36, 3), np.uint8)
        path = folder / "pictures" / label / f"a picture #{number}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(pixels).save(path)
    command = [sys.executable, str(MISBEHAVING), "run", "--config", "sidecar.toml", "--data", "pictures", "--out", "R"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    return folder / "R"


@pytest.fixture(scope="module")
def console(run_folder, start_console):
    """A console that shows it."""
    with start_console(str(run_folder), shown="--run") as address:
        yield address
    assert not readers(run_folder)


def readers(folder):
    """The processes that show a run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if b"browse" in words and str(folder).encode() in words:
            found.append(int(path.parent.name))
    return found


def test_pictures_maps_and_scores_are_shown(console, run_folder, open_page, axe):
    found = json.loads((run_folder / "summary.json").read_text())
    with open_page(console) as page:
        page.get_by_role("heading", name="Pictures", level=1).wait_for()
        page.get_by_text("4 samples").wait_for()
        page.locator(".sample").nth(3).wait_for()
        page.locator("[data-look=worst]").click()
        page.wait_for_url("**order=worst_score_first**")
        page.locator(".sample .tag.number").nth(3).wait_for()
        shown = [float(each) for each in page.locator(".sample .tag.number").all_inner_texts()]
        assert shown == sorted(shown)
        page.locator("[data-look=wrong]").click()
        page.wait_for_url("**outcome=false_positive**")
        page.goto(console)
        page.locator(".sample").first.click()
        page.get_by_text("a picture #").wait_for()
        page.locator("[data-tile=gradcam] figure").wait_for()
        page.get_by_text("SRG").first.wait_for()
        page.locator(".class[aria-pressed=false]").first.click()
        page.get_by_text("The run has no map of this class").wait_for()
        page.locator(".q-notification:not([class*=enter-active])").wait_for()  # it fades in
        assert page.get_by_role("button", name="Report").count() == 0
        assert axe(page) == []
    with open_page(console + "/quality") as page:
        page.get_by_text("Which explainer to trust").wait_for()
        known = {name: value for name, value in found["composites"].items() if value is not None}
        assert {"gradcam", "control/random", "control/blob"} <= known.keys()
        for name, composite in known.items():
            assert f"{composite:.3f}" in page.locator(f'tr[data-explainer="{name}"]').inner_text()


@pytest.mark.parametrize("path", ["/explain", "/review"])
def test_what_takes_a_model_says_so(path, console, open_page):
    with open_page(console + path) as page:
        page.get_by_text("A run has no model to ask").wait_for()


def test_drift_is_of_the_whole_run(console, open_page):
    with open_page(console + "/drift") as page:
        page.get_by_text("this is the whole of it").wait_for()
        assert page.locator(".figure").first.inner_text().split() == ["Samples", "4"]


def test_a_console_that_is_killed_leaves_nothing(run_folder, tmp_path_factory, eventually):
    temporary = tmp_path_factory.mktemp("t")
    command = [sys.executable, "-m", "xai_console", "--run", str(run_folder), "--listen", "127.0.0.1:0"]
    known = set(readers(run_folder))
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert "http://" in process.stdout.readline()
    (own,) = set(readers(run_folder)) - known
    assert list(temporary.glob("xai-console-*"))
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    eventually(lambda: own not in readers(run_folder))
    assert not list(temporary.glob("xai-console-*"))
