"""`xai-sidecar demo`, as `make demo` runs it: what it prints, the picture that it makes, and how it ends."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from xai_sidecar.zoo.sample import sample_picture

COMMAND = [sys.executable, "-m", "xai_sidecar.cli", "demo", "--set", "model.batch_sizes=[1]"]
COMMAND += ["--set", "model.gradient_batch_sizes=[1]", "--set", "explainers.gradient.enabled=false"]


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
    assert "compiling forward, batch size 1" in done.stderr
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
    assert "loading compiled forward" in errors, "the second start found no compiled programs"
