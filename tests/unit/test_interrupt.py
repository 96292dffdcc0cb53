"""Signals become KeyboardInterrupt, and only inside."""

import os
import signal
import time

import pytest

from xai_sidecar.interrupt import interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_and_the_old_handlers_come_back(number):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), number)
        time.sleep(10)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
