"""Clients in forked children: a connection of their own where gRPC can take a fork, else a typed error at once."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from xai_proto import explanation_pb2 as pb

PROGRAM = Path(__file__).parent / "forking.py"


@pytest.fixture
def forked(fake, monkeypatch):
    """Runs forking.py against a server that streams without end."""
    leave = threading.Event()

    def play():
        while not leave.wait(0.05):
            yield pb.PredictStreamResponse(predicted=pb.PredictResponse(predictions=[pb.Prediction()]))

    usual = fake._play
    monkeypatch.setattr(
        fake, "_play", lambda method, *rest: play() if method == "PredictStream" else usual(method, *rest)
    )

    def run(parent, child, way="fork"):
        done = subprocess.run(
            [sys.executable, str(PROGRAM), fake.address, parent, child, way],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    yield run
    leave.set()


@pytest.mark.parametrize(
    ("parent", "child", "way"),
    [
        ("unused", "old", "fork"),  # gunicorn --preload
        ("used", "new", "pool"),  # Celery's and PyTorch's workers
        ("used", "async new", "executor"),
        ("async closed", "async new", "fork"),
    ],
)
def test_a_child_of_a_quiet_parent_has_a_connection_of_its_own(forked, parent, child, way):
    assert forked(parent, child, way) == "ok"


@pytest.mark.parametrize(
    ("parent", "child", "way"),
    [
        ("streaming", "old stream", "fork"),
        ("streaming", "async old", "fork"),
        ("async open", "async old", "fork"),
    ],
)
def test_a_child_of_a_busy_parent_is_told_at_once(forked, parent, child, way):
    """There, anything that is asked of gRPC may hang or crash."""
    assert forked(parent, child, way) == "ForkedError"


def test_children_forked_at_any_moment_never_hang(forked):
    """Their parent asks and asks; it depends on the moment whether one is under way."""
    assert set(forked("busy", "new", "forks").split()) <= {"ok", "ForkedError"}


def test_a_child_is_told_where_grpc_was_told_not_to_look_after_forks(forked, monkeypatch):
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")
    assert forked("used", "new") == "ForkedError"
