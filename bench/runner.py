"""What `xai-sidecar run` takes over the bare passes that it needs, and where its time goes.

The bare passes are launches of the batch size that is fastest for each row, of the same kinds and as many rows,
measured in the same process after the run.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench.figure import Figure
from xai_sidecar.backends.loading import load_backend
from xai_sidecar.command.demo import demo_config
from xai_sidecar.config import Config
from xai_sidecar.engine.backend import Backend, Report
from xai_sidecar.engine.work import Array, Kind
from xai_sidecar.runner.folder import RunFolder
from xai_sidecar.runner.options import RunOptions
from xai_sidecar.runner.session import run_data
from xai_sidecar.zoo.sample import sample_picture

_PICTURES = ("chelsea", "coffee", "rocket", "astronaut")
_COPIES = 3
_BARE_LAUNCHES = 5


class _Counted:
    """A backend whose launches are counted.

    Attributes:
        rows: Rows of launches, padding included, by kind.
        busy: Seconds in launches.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._seen: dict[tuple[Kind, int], tuple[Array, ...]] = {}
        self.rows: Counter[Kind] = Counter()
        self.busy = 0.0
        self.counting = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def warm_up(self, kinds: list[Kind], report: Report) -> Any:
        failed = self._backend.warm_up(kinds, report)
        self.counting = True
        return failed

    def run(self, kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        started = time.perf_counter()
        outputs = self._backend.run(kind, rows)
        if self.counting:
            self.busy += time.perf_counter() - started
            self.rows[kind] += len(rows[0])
            self._seen.setdefault((kind, len(rows[0])), tuple(array.copy() for array in rows))
        return outputs

    def close(self) -> None:
        """Keeps the programs, which are timed afterwards."""

    def bare_seconds(self) -> float:
        """What as many rows take in bare launches, each kind at its best size."""
        self.counting = False
        best: dict[Kind, float] = {}
        for (kind, size), rows in self._seen.items():
            seconds = statistics.median(self._timed(kind, rows) for _ in range(_BARE_LAUNCHES))
            best[kind] = min(best.get(kind, float("inf")), seconds / size)
        return sum(best[kind] * count for kind, count in self.rows.items())

    def _timed(self, kind: Kind, rows: tuple[Array, ...]) -> float:
        started = time.perf_counter()
        self._backend.run(kind, rows)
        return time.perf_counter() - started


def figures() -> list[Figure]:
    """The figures of one run over photographs, all explainers, the metrics by default."""
    made: list[_Counted] = []

    def make(config: Config) -> Any:
        made.append(_Counted(load_backend(config)))
        return made[-1]

    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        for copy in range(_COPIES):
            for name in _PICTURES:
                path = sample_picture(name)
                (pictures / f"{copy}-{name}{path.suffix}").write_bytes(path.read_bytes())
        result = run_data(
            demo_config([], lambda line: None),
            str(pictures),
            RunFolder(Path(folder) / "run"),
            RunOptions(),
            make,
            lambda line: None,
        )
        result.store.close()
    counted = made[0]
    busy, rows = counted.busy, sum(counted.rows.values())
    bare = counted.bare_seconds()
    count = result.counts.done
    return [
        Figure("run over its bare passes", result.seconds / bare, "×", 1.15, f"{rows:,} rows, {count} pictures"),
        Figure("launches over bare passes", busy / bare, "×", None, "the part of it that is the device's"),
        Figure("time for a picture", result.seconds / count, "s", None, "all explainers, controls and metrics"),
    ]
