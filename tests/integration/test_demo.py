"""`xai-sidecar demo`, as `make demo` runs it: what it prints, what it makes and keeps, and how it ends."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from xai_sidecar.zoo.sample import sample_picture

COMMAND = [sys.executable, "-m", "xai_sidecar.cli", "demo", "--set", "model.batch_sizes=[1]"]
for name in ("gradient", "guided_backprop", "deconvolution"):
    COMMAND += ["--set", f"explainers.{name}.enabled=false"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """An environment with an empty cache folder."""
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}


def test_once(cache, tmp_path):
    done = subprocess.run(
        [*COMMAND, "--once"], env=cache, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False
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
    assert "compiling layer gradient of head, batch size 1" in done.stderr
    assert "Traceback" not in done.stderr
    overlay = tmp_path / "demo-output" / "chelsea-gradcam.png"
    assert str(overlay) in done.stdout
    with Image.open(overlay) as made, Image.open(sample_picture("chelsea")) as original:
        assert made.size == original.size == (451, 300)
        change = np.asarray(made.convert("RGB"), float) - np.asarray(original, float)
    redder = change[..., 0] - change[..., 2]
    # On the cat's cheek; and on the blurred ground at the right edge of the crop.
    assert redder[160:200, 145:165].mean() > 40
    assert redder[200:270, 340:354].mean() < 10


def test_until_interrupted(cache, tmp_path):
    process = subprocess.Popen(
        COMMAND, env=cache, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        for line in process.stdout:
            if line.startswith("Serving until Ctrl-C"):
                break
        else:
            pytest.fail(process.stderr.read())
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "loading compiled layer gradient" in errors, "the second start found no compiled programs"
    assert "OoD" not in errors, "the second start found no OoD net"
