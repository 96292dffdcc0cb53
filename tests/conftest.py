"""Fixtures for all tests."""

import gc
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import PurePath

import hypothesis
import pytest
import structlog

# A busy machine takes its time.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

# Where nothing else sets it up: without the values of variables, which take seconds to show.
structlog.configure(
    processors=[structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)],
)

# Before anything imports NumPy, as the command line has it: OpenBLAS's threads wait for each other on a busy machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Before anything imports MindSpore: oneDNN reads it once, when it is loaded.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

# A shell has what it runs in the background ignore Ctrl-C, which tests send, and processes hand that on.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def logs_as_they_were():
    """Puts back how this process logs: commands that tests call set it up as a process of their own would."""
    before, last_resort = structlog.get_config(), logging.lastResort
    yield
    structlog.configure(**before)
    logging.lastResort = last_resort


DATA = tempfile.mkdtemp(prefix="xai-data-")
"""Where servers keep what they measure unless a test names a place: not among what the user's own server measured."""
os.environ["XDG_DATA_HOME"] = DATA


def pytest_unconfigure():
    shutil.rmtree(DATA, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Keeps Python from looking for garbage among thousands of tests, now and whenever it looks for some later."""
    gc.disable()
    yield
    gc.collect()
    gc.freeze()
    gc.enable()


# ------------------------------------------------------------------------------------------------ a busy machine


class Metronome(threading.Thread):
    """Wakes up every few milliseconds, and remembers by how much it was late at most.

    Attributes:
        latest: Seconds.
    """

    INTERVAL = 0.005

    def __init__(self):
        super().__init__(daemon=True)
        self.latest = 0.0
        self._ended = threading.Event()

    def run(self):
        due = time.monotonic()
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            now = time.monotonic()
            self.latest = max(self.latest, now - due)
            due = now + self.INTERVAL

    def end(self):
        self._ended.set()
        self.join()


@pytest.fixture
def allowance():
    """By how many seconds something may be late: so many, and as long as this machine kept others from being on time.

    A limit of time that is meant for an idle machine is kept to there, and grows with what else a machine does.
    """
    metronome = Metronome()
    metronome.start()
    yield lambda seconds: seconds + 5 * metronome.latest
    metronome.end()


# ------------------------------------------------------------------------------------------------ several processes

ONE_SERVER = "the server of the sample classifier"
ONE_BROWSER = "the browser, its console and the server that it shows"
CLOSED_SERVERS = "the servers that are closed to strangers"
SMALL_NET = "the small net on each engine"
ASKING_IT = (
    "accepted_pictures",
    "admission",
    "bad_input",
    "budgets",
    "callers",
    "explanations",
    "gradients",
    "ood_scores",
    "predict",
    "sharing",
    "stream",
    "wheel",
)
"""Files of integration tests that ask the same server, which takes long to start: one process has them all."""

LONGEST = (
    ONE_SERVER,
    ONE_BROWSER,
    "tests/integration/test_demo.py",
    "tests/integration/test_train_ood.py",
    "tests/integration/test_any_classifier.py",
    "tests/e2e/test_known_flaw.py",
    SMALL_NET,
    "tests/integration/test_run.py",
    "tests/conformance/test_mindspore_backend.py",
    "tests/conformance/test_layers.py",
    "tests/conformance/test_forward_engines.py",
    "tests/conformance/test_compat_tutorials.py",
    "tests/conformance/test_compat_explainers.py",
    "tests/conformance/test_rectifiers.py",
    "tests/integration/test_wrong_config.py",
    "tests/conformance/test_ood.py",
    "tests/unit/evaluator/test_store_concurrency.py",
    "tests/unit/evaluator/test_store_pruning.py",
    "tests/unit/engine/test_sharing.py",
    "tests/unit/backends/graph/test_whole_nets.py",
    "tests/unit/evaluator/test_evaluator.py",
    "tests/unit/evaluator/test_store.py",
)
"""What takes longest is begun first, so that no process is left alone with it in the end."""


def group_of(test):
    """What a test is to share a process with, by its id: its file, or more."""
    path = PurePath(test.partition("::")[0])
    if path.parent.name == "browser":
        return ONE_BROWSER
    if path.parent.name == "security":
        return CLOSED_SERVERS
    if path.parent.name == "conformance" and path.stem in ("test_explainers", "test_perturbation"):
        return SMALL_NET
    shared = path.parent.name == "integration" and path.stem.removeprefix("test_") in ASKING_IT
    return ONE_SERVER if shared else str(path)


def pytest_ignore_collect(collection_path, config):
    """Where timed tests alone are asked for, files that have none are not even imported."""
    if config.option.markexpr == "timed" and collection_path.match("test_*.py"):
        return "mark.timed" not in collection_path.read_text() or None
    return None


def pytest_collection_modifyitems(items):
    def place(item):
        group = group_of(item.nodeid)
        return LONGEST.index(group) if group in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hands out whole groups in the order of the tests, whatever --dist says."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid)

    config.option.loadscopereorder = False
    return Groups(config, log)
