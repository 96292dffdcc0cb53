"""Log lines: whoever logs never waits for whoever reads."""

import io
import json
import logging
import os
import subprocess
import sys
import threading
import time

import pytest

from xai_sidecar.service.lines import LineHandler, LineLogger, LineWriter


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
    lines = [f"line {number} " + "é" * (number % 300) for number in range(2000)]
    read = []
    reader = threading.Thread(target=lambda: read.extend(next(pipe.reader) for _ in lines))
    reader.start()
    for line in lines:
        writer.write(line)
    assert writer.flush(20)
    reader.join(20)
    assert [line.rstrip("\n") for line in read] == lines
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
from xai_sidecar.service.logs import set_up_logs
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
