"""The oneDNN fact: on AVX-512 hosts a k x k convolution falls back to a reference kernel unless it is told not to."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

from bench.figure import Figure

_SCRIPT = """
import time
import numpy as np
from xai_sidecar.backends.mindspore.runtime import ms, nn
convolution = nn.Conv2d(64, 64, 3, has_bias=False)
x = ms.Tensor(np.ones((1, 64, 56, 56), np.float32))
for _ in range({runs}):
    started = time.perf_counter()
    convolution(x).asnumpy()
    print("seconds", time.perf_counter() - started)
"""
_RUNS = 12
_WARM = 2


def figures() -> list[Figure]:
    """One convolution as the sidecar sets it up, and as MindSpore would run it by itself."""
    ours, ours_kernel = _measure({})
    theirs, theirs_kernel = _measure({"ONEDNN_MAX_CPU_ISA": "DEFAULT"})
    note = f"64 channels, 3 x 3, 56 x 56: {theirs_kernel} over {ours_kernel}"
    return [Figure("convolution: oneDNN's own choice over the sidecar's", theirs / ours, "×", note=note)]


def _measure(changes: dict[str, str]) -> tuple[float, str]:
    environment = {key: value for key, value in os.environ.items() if key != "ONEDNN_MAX_CPU_ISA"}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(runs=_RUNS)],
        env={**environment, **changes, "DNNL_VERBOSE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    lines = done.stdout.splitlines()
    seconds = [float(line.split()[1]) for line in lines if line.startswith("seconds")]
    kernel = next(line.split(",convolution,")[1].split(",")[0] for line in lines if ",exec," in line)
    return statistics.median(seconds[_WARM:]), kernel
