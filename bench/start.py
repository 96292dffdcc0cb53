"""How long a start takes, without and with the compile cache."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import models
from bench.figure import Figure
from bench.server import served

_ROUNDS = 3
_IMPORTED = "import numpy, onnxruntime"


def figures() -> list[Figure]:
    """The sample classifier, default explainers and batch sizes, from the start of the process to its being ready."""
    return [*_figures(ood=False), *_figures(ood=True)]


def _figures(*, ood: bool) -> list[Figure]:
    with tempfile.TemporaryDirectory() as cache, models.sample_config(Path(cache), ood=ood) as (_, path):
        imports, cold, warm = [], [], []
        for _ in range(_ROUNDS):
            imports.append(_import_seconds())
            shutil.rmtree(cache)
            for seconds in (cold, warm):
                with served(path) as (_, taken, _):
                    seconds.append(taken)
    least, first, later = min(imports), min(cold), min(warm)
    note = f"{first:.1f} s, {later:.1f} s with the cache; the imports {least:.2f} s"
    what = ", with the demo's OoD net" if ood else ""
    return [
        Figure(f"start to ready over the import of NumPy and ONNX Runtime{what}", first / least, "×", 8, note),
        Figure("the same with what the last start has cached", later / least, "×", 8),
    ]


def _import_seconds() -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", _IMPORTED], check=True)
    return time.monotonic() - started
