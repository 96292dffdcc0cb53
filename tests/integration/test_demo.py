"""`xai-sidecar demo`, as `make demo` runs it: what it prints, what it makes and keeps, and how it ends."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xai_client.command import main as cli
from xai_sidecar.zoo.sample import sample_picture

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
# An explainer that a reader of `extending.md` has written is not in the demo; other tests install one and ask for it.
PAGES = [README, *(page for page in (ROOT / "docs").glob("*.md") if page.name != "extending.md")]
# As in an environment without MindSpore.
PROGRAM = "import sys; sys.modules['mindspore'] = None; from xai_sidecar.command.main import main; sys.exit(main())"
COMMAND = [sys.executable, "-c", PROGRAM, "demo", "--set", "model.batch_sizes=[1]"]
COMMAND += ["--set", "explainers.rise.masks=64"]
for name in ("gradient", "guided_backprop", "deconvolution"):
    COMMAND += ["--set", f"explainers.{name}.enabled=false"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """An environment with an empty cache folder."""
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}


def test_once(cache, tmp_path):
    done = subprocess.run(
        [*COMMAND, "--once"], env=cache, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    for label, percent in (("tiger cat", 38.6), ("Egyptian cat", 35.6), ("tabby", 16.9)):
        (line,) = (line for line in done.stdout.splitlines() if f"%  {label} " in line)
        assert float(line.split()[0]) == pytest.approx(percent, abs=1)
    assert "Converted the sample classifier's weights" in done.stderr
    assert "Training a small OoD net on 12 crops of each of 9 photographs" in done.stderr
    told = re.search(r"It is a toy: 108 crops. AUROC (.*)", done.stderr).group(1)
    auroc = {kind: float(value) for value, kind in re.findall(r"([\d.]+) against (\w+)", told)}
    assert set(auroc) == {"noise", "shuffled", "masked"}
    assert min(auroc.values()) > 0.7
    assert "loading and checking the layer gradient of head" in done.stderr
    assert "MindSpore" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "--server" not in done.stdout, "it suggests calls to a server that has ended"
    assert "xai-sidecar demo " in done.stdout
    overlay = tmp_path / "demo-output" / "chelsea-gradcam.png"
    assert str(overlay) in done.stdout
    with Image.open(overlay) as made, Image.open(sample_picture("chelsea")) as original:
        assert original.size == (451, 300)
        assert made.width == 451
        assert made.height > 300, "there is no legend"
        change = np.asarray(made.convert("RGB").crop((0, 0, 451, 300)), float) - np.asarray(original, float)
    redder = change[..., 0] - change[..., 2]
    # On the cat's cheek; and on the blurred ground at the right edge of the crop.
    assert redder[160:200, 145:165].mean() > 40
    assert redder[200:270, 340:354].mean() < 10


def told_of_client(run):
    """Every command in the help texts, the README and the documents that calls a server."""
    texts = [run(*command, "--help") for command in ([], ["predict"], ["feedback"], ["info"])]
    found = [line for text in texts for line in re.findall(r"(?m)^ +xai-client (.*)$", text)]
    found += [line for page in PAGES for line in re.findall(r"`xai-client ([^`]*)`", page.read_text())]
    assert {line.split()[0] for line in found} == {"predict", "feedback", "info"}
    assert len(set(found)) > 10
    return sorted(set(found))


def words(command):
    """What a shell makes of a command; of masks, fewer do here."""
    split = shlex.split(re.sub(r"rise\.masks=\d+", "rise.masks=48", command), comments=True)
    return [each for word in split for each in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]


def test_until_interrupted(cache, tmp_path, monkeypatch, capsys):
    """And while it serves, all that it, the help texts and the README suggest works as it stands."""
    process = subprocess.Popen(
        COMMAND, env=cache, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("Serving until Ctrl-C"):
                break
        else:
            pytest.fail(process.stderr.read())
        _try_everything(said, tmp_path, monkeypatch, capsys)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "Converted" not in errors, "the second start found no graph"
    assert "OoD" not in errors, "the second start found no OoD net"
    assert "Sent 14 photographs: 14 were sampled, and 5 of these have been labelled" in errors


def _try_everything(said, folder, monkeypatch, capsys):
    address = re.search(r"--server (\S+)", said)[1]
    monkeypatch.setenv("XAI_SERVER", address)
    monkeypatch.chdir(folder)
    Image.open(sample_picture("chelsea")).save("cat.jpg")
    Image.new("1", (451, 300), 1).save("lynx.png")
    capsys.readouterr()

    def run(*command):
        status = cli.main(command)
        printed = capsys.readouterr()
        assert status == 0, f"xai-client {shlex.join(command)}: {printed.err}"
        return printed.out

    suggested = re.findall(r"(?m)^ +\S*xai-client (.*)$", said)
    assert [each.split()[0] for each in suggested] == ["predict", "feedback", "info"]
    for command in suggested:
        run(*words(command))
    assert (folder / "demo-output" / "chelsea.rise.png").is_file()
    with urllib.request.urlopen(re.search(r"curl (\S+)", said)[1], timeout=10) as answer:
        assert b"xai_" in answer.read()
    request_id = json.loads(run("predict", "cat.jpg", "--json"))["request_id"]
    for command in told_of_client(run):
        run(*words(command.replace("REQUEST_ID", request_id).replace("127.0.0.1:50051", address)))
    (program,) = re.findall(
        r"```python\n(from xai_client import Client, Explain\n.*?)```", README.read_text(), re.DOTALL
    )
    exec(program.replace("127.0.0.1:50051", address).replace("masks=1000", "masks=64"), {})
    assert "tiger cat" in capsys.readouterr().out
    with Image.open("out.png") as made:
        assert made.width == 451
        assert made.height > 300, "there is no legend"
