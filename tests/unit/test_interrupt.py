"""Signals become KeyboardInterrupt or a note, and only inside."""

import os
import signal
import subprocess
import sys
import time

import pytest

from xai_sidecar.interrupt import deferred, interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_and_the_old_handlers_come_back(number):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), number)
        time.sleep(10)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_raises_nothing(number):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with deferred() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        time.sleep(0.05)
        assert stop()
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_signal_ends_the_process():
    script = (
        "import os, signal, time\n"
        "from xai_sidecar.interrupt import deferred\n"
        "with deferred():\n"
        "    for _ in range(2):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(0.1)\n"
        "    time.sleep(60)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=30, check=False).returncode == 130


@pytest.mark.parametrize(("name", "seconds"), [("store_0", 60), ("somebody", 2)])
def test_a_database_that_does_not_answer_does_not_keep_the_process(name, seconds):
    program = f"""
import sys, threading, time
from xai_sidecar.command import main as cli
threading.Thread(target=lambda: time.sleep({seconds}), name={name!r}).start()
print("left", flush=True)
sys.exit(cli._leave(3))
"""
    began = time.monotonic()  # of somebody else's thread the interpreter waits for the end
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (3, "left\n")
    assert (time.monotonic() - began < seconds) == (name == "store_0")
