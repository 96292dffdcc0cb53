"""How long a start takes, without and with the compile cache."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench import models
from bench.figure import Figure
from bench.server import served


def figures() -> list[Figure]:
    """The sample classifier, default explainers and batch sizes, from the start of the process to its being ready."""
    with tempfile.TemporaryDirectory() as cache, models.sample_config(Path(cache)) as (_, path):
        seconds = []
        for _ in range(2):
            with served(path) as (_, taken, _):
                seconds.append(taken)
    cold, warm = seconds
    note = f"{cold:.1f} s and {warm:.1f} s"
    return [Figure("start to ready with the compile cache over without", warm / cold, "×", note=note)]
