"""A server of the flawed classifier whose explainers can be broken while it runs."""

import importlib.util
from pathlib import Path

import launcher
import pytest

HERE = Path(__file__).parent
TRAINING_SECONDS = 500


def load(path):
    spec = importlib.util.spec_from_file_location(f"e2e_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


integration = load(HERE.parent / "integration" / "conftest.py")

connect = integration.connect
eventually = integration.eventually
get = integration.get
only = integration.only
read_metrics = integration.read_metrics


@pytest.fixture(scope="session")
def pictures():
    """The module that draws what the classifier is trained on, and asked."""
    return load(HERE / "pictures.py")


@pytest.fixture(scope="session")
def prometheus():
    """The module that runs Prometheus."""
    return load(HERE.parent / "prometheus.py")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The weights of the flawed classifier, trained."""
    folder = tmp_path_factory.mktemp("flawed")
    command = [launcher.PYTHON, str(HERE / "flawed.py"), str(folder / "net.safetensors")]
    done = launcher.run(command, cwd=folder, capture_output=True, text=True, timeout=TRAINING_SECONDS)
    assert done.returncode == 0, done.stderr
    return folder / "net.safetensors"


@pytest.fixture(scope="session")
def start_breakable():
    """Serves a config, in a `with` statement, with a file that names the explainers to be broken."""

    def start(config, broken, *overrides):
        broken.write_text("")
        program = (str(HERE / "breakable.py"), str(broken))
        return integration.serving(config, *overrides, program=program, cwd=config.parent)

    return start
