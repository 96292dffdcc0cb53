"""Around a call of any protocol: what is logged and counted of it, how it ends, and how many there may be."""

import asyncio
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from xai_sidecar.config import ServerConfig
from xai_sidecar.errors import DeviceError, InvalidRequestError, OverloadedError, ShuttingDownError, SidecarError
from xai_sidecar.serving.call_records import CallRecords
from xai_sidecar.telemetry import Telemetry

SHUT = ShuttingDownError("The server has shut down first.")


@pytest.fixture
def made():
    """Makes calls in progress, and the registry that they are counted in."""

    def made(**limits):
        registry = CollectorRegistry()
        return CallRecords(Telemetry(registry, []), ServerConfig(**limits)), registry

    return made


async def _handle(records, body, seconds_left=lambda: None):
    """An adapter that knows no protocol: what its call ends with, and how many there are as that leaves."""
    record = records.record(records.receive(), "Predict", 123, "mine", seconds_left)
    try:
        with record:
            answer = await body(record)
        return answer, records.count
    except SidecarError as error:
        return error, records.count
    finally:
        record.close()


def handle(*args):
    """A task of the call's own, as every adapter has one."""
    return asyncio.ensure_future(_handle(*args))


def raising(error):
    async def body(record):
        raise error

    return body


async def waiting(record):
    await asyncio.sleep(60)


def lines(logs, event):
    return [{key: value for key, value in entry.items() if key != "milliseconds"} for entry in logs
            if entry["event"] == event]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "code", "events"),
    [
        (raising(InvalidRequestError("No.", field="images[0]")), "INVALID_ARGUMENT", ["refused", "request"]),
        (raising(DeviceError("It failed.")), "INTERNAL", ["request_failed", "refused", "request"]),
        (raising(ZeroDivisionError("secret")), "INTERNAL", ["request_failed", "refused", "request"]),
    ],
)
async def test_errors_leave_as_ours_once_they_are_logged_and_counted(made, body, code, events):
    records, registry = made()
    with capture_logs() as logs:
        error, count = await handle(records, body)
    assert (error.code, count) == (code, 1)
    assert "secret" not in error.message
    assert [entry["event"] for entry in logs] == events
    assert lines(logs, "request") == [
        {"event": "request", "log_level": "info", "method": "Predict", "bytes": 123, "code": code}
    ]
    assert registry.get_sample_value("xai_requests_total", {"method": "Predict", "code": code}) == 1
    assert await records.finished(1)


async def test_an_answer_is_counted_before_it_leaves(made):
    records, registry = made()
    asked = SimpleNamespace(images=[1, 2], explanations=[SimpleNamespace(explainer="x" * 40)] * 20)

    async def body(record):
        record.describe(asked)
        return "answer"

    with capture_logs() as logs:
        assert await handle(records, body) == ("answer", 1)
    (line,) = lines(logs, "request")
    assert (line["pictures"], line["code"]) == (2, "OK")
    assert line["explainers"] == ",".join(["x" * 32 + " …"] * 16) + " and 4 more"
    assert registry.get_sample_value("xai_request_duration_seconds_count", {"method": "Predict"}) == 1
    assert await records.finished(1)


@pytest.mark.parametrize(("left", "code"), [(None, "CANCELLED"), (3.0, "CANCELLED"), (0.0, "DEADLINE_EXCEEDED")])
async def test_a_caller_that_goes_is_told_from_a_deadline(made, left, code):
    records, registry = made()
    task = handle(records, waiting, lambda: left)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert registry.get_sample_value("xai_requests_total", {"method": "Predict", "code": code}) == 1
    assert await records.finished(1)


async def test_calls_that_are_cut_off_end_by_that_error_and_leave_nothing_in_it(made):
    records, registry = made()
    tasks = [handle(records, waiting) for _ in range(3)]
    await asyncio.sleep(0)
    assert not await records.finished(0)
    records.cut_off(SHUT)
    assert [error for error, _ in await asyncio.gather(*tasks)] == [SHUT] * 3
    assert registry.get_sample_value("xai_requests_total", {"method": "Predict", "code": "UNAVAILABLE"}) == 3
    frames, traceback = 0, SHUT.__traceback__
    while traceback:
        frames, traceback = frames + 1, traceback.tb_next
    assert frames <= 3, "those of one call"
    assert await records.finished(1)


async def test_too_many_calls_are_refused_and_logged(made):
    records, _ = made(max_calls=2)
    tasks = [handle(records, waiting) for _ in range(2)]
    await asyncio.sleep(0)
    with capture_logs() as logs:
        error, count = await handle(records, waiting)
    assert (type(error), count) == (OverloadedError, 3)
    assert [line["code"] for line in lines(logs, "request")] == ["RESOURCE_EXHAUSTED"]
    records.cut_off(SHUT)
    await asyncio.gather(*tasks)
    assert await records.finished(1)


async def test_a_call_that_takes_too_long_ends_by_itself(made):
    records, _ = made(max_call_seconds=1)
    error, _ = await handle(records, waiting)
    assert error.reason == "CALL_TOO_LONG"
    assert "taken 1 s" in error.message


def test_a_size_that_is_not_sent(made):
    records, _ = made(max_message_bytes=2**20)
    records.check_size(2**20)
    with pytest.raises(InvalidRequestError, match="1,048,577 bytes, but the server sends 1,048,576"):
        records.check_size(2**20 + 1)
