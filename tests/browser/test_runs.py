"""The folder of an offline run in the console: what was measured, and that there is no model to ask."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[2]))

from bench.console_store import repeat_samples

from xai_client import Client, SampleFilter
from xai_console.query import PAGE_SIZE

MANY = 10_000
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
        assert page.get_by_role("link", name="Explain again with other settings").count() == 0
        assert axe(page) == []
        page.goto(console + "/side-by-side")
        row = page.locator("[data-sample]").nth(3)
        row.locator("[data-tile=gradcam] figure[data-drawn^='/kept/']").wait_for()
        row.locator(".class[aria-pressed=false]").first.click()
        row.locator("[data-tile=gradcam]").get_by_text("Not explained for this class").wait_for()
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


@pytest.fixture
def many(run_folder, tmp_path):
    """What shows a run of so many pictures; its address."""
    folder = tmp_path / "many"
    shutil.copytree(run_folder, folder)
    repeat_samples(folder / "store.sqlite", MANY)
    command = [sys.executable, "-m", "xai_sidecar", "browse", str(folder), "--until-eof"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().rpartition(" ")[2].strip()
    finally:
        process.stdin.close()
        assert process.wait(30) == 0
        process.stdout.close()


def test_lists_of_ten_thousand_samples_are_those_of_the_sdk(many, start_console, open_page):
    with Client(many, timeout=60) as client, start_console(many) as console:

        def listed(token="", **asked):
            return client.list_samples(page_size=PAGE_SIZE, page_token=token, with_total_count=True, **asked)

        def shows(page, expected):
            page.get_by_text(f"{expected.total_count:,} samples").wait_for()
            keys = [each.id for each in expected.samples]
            page.locator(f'.samples li:first-child[data-key="{keys[0]}"]').wait_for()
            found = page.locator(".samples li")
            assert [each.get_attribute("data-key") for each in found.all()] == keys

        with open_page(console) as page:
            first = listed()
            assert first.total_count == MANY
            shows(page, first)
            page.get_by_role("button", name="Next").click()
            second = listed(first.next_page_token)
            shows(page, second)
            page.get_by_role("button", name="Side by side").click()
            page.locator(f'[data-sample="{second.samples[0].id}"]:first-child').wait_for()
            page.reload()
            page.get_by_role("button", name="Back", exact=True).click()
            page.locator(f'[data-sample="{first.samples[45].id}"]:first-child').wait_for()
            page.goto(console)
            page.locator("[data-look=worst]").click()
            page.wait_for_url(re.compile("order=worst_score_first"))
            worst = listed(order="worst_score_first", score_of=("gradcam", "faithfulness/srg"))
            shows(page, worst)
            page.locator("[data-outcome=false_positive]").click()
            wrong = SampleFilter(outcomes=("false_positive",))
            shows(page, listed(where=wrong, order="worst_score_first", score_of=("gradcam", "faithfulness/srg")))
