"""Log lines: whoever logs never waits for whoever reads."""

import io
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from xai_sidecar.telemetry import lines
from xai_sidecar.telemetry.lines import LineHandler, LineLogger, LineWriter, Spacing


class Pipe:
    """A stream whose other end reads when it is told to."""

    def __init__(self):
        reading, writing = os.pipe()
        self.reader, self.stream = os.fdopen(reading, "r", errors="replace"), os.fdopen(writing, "w")

    def close(self):
        self.reader.close()
        self.stream.close()


@pytest.fixture
def pipe():
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_lines_come_in_order_and_whole(pipe):
    writer = LineWriter(pipe.stream)
    wanted = [f"line {number} " + "é" * (number % 300) for number in range(2000)]
    read = []
    reader = threading.Thread(target=lambda: read.extend(next(pipe.reader) for _ in wanted))
    reader.start()
    for line in wanted:
        writer.write(line)
    assert writer.flush(20)
    reader.join(20)
    assert [line.rstrip("\n") for line in read] == wanted
    assert writer.dropped == 0


def test_a_pipe_that_nobody_drains_delays_nobody_and_drops_are_told(pipe):
    writer = LineWriter(pipe.stream, most_bytes=100_000)
    line = "x" * 99
    began = time.monotonic()
    for _ in range(5000):
        writer.write(line)
    assert time.monotonic() - began < 5  # a write that waits would wait for ever
    assert not writer.flush(0.05)
    dropped = writer.dropped
    assert 5000 - dropped >= 1000
    assert dropped > 1000
    read = []
    reader = threading.Thread(target=lambda: read.extend(iter(pipe.reader.readline, "last\n")))
    reader.start()
    assert writer.flush(20)
    writer.write("last")
    reader.join(20)
    kept, told = [each for each in read if each[0] == "x"], [json.loads(each) for each in read if each[0] == "{"]
    assert kept == [line + "\n"] * (5000 - dropped)
    assert [each["event"] for each in told] == ["log_lines_dropped"] * len(told)
    assert sum(each["count"] for each in told) == writer.dropped == dropped


def test_one_line_is_taken_however_long_it_is(pipe):
    writer = LineWriter(pipe.stream, most_bytes=10)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.reader.readline()))
    reader.start()
    writer.write("y" * 500_000)
    assert writer.flush(20)
    reader.join(20)
    assert read == ["y" * 500_000 + "\n"]


def test_a_reader_who_has_gone_ends_nothing(pipe):
    writer = LineWriter(pipe.stream)
    pipe.reader.close()
    for number in range(3):
        writer.write(f"{number}")
        assert writer.flush(10)


def test_a_stream_without_a_file():
    stream = io.StringIO()
    writer = LineWriter(stream)
    LineLogger(writer).info("a")
    LineLogger(writer).msg("b")
    assert writer.flush(10)
    assert stream.getvalue() == "a\nb\n"


def test_loggers_of_others_go_the_same_way():
    stream = io.StringIO()
    writer = LineWriter(stream)
    handler = LineHandler(writer)
    handler.handle(logging.LogRecord("asyncio", logging.ERROR, "", 0, "it took %d s", (3,), None))
    handler.handle(logging.LogRecord("asyncio", logging.ERROR, "", 0, "%d", ("no number",), None))
    assert writer.flush(10)
    assert stream.getvalue().splitlines()[0] == "it took 3 s"
    assert writer.dropped == 1


PROGRAM = """
import asyncio, logging, structlog
from xai_sidecar.telemetry.logs import set_up_logs
set_up_logs("info", "json")
log = structlog.get_logger("x")
log.info("first", number=1)
log.debug("not shown")
logging.getLogger("asyncio").error("from asyncio")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
log.warning("last")
"""


def test_all_is_there_when_the_process_ends():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
    first, asyncio, failed, last = done.stderr.splitlines()
    assert asyncio == "from asyncio"
    first, failed, last = map(json.loads, (first, failed, last))
    assert (first["event"], first["number"], first["level"]) == ("first", 1, "info")
    assert "ZeroDivisionError" in failed["exception"]
    assert last["event"] == "last"


def test_a_process_whose_stderr_nobody_drains_can_end():
    program = PROGRAM.replace('log.warning("last")', 'for number in range(3000): log.info("x" * 100)')
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    try:
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stderr.close()


class Paused:
    """In the place of `time.sleep`: keeps the writing thread in its pause until it is let go."""

    def __init__(self, monkeypatch):
        self.begun, self.over = threading.Event(), threading.Event()
        monkeypatch.setattr(lines.time, "sleep", self)

    def __call__(self, seconds):
        self.begun.set()
        assert self.over.wait(20)


def without_nowait(stream, data):
    return 0


@pytest.mark.parametrize("at_once", [lines._written_at_once, without_nowait], ids=["by its writer", "by the thread"])
def test_a_few_lines_after_a_quiet_moment_wait_for_nothing_and_a_crowd_is_written_together(pipe, monkeypatch, at_once):
    paused = Paused(monkeypatch)
    monkeypatch.setattr(lines, "_COLLECTING_SECONDS", 1000.0)
    monkeypatch.setattr(lines, "_written_at_once", at_once)
    writer = LineWriter(pipe.stream)
    for number in range(lines._AT_ONCE):
        writer.write(f"{number}")
        assert pipe.reader.readline() == f"{number}\n"  # which waits for ever if it is not written
    writes = []
    monkeypatch.setattr(writer, "_put", writes.append)
    crowd = [f"crowd {number}" for number in range(100)]
    if at_once is without_nowait:
        assert paused.begun.wait(20)
    for line in crowd:
        writer.write(line)
    paused.over.set()
    assert writer.flush(20)
    assert b"".join(writes) == "".join(f"{line}\n" for line in crowd).encode()
    assert len(writes) <= 2  # the thread may have begun with the first of them


def test_a_line_is_written_before_its_writer_goes_on():
    """Where the system can tell that it takes no waiting: of Linux's pipes since 6.4, of its sockets for longer."""
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("w") as stream:
        can = lines._written_at_once(stream, b"can it\n")
        writer = LineWriter(stream)
        for line in ("one", "two"):
            writer.write(line)
            told = theirs.recv(100, socket.MSG_DONTWAIT if can else 0)
            assert told.removeprefix(b"can it\n") == f"{line}\n".encode()


def test_what_is_written_of_a_line_at_once_is_not_written_again(pipe, monkeypatch):
    monkeypatch.setattr(lines, "_written_at_once", lambda stream, data: os.write(stream.fileno(), data[:3]))
    writer = LineWriter(pipe.stream)
    writer.write("half now, half later")
    assert pipe.reader.readline() == "half now, half later\n"


def test_spacing_by_hand():
    """10 s between events, two at once after a quiet moment: a third at 10, a fourth at 20, and at 100 two again."""
    spacing = Spacing(10.0, 2)
    assert spacing.pause(0.0) < 0
    spacing.ran(0.0)
    assert spacing.pause(0.0) == 0
    spacing.ran(0.0)
    assert spacing.pause(0.0) == 10
    spacing.ran(10.0)
    assert spacing.pause(13.0) == 7
    spacing.ran(20.0)
    assert spacing.pause(100.0) < 0
    spacing.ran(100.0)
    assert spacing.pause(100.0) == 0
    spacing.ran(100.0)
    assert spacing.pause(100.0) == 10
