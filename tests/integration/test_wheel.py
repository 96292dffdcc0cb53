"""The wheel, installed bare into an empty environment, is the SDK: no MindSpore, no server packages, protobuf 5."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from xai_sidecar.zoo.sample import sample_picture

ROOT = Path(__file__).parents[2]

MODULES = """
import importlib.util, sys
import xai_client, google.protobuf
print(google.protobuf.__version__)
absent = ("mindspore", "pydantic", "prometheus_client", "structlog", "grpc_health")
assert not [name for name in absent if importlib.util.find_spec(name)]
assert "xai_sidecar" not in sys.modules
"""


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The bin folder of an environment with nothing but the wheel and its base; protobuf 5, as beside TensorFlow."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT))
    (wheel,) = folder.glob("xai_sidecar-*.whl")
    venv.create(folder / "env")
    run(*pip, "--python", str(folder / "env"), "install", "-q", "--no-compile", str(wheel), "protobuf<6")
    return folder / "env/bin"


def test_it_imports_without_the_server(bare, tmp_path):
    assert run(str(bare / "python"), "-W", "error", "-c", MODULES, cwd=tmp_path).startswith("5.")


def test_it_predicts_and_explains(bare, server, tmp_path):
    picture = sample_picture("chelsea")
    printed = run(
        str(bare / "xai-client"), "predict", str(picture), "--explain", "gradcam", "--out", str(tmp_path),
        "--server", server.grpc, cwd=tmp_path,
    )  # fmt: skip
    assert "tiger cat" in printed
    assert [path.name for path in tmp_path.glob("*.png")] == ["chelsea.gradcam.png"]


def test_the_server_command_says_what_to_install(bare, tmp_path):
    done = subprocess.run(
        [str(bare / "xai-sidecar"), "demo"], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert "pip install 'xai-sidecar[" in done.stderr
    assert "Traceback" not in done.stderr
