"""Runs ONNX models on the CPU with ONNX Runtime."""

from __future__ import annotations

import importlib
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xai_sidecar.engine.work import Array

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where a container finds how much of the CPUs it is allowed: microseconds in a period of microseconds, or "max"."""

_FATAL = 4
"""Log level at which ONNX Runtime prints nothing: errors are raised anyway."""


def available() -> str | None:
    """Why ONNX Runtime cannot be used in this process; None if it can."""
    try:
        _runtime()
    except ImportError as error:
        return f"onnxruntime cannot be imported: {error}"
    return None


def engine() -> str:
    """Name and version of ONNX Runtime. It must be available."""
    return f"onnxruntime {_runtime().__version__}"


def usable_cpus() -> int:
    """Number of CPUs that this process may use, by its affinity and its container's quota."""
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = _QUOTA.read_text().split()
        return min(count, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # there is no quota
        return count


class OnnxProgram:
    """A model, ready to run on any number of rows. ONNX Runtime must be available.

    Args:
        model: A serialised model with one input.
        threads: Number of threads, the caller's included; None for one on each usable CPU.

    Raises:
        Exception: One of ONNX Runtime's own: it cannot load the model.
    """

    def __init__(self, model: bytes, threads: int | None = None) -> None:
        runtime = _runtime()
        options = runtime.SessionOptions()
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = usable_cpus() if threads is None else threads
        options.inter_op_num_threads = 1
        # Threads that spin while they wait save up to a fifth of a run on idle CPUs. Where anything else runs on these
        # CPUs they double its time, and a call every 25 ms costs three times the CPU time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # The arena keeps what the largest batch has needed, and no more however sizes alternate. Without it, up to
        # two fifths of the time of a large batch go into memory fetched anew. Patterns would add a plan, and in the
        # end a block of memory, for every batch size, for no gain in time.
        options.enable_cpu_mem_arena = True
        options.enable_mem_pattern = False
        # From a file, because a session keeps the bytes it was made of.
        with tempfile.TemporaryDirectory(prefix="xai-sidecar-") as folder:
            path = Path(folder) / "net.onnx"
            path.write_bytes(model)
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Runs the model, on any thread.

        Args:
            rows: The inputs, (n, …) float32; further arrays are ignored.

        Returns:
            The model's outputs, (n, …) float32, in arrays of their own.

        Raises:
            Exception: One of ONNX Runtime's own: the inputs do not fit the model.
        """
        return self._run(self._outputs, rows)

    def only(self, *places: int) -> Callable[[tuple[Array, ...]], tuple[Array, ...]]:
        """The same model with only some of its outputs, by their indices."""
        names = [self._outputs[place] for place in places]
        return lambda rows: self._run(names, rows)

    def _run(self, names: Sequence[str], rows: tuple[Array, ...]) -> tuple[Array, ...]:
        outputs = self._session.run(names, {self._input: rows[0]})
        return tuple(np.asarray(output, np.float32) for output in outputs)


def _runtime() -> Any:
    """The onnxruntime package; imported here since it need not be installed."""
    # Switches off telemetry, which onnxruntime would write to a folder of its own. It is read at import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return importlib.import_module("onnxruntime")
