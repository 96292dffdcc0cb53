"""Fixtures for all tests."""

import os
import signal

# Before anything imports MindSpore: oneDNN reads it once, when it is loaded.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

# A shell has what it runs in the background ignore Ctrl-C, which tests send, and processes hand that on.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
