"""`xai-sidecar run`: a data set from the command line, interrupted, killed, gone on with, and beside live traffic."""

import base64
import csv
import io
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import launcher
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from xai_client import Client, PreconditionError
from xai_proto import explanation_pb2 as pb

MISBEHAVING = Path(__file__).parents[1] / "chaos" / "misbehaving.py"
MEASURED = ["faithfulness/srg", "localization/iosr", "robustness"]
CONFIG = f"""
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
metrics = {json.dumps(MEASURED)}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A config, and pictures in folders of classes, one of them broken."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "sidecar.toml").write_text(CONFIG)
    generator = np.random.default_rng(3)
    for number in range(7):
        path = folder / "pictures" / str(number % 3) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 36, 3), np.uint8)).save(path)
    (folder / "pictures" / "1" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and nothing else")
    return folder


def command(folder, out, *options, data="pictures"):
    return [
        launcher.PYTHON, str(MISBEHAVING), "run", "--config", "sidecar.toml", "--data", data, "--out", str(out),
        *options,
    ]  # fmt: skip


def run(folder, out, *options, data="pictures"):
    return launcher.run(
        command(folder, out, *options, data=data), cwd=folder, capture_output=True, text=True, timeout=120
    )


def scores(out):
    """The values of a run by picture, class, explainer and metric."""
    with (out / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {(row["name"], row["target"], row["explainer"], row["metric"]): row["value"] for row in rows}


def same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert (value == "") == (other[key] == ""), key
        if value:
            assert float(value) == pytest.approx(float(other[key]), abs=1e-5), key


@pytest.fixture(scope="module")
def undisturbed(folder):
    done = run(folder, folder / "undisturbed")
    return done, folder / "undisturbed"


def test_a_folder_is_run_and_what_cannot_be_read_is_said(undisturbed):
    done, out = undisturbed
    assert done.returncode == 3, done.stderr
    assert "7 pictures measured" in done.stdout
    assert "1 pictures could not be read:\n  1/broken.jpg: The JPEG picture cannot be decoded" in done.stdout
    found = json.loads((out / "summary.json").read_text())
    assert (found["pictures"], [each["name"] for each in found["skipped"]]) == (7, ["1/broken.jpg"])
    assert found["accuracy"]["pictures"] == 7
    told = [line.split() for line in done.stdout.splitlines()]
    for each in found["accuracy"]["classes"]:
        counts = [str(each[name]) for name in ("true_positives", "false_positives", "false_negatives")]
        assert any(line[: 1 + len(counts)] == [each["label"], *counts] for line in told), each
    measured = {(row["explainer"], row["metric"]): row for row in found["scores"]}
    assert {name for name, _ in measured} == {
        "gradcam", "rise", "control/random", "control/fixed", "control/blob", "control/edges",
    }  # fmt: skip
    assert {metric for _, metric in measured} == {"faithfulness/srg", "robustness"}  # nobody said where anything is
    for key, row in measured.items():
        values = [float(value) for (_, _, *named), value in scores(out).items() if tuple(named) == key and value]
        assert row["count"] == len(values)
        assert row["mean"] == pytest.approx(np.mean(values))
    assert found["composites"]["gradcam"] is not None
    table = pyarrow.parquet.read_table(out / "scores.parquet").to_pylist()
    assert len(table) == len(scores(out))
    for row in table:
        value = scores(out)[row["name"], str(row["target"]), row["explainer"], row["metric"]]
        assert value == ("" if row["value"] is None else str(row["value"]))


def test_the_report_is_one_file_with_the_same_numbers(undisturbed):
    _, out = undisturbed
    page = (out / "report.html").read_text()
    assert not re.findall(r"https?:|<script|<link|@import|url\(", page)
    assert all(each.startswith("data:") for each in re.findall(r'(?:src|href)="([^"]*)', page))
    found = json.loads((out / "summary.json").read_text())
    for row in found["scores"]:
        assert f"<td>{row['mean']:.3f}<small>" in page
        assert f"n = {row['count']:,}" in page
    rows = re.findall(r"<tr class=\"(\w*)\"><td>([\w/]+)</td>", page)
    assert {name for kind, name in rows if kind == "control"} == {name for _, name in rows if "control/" in name}
    assert len(rows) == 6
    pictures = [base64.b64decode(each) for each in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)]
    assert len(pictures) >= 6
    for each in pictures:
        with Image.open(io.BytesIO(each)) as shown:
            assert shown.size == (36, 40)


def test_killed_again_and_again_it_comes_to_the_same(folder, undisturbed):
    out = folder / "killed"
    for _ in range(3):
        process = launcher.Popen(
            command(folder, out), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        before = measured_pictures(out)
        while process.poll() is None and measured_pictures(out) < before + 1:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = run(folder, out)
    assert done.returncode == 3, done.stderr
    assert "of them before" in done.stdout
    same(scores(out), scores(undisturbed[1]))
    ours, theirs = (json.loads((each / "summary.json").read_text()) for each in (out, undisturbed[1]))
    assert ours["accuracy"] == theirs["accuracy"]
    for one, other in zip(ours["scores"], theirs["scores"], strict=True):
        assert (one["explainer"], one["metric"], one["count"]) == (other["explainer"], other["metric"], other["count"])
        assert one["mean"] == pytest.approx(other["mean"], abs=1e-5)


def measured_pictures(out):
    """Pictures whose samples have ended, by what the store says."""
    if not (out / "store.sqlite").exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{out / 'store.sqlite'}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT count(*) FROM samples WHERE state = 'scored'").fetchone()[0]
    except sqlite3.OperationalError:  # it is being made
        return 0


def test_ctrl_c_ends_it_once_what_is_in_work_is_done(folder, undisturbed):
    out = folder / "interrupted"
    process = launcher.Popen(
        command(folder, out), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (out / "run.json").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted; the same command goes on" in output
    assert "Traceback" not in errors
    assert run(folder, out).returncode == 3
    same(scores(out), scores(undisturbed[1]))


def test_a_folder_of_another_run_is_left_alone(folder, undisturbed):
    _, out = undisturbed
    before = (out / "run.json").read_bytes()
    for options, words in (
        (("--targets", "true"), "targets"),
        (("--seed", "2"), "seed"),
        (("--set", "evaluator.metrics=['robustness']"), "metrics"),
    ):
        done = run(folder, out, *options)
        assert done.returncode == 2
        assert f"has a run with {words} = " in done.stderr
    assert (out / "run.json").read_bytes() == before
    done = run(folder, folder / "pictures")
    assert done.returncode == 2
    assert "no folder of a run" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--probable", "1.5"), "run.probable"),
        (("--limit", "0"), "run.limit"),
        (("--seed", "-1"), "run.seed"),
        (("--explainers", "gradcam,lime"), "there is no explainer 'lime'"),
        (("--fail-fast",), "1/broken.jpg"),
    ],
)
def test_what_cannot_be_run_is_said(folder, tmp_path, options, words):
    done = run(folder, tmp_path / "out", *options)
    assert done.returncode == 2
    assert words in done.stderr


def test_several_classes_of_a_picture(folder, tmp_path):
    done = run(
        folder,
        tmp_path / "both",
        "--targets",
        "both",
        "--set",
        "run.limit=3",
        "--explainers",
        "gradcam",
        "--metrics",
        "faithfulness/srg",
    )
    assert done.returncode == 0, done.stderr
    measured = {(explainer, metric) for *_, explainer, metric in scores(tmp_path / "both")}
    assert {explainer for explainer, _ in measured if not explainer.startswith("control/")} == {"gradcam"}
    assert {metric for _, metric in measured} == {"faithfulness/srg"}
    targets = {}
    for name, target, *_ in scores(tmp_path / "both"):
        targets.setdefault(name, set()).add(target)
    assert set(targets) == {"0/0.png", "0/3.png", "0/6.png"}
    assert all("0" in found for found in targets.values())  # what they show
    assert {len(found) for found in targets.values()} <= {1, 2}
    found = json.loads((tmp_path / "both" / "summary.json").read_text())
    assert found["accuracy"]["pictures"] == 3  # each counts once


SCRIPT = """
import numpy as np

def rows():
    for number in range(4):
        image = np.random.default_rng(number).standard_normal((3, 32, 32)).astype(np.float32)
        yield image, [number], [[4, 4, 20, 20]]
"""


def test_scores_are_those_of_live_traffic(folder, start_misbehaving, connect, picture, eventually, tmp_path):
    (folder / "script.py").write_text(SCRIPT)
    done = run(folder, tmp_path / "run", data="script:rows")
    assert done.returncode == 0, done.stderr
    offline = scores(tmp_path / "run")
    store = tmp_path / "live.sqlite"
    overrides = [
        f"evaluator.store=sqlite:///{store}", "evaluator.sample_rate=1", "evaluator.tolerance=0",
        "explainers.rise.masks=64",
        "evaluator.interval_seconds=0.05", "evaluator.device_share=1", f"evaluator.metrics={json.dumps(MEASURED)}",
    ]  # fmt: skip

    def live():
        with closing(sqlite3.connect(store)) as connection:
            found = connection.execute(
                "SELECT request_id, scores.target, explainer, metric, value FROM scores JOIN samples ON id = sample_id"
            ).fetchall()
        return {(name, str(target), explainer, metric): value for name, target, explainer, metric, value in found}

    with start_misbehaving(*overrides) as server, connect(server.grpc) as stub:
        for number in range(4):
            request_id = f"{number:08d}"
            stub.Predict(pb.PredictRequest(images=[picture(number)], request_id=request_id))
            report = pb.ReportGroundTruthRequest(request_id=request_id, class_ids=[number])
            report.boxes.add(left=4, top=4, right=24, bottom=24)
            stub.ReportGroundTruth(report)
        eventually(
            lambda: (
                {key for key in live() if key[3] == "faithfulness/srg"}
                >= {k for k in offline if k[3] == "faithfulness/srg"}
            )
        )
    compared = {key: value for key, value in live().items() if value is not None and key[3] != "explain"}
    assert {key[3] for key in compared} == set(MEASURED)
    for key, value in compared.items():
        assert float(offline[key]) == pytest.approx(value, abs=1e-5), key


@contextmanager
def browsing(out):
    """Shows a run as the console has it shown; gives a client before it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "xai_sidecar", "browse", str(out), "--until-eof"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    address = process.stdout.readline().rpartition(" ")[2].strip()
    assert address, process.wait(30)
    try:
        with Client(address, timeout=30) as client:
            yield client
    finally:
        process.stdin.close()  # as where whoever started it is killed
        assert process.wait(30) == 0


def test_a_run_is_shown_as_it_is(undisturbed):
    _, out = undisturbed
    found = json.loads((out / "summary.json").read_text())
    with browsing(out) as client:
        info, quality = client.model_info(), client.quality()
        assert info.run == "undisturbed"
        assert (info.evaluator.state, info.evaluator.note) == ("up_to_date", "")
        for row in found["scores"]:
            shown = quality.explainers[row["explainer"]].quality[row["metric"]]
            assert (shown.mean, shown.sample_count) == (pytest.approx(row["mean"]), row["count"])
        assert {name: each.composite_score for name, each in quality.explainers.items()} == pytest.approx(
            found["composites"]
        )
        assert quality.evaluator.accuracy.share == found["accuracy"]["share"]
        listed = client.list_samples(with_thumbnails=True, with_total_count=True, order="oldest_first")
        assert listed.total_count == len(listed.samples) == 7
        offline = scores(out)
        for each in listed.samples:
            sample = client.sample(each.request_id)
            with Image.open(io.BytesIO(each.thumbnail_jpeg)) as picture:
                assert picture.size == (36, 40)
            assert sample.model_input(info.input) is not None
            (truth,) = sample.summary.truth.class_ids
            assert str(truth) == each.request_id[0]
            for name, made in sample.explanations.items():
                key = each.request_id, str(made.maps[0].class_id), name, "faithfulness/srg"
                assert made.scores["faithfulness/srg"].value == pytest.approx(float(offline[key]))
        assert client.quality_history().sample_count == 7
        assert client.class_maps(["gradcam"])
        for ask in (
            lambda: client.predict(np.zeros((4, 4, 3), np.uint8)),
            lambda: list(client.stream(np.zeros((4, 4, 3), np.uint8))),
            lambda: client.report_ground_truth("any", "0"),
        ):
            with pytest.raises(PreconditionError, match="the offline run undisturbed"):
                ask()


def test_a_run_is_shown_while_it_goes_on(folder):
    out = folder / "going"
    assert run(folder, out, "--limit", "2", "--no-pictures").returncode == 0
    with browsing(out) as client, closing(client.watch_samples()) as watching:
        assert not next(watching).events  # from here on nothing is missed
        process = launcher.Popen(command(folder, out, "--no-pictures"), cwd=folder, stdout=subprocess.DEVNULL)
        happened = {}
        for each in watching:
            for event in each.events:
                happened.setdefault(event.sample.request_id, set()).update(event.kinds)
            if sum("measured" in kinds for kinds in happened.values()) == 5:
                break
        assert process.wait(60) == 3
        assert set(map(frozenset, happened.values())) == {frozenset({"new", "measured"})}
        assert len(happened) == 5
        found = json.loads((out / "summary.json").read_text())
        quality = client.quality()
        for row in found["scores"]:
            shown = quality.explainers[row["explainer"]].quality[row["metric"]]
            assert (shown.mean, shown.sample_count) == (pytest.approx(row["mean"]), row["count"])
        assert quality.evaluator.accuracy.picture_count == 7
        assert not any(each.has_thumbnail for each in client.list_samples().samples)
    assert "data:image/jpeg" in (out / "report.html").read_text()  # of maps by themselves


def test_what_cannot_be_shown_is_said(folder, undisturbed, tmp_path):
    def shown(path, *options):
        command = [sys.executable, "-m", "xai_sidecar", "browse", str(path), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    nothing = shown(folder)
    assert (nothing.returncode, "no folder of a run" in nothing.stderr) == (2, True)
    shutil.copytree(undisturbed[1], tmp_path / "old")
    (tmp_path / "old" / "description.json").unlink()
    old = shown(tmp_path / "old")
    assert (old.returncode, "Run the same command again" in old.stderr) == (2, True)
    ended = subprocess.run(
        [sys.executable, "-m", "xai_sidecar", "browse", str(undisturbed[1]), "--until-eof"],
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert ended.returncode == 0
    strangers = shown(undisturbed[1], "--listen", "0.0.0.0:0")
    assert (strangers.returncode, "no log-in" in strangers.stderr) == (2, True)


def test_help_says_what_data_may_be():
    done = subprocess.run(
        [sys.executable, "-m", "xai_sidecar", "run", "--help"], capture_output=True, text=True, check=True
    )
    for word in ("COCO", "CSV", "Pascal VOC", "module:callable", "--targets", "--fail-fast"):
        assert word in done.stdout
