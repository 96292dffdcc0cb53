"""Runs over Ray, with real actors that are really killed. By hand, as it needs the extra `ray`: `make test-ray`."""

import contextlib
import csv
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ray.cluster_utils import Cluster

MISBEHAVING = Path(__file__).parents[1] / "chaos" / "misbehaving.py"
CONFIG = """
[model]
factory = "none:none"
input.size = 32
[explainers]
gradient.enabled = false
guided_backprop.enabled = false
deconvolution.enabled = false
occlusion.enabled = false
rise.masks = 64
[evaluator]
tolerance = 0.0
metrics = ["faithfulness/srg", "localization/iosr", "robustness"]
"""
COUNT = 40
READY = re.compile(r"ready: \S+, process (\d+) \(2 of 2 actors\)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A config, and pictures in folders of classes, one of them broken."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "sidecar.toml").write_text(CONFIG)
    generator = np.random.default_rng(3)
    for number in range(COUNT):
        path = folder / "pictures" / str(number % 3) / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 36, 3), np.uint8)).save(path)
    (folder / "pictures" / "1" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and nothing else")
    return folder


def command(out, *options):
    start = [sys.executable, str(MISBEHAVING), "run", "--config", "sidecar.toml", "--data", "pictures"]
    return [*start, "--out", out, *options]


def run(folder, out, *options):
    return subprocess.run(command(out, *options), cwd=folder, capture_output=True, text=True, timeout=300)


def begun(folder, out, *options):
    """A run whose two actors are ready; its lines of progress come on, in a process group of its own."""
    arguments = command(out, "--ray", "local", "--actors", "2", *options)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(arguments, cwd=folder, start_new_session=True, **pipes)
    return process, [int(found.group(1)) for found in lines_until(process, READY)]


def lines_until(process, pattern):
    """Matches of ready actors in the lines of progress, until one fits a pattern."""
    found = []
    for line in process.stderr:
        if match := re.search(r"ready: \S+, process (\d+)", line):
            found.append(match)
        if pattern.search(line):
            return found
    raise AssertionError(process.communicate())


def measured(process, folder, out, least=5):
    """Waits until some pictures of a run are measured; it says so itself only every few seconds."""
    store = f"file:{folder / out / 'store.sqlite'}?mode=ro"
    while process.poll() is None:
        with contextlib.suppress(sqlite3.OperationalError):  # it is not there yet
            with contextlib.closing(sqlite3.connect(store, uri=True)) as connection:
                (count,) = connection.execute("SELECT count(*) FROM samples").fetchone()
            if count >= least:
                return
        time.sleep(0.05)
    raise AssertionError(process.communicate())


def scores(folder, out):
    with (folder / out / "scores.csv").open() as file:
        return [
            [row[key] for key in ("name", "target", "explainer", "metric", "value")] for row in csv.DictReader(file)
        ]


def same(folder, out):
    assert len(scores(folder, out)) == len(scores(folder, "alone"))
    for one, other in zip(scores(folder, out), scores(folder, "alone"), strict=True):
        assert one[:4] == other[:4]
        assert (one[4] == "") == (other[4] == "")
        if one[4]:
            assert float(one[4]) == pytest.approx(float(other[4]), abs=1e-6), one
    ours, theirs = (json.loads((folder / each / "summary.json").read_text()) for each in (out, "alone"))
    for key in ("pictures", "skipped", "accuracy", "beats_controls"):
        assert ours[key] == theirs[key], key


@pytest.fixture(scope="module", autouse=True)
def alone(folder):
    done = run(folder, "alone")
    assert done.returncode == 3, done.stderr


def gone(pid, seconds=60):
    """Whether a process ends in time."""
    for _ in range(seconds * 10):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.1)
    return False


def test_an_actor_that_is_killed_costs_the_pictures_that_it_had(folder):
    process, actors = begun(folder, "killed")
    measured(process, folder, "killed")
    os.kill(actors[0], signal.SIGKILL)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 3, errors
    assert re.search(rf"lost: \S+, process {actors[0]} \(.*\); \d+ pictures go to others", errors)
    assert "ready: " in errors  # the one in its place
    assert f"{COUNT} pictures measured" in output
    same(folder, "killed")


def test_ctrl_c_ends_it_and_the_same_command_goes_on(folder):
    process, actors = begun(folder, "interrupted")
    measured(process, folder, "interrupted")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "interrupted; the same command goes on" in output
    assert "lost:" not in errors
    assert "Traceback" not in errors
    assert all(gone(each) for each in actors)
    done = run(folder, "interrupted", "--ray", "local", "--actors", "3")
    assert done.returncode == 3, done.stderr
    assert "of them before" in done.stdout
    same(folder, "interrupted")


def test_killed_itself_it_leaves_nothing_behind_and_one_process_goes_on(folder):
    process, actors = begun(folder, "driver killed")
    measured(process, folder, "driver killed")
    process.kill()
    process.communicate()
    assert all(gone(each) for each in actors)
    done = run(folder, "driver killed")
    assert done.returncode == 3, done.stderr
    assert "of them before" in done.stdout
    same(folder, "driver killed")


def test_a_machine_that_dies_costs_no_more(folder):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        other = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command("machine", "--ray", cluster.address), cwd=folder, **pipes)
        lines_until(process, READY)
        measured(process, folder, "machine")
        cluster.remove_node(other, allow_graceful=False)
        output, errors = process.communicate(timeout=300)
    finally:
        cluster.shutdown()
    assert process.returncode == 3, errors
    assert "pictures go to others" in errors
    assert f"{COUNT} pictures measured" in output
    same(folder, "machine")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ray", "local", "--set", "explainers.gradcam.layer='nowhere'"), r"layer.*nowhere"),
        (("--ray", "local", "--set", "model.device='gpu'"), "no machine of the cluster has a GPU"),
        (("--ray", "127.0.0.1:1"), "no Ray cluster can be reached at '127.0.0.1:1'"),
        (("--ray", "local", "--fail-fast"), r"1/broken\.jpg"),
    ],
)
def test_what_cannot_be_run_is_said(folder, tmp_path, options, words):
    done = run(folder, str(tmp_path / "out"), *options)
    assert done.returncode == 2, done.stderr
    assert re.search(words, done.stderr)
    assert "Traceback" not in done.stderr
