"""What `xai-sidecar run` takes over the bare passes that it needs, and where its time goes.

The bare passes are launches of the batch size that is fastest for each row, of the same kinds and as many rows,
measured in the same process after the run. CPU time says the same on a machine that others use, too.

With Ray, two actors on a core each are compared with one process on both, by turns, with two explainers and SRG. The
time counts from when the first actor is ready.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bench.figure import Figure
from xai_sidecar.backends.loading import load_backend
from xai_sidecar.command.demo import demo_config
from xai_sidecar.config import Config
from xai_sidecar.engine.backend import Backend, Report
from xai_sidecar.engine.work import Array, Kind
from xai_sidecar.runner.folder import RunFolder
from xai_sidecar.runner.session import run_data
from xai_sidecar.zoo.sample import prepare_sample, sample_picture

_PICTURES = ("chelsea", "coffee", "rocket", "astronaut")
_COPIES = 3
_RAY_COPIES, _RAY_ROUNDS = 2, 3
_BARE_LAUNCHES = 5
_CONFIG = """
[model]
onnx = "{onnx}"
labels = "{labels}"
input = {{size = 224, resize = 256, mean = 0.498, std = 0.502, mean_colour = 0.498}}
[explainers]
rise.masks = 256
gradient.enabled = false
guided_backprop.enabled = false
deconvolution.enabled = false
occlusion.enabled = false
[evaluator]
metrics = ["faithfulness/srg"]
"""


class _Counted:
    """A backend whose launches are counted.

    Attributes:
        rows: Rows of launches, without padding, by kind.
        busy: Seconds in launches.
        cpu_before: CPU seconds of the process before the first picture.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._seen: dict[tuple[Kind, int], tuple[Array, ...]] = {}
        self.rows: Counter[Kind] = Counter()
        self.busy = 0.0
        self.cpu_before = 0.0
        self.counting = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def warm_up(self, kinds: list[Kind], report: Report) -> Any:
        failed = self._backend.warm_up(kinds, report)
        self.counting, self.cpu_before = True, time.process_time()
        return failed

    def run(self, kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        started = time.perf_counter()
        outputs = self._backend.run(kind, rows)
        if self.counting:
            self.busy += time.perf_counter() - started
            self.rows[kind] += _needed(rows)
            self._seen.setdefault((kind, len(rows[0])), tuple(array.copy() for array in rows))
        return outputs

    def close(self) -> None:
        """Keeps the programs, which are timed afterwards."""

    def bare_seconds(self) -> tuple[float, float]:
        """What as many rows take in bare launches, each kind at its best size: seconds, and CPU seconds."""
        self.counting = False
        best: dict[Kind, tuple[float, float]] = {}
        for (kind, size), rows in self._seen.items():
            timed = [self._timed(kind, rows) for _ in range(_BARE_LAUNCHES)]
            seconds, cpu = (statistics.median(each) / size for each in zip(*timed, strict=True))
            best[kind] = min(best.get(kind, (float("inf"), cpu)), (seconds, cpu))
        return tuple(sum(best[kind][clock] * count for kind, count in self.rows.items()) for clock in (0, 1))

    def _timed(self, kind: Kind, rows: tuple[Array, ...]) -> tuple[float, float]:
        started, cpu = time.perf_counter(), time.process_time()
        self._backend.run(kind, rows)
        return time.perf_counter() - started, time.process_time() - cpu


def _needed(rows: tuple[Array, ...]) -> int:
    """How many of a launch's rows are no padding, which repeats the last one."""
    count = len(rows[0])
    while count > 1 and all(np.array_equal(array[count - 1], array[count - 2]) for array in rows):
        count -= 1
    return count


def _config(path: Path) -> Path:
    """Writes the config of the sample classifier."""
    files = prepare_sample(report=lambda line: None)
    path.write_text(_CONFIG.format(onnx=files.onnx, labels=files.labels))
    return path


def _pictures(folder: Path, copies: int) -> Path:
    """A folder of photographs, each so many times."""
    folder.mkdir()
    for copy in range(copies):
        for name in _PICTURES:
            path = sample_picture(name)
            (folder / f"{copy}-{name}{path.suffix}").write_bytes(path.read_bytes())
    return folder


def figures() -> list[Figure]:
    """The figures of all."""
    return [*_over_bare_passes(_COPIES), *_over_ray()]


def _over_bare_passes(copies: int) -> list[Figure]:
    """The figures of one run over photographs, all explainers, the metrics by default."""
    made: list[_Counted] = []

    def make(config: Config) -> Any:
        made.append(_Counted(load_backend(config)))
        return made[-1]

    with tempfile.TemporaryDirectory() as folder:
        result = run_data(
            demo_config([], lambda line: None),
            str(_pictures(Path(folder) / "pictures", copies)),
            RunFolder(Path(folder) / "run"),
            make,
            lambda line: None,
        )
        cpu = time.process_time() - made[0].cpu_before
        result.store.close()
    counted = made[0]
    busy, rows = counted.busy, sum(counted.rows.values())
    bare, bare_cpu = counted.bare_seconds()
    count = result.counts.done
    return [
        Figure("run over its bare passes", result.seconds / bare, "×", 1.15, f"{rows:,} rows, {count} pictures"),
        Figure("the same in CPU time", cpu / bare_cpu, "×", None, f"{cpu / count:.2f} s a picture"),
        Figure("launches over bare passes", busy / bare, "×", None, "the part of it that is the device's"),
        Figure("time for a picture", result.seconds / count, "s", None, "all explainers, controls and metrics"),
    ]


def _over_ray() -> list[Figure]:
    """Two actors over one process, in time for a picture."""
    if importlib.util.find_spec("ray") is None:
        print("  Ray is not installed: two actors are not measured", file=sys.stderr)
        return []
    seconds: dict[str, list[float]] = {"one": [], "two": []}
    with tempfile.TemporaryDirectory() as folder:
        pictures = _pictures(Path(folder) / "pictures", _RAY_COPIES)
        config = _config(Path(folder) / "sidecar.toml")
        for turn in range(_RAY_ROUNDS):
            for name, options in (("one", []), ("two", ["--ray", "local", "--actors", "2"])):
                out = Path(folder) / f"{name}-{turn}"
                command = [sys.executable, "-m", "xai_sidecar", "run", "--config", str(config), "--data", str(pictures)]
                subprocess.run([*command, "--out", str(out), *options], check=True, capture_output=True)
                found = json.loads((out / "summary.json").read_text())
                seconds[name].append(found["seconds"] / found["pictures"])
    ratios = [two / one for one, two in zip(seconds["one"], seconds["two"], strict=True)]
    spread = " to ".join(f"{each:.2f}" for each in (min(ratios), max(ratios)))
    return [Figure("two actors over one process", statistics.median(ratios), "×", 1.15, f"from {spread} in pairs")]
