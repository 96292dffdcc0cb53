"""Fixtures for all tests."""

import os

# Before anything imports MindSpore: oneDNN reads it once, when it is loaded.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
