"""What the log says, and how long its lines can become."""

import json

import pytest
import structlog

from xai_sidecar.telemetry.logs import set_up_logs


@pytest.fixture
def logged(capsys, request):
    """Logs with the server's settings; returns the line."""
    before = structlog.get_config()
    request.addfinalizer(lambda: structlog.configure(**before))

    def logged(form="json", **entry):
        writer = set_up_logs("info", form)
        structlog.get_logger().info("told", **entry)
        assert writer.flush(10)
        return capsys.readouterr().err

    return logged


def test_lines_are_bounded(logged):
    line = logged(message="x" * 10_000_000, short="y", number=10**40)
    assert len(line) < 3000
    entry = json.loads(line)
    assert entry["message"].endswith("x …")
    assert (entry["short"], entry["number"]) == ("y", 10**40)


def test_tracebacks_are_longer(logged):
    try:
        raise ValueError("x" * 10_000_000)
    except ValueError as error:
        line = logged(exc_info=error)
    assert len(line) < 30_000
    assert json.loads(line)["exception"].startswith("Traceback")


@pytest.mark.parametrize("form", ["text", "json"])
def test_tracebacks_show_no_values(logged, form):
    password = "".join(["hunter", "2"])
    try:
        raise ValueError(f"not this {len(password)}")
    except ValueError as error:
        line = logged(form, exc_info=error)
    assert "ValueError: not this 7" in line
    assert "hunter2" not in line
