"""Predictions beside the evaluator, on EfficientNet-Lite0 served by a process of its own, one at a time.

One server, so that both sides have the same process: it samples some of the requests without an id of their own, and
none of those with certain ids. With these the evaluator has nothing to do. No two that are under way at once have the
same id: they would be answered by one pass.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import socket
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from bench import models
from bench.figure import Figure
from bench.load_client import LoadClient, load_client
from bench.metrics import read_metrics
from bench.server import served
from xai_client.request import predict_request
from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.evaluator.sampling import chosen
from xai_sidecar.evaluator.store import Store
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.paths import cache_folder

RATE = 10.0
"""Predictions per second."""

_ROUNDS = 8
_SECONDS = 15.0
_LEAD_SECONDS = 2.5
_INTERVAL_SECONDS = 1.0
_QUIET_SECONDS = 60.0

_SAMPLED = 0.3
"""Of the requests: some three a second, which is more than are scored, so that the evaluator never runs out of work."""

_WAITING_BYTES = 2_000_000
"""Three pictures, which is work for a few seconds: it is to be over soon when no more come."""

_STEPS = 10
"""Of SRG: a sample is soon done."""

_IDS = 100
"""More than requests are ever under way at once."""


@dataclass
class Beside:
    """What was measured.

    Attributes:
        off: Seconds that predictions took while the evaluator rested, by round.
        on: The same while it worked with launches that keep to its slice, or nearly so.
        uncut: The same while it worked with gradients, whose single rows take far longer than the slice.
        shares: Of the device's time that the evaluator took, by round of `on`, then that of `uncut`.
        late: Seconds that the client sent late.
    """

    off: list[list[float]] = field(default_factory=list)
    on: list[list[float]] = field(default_factory=list)
    uncut: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)


@dataclass
class _Bench:
    """A server and its client.

    Attributes:
        client: Sends the requests.
        http: Where the server's metrics are.
        found: Takes what is measured.
    """

    client: LoadClient
    http: str
    found: Beside

    def send(self, request: str, seconds: float, seed: int) -> list[float]:
        """Seconds that predictions took that came at random times."""
        answer = self.client.ask("open_loop", request, rate=RATE, seconds=seconds, seed=seed)()
        self.found.late += answer["late"]
        taken: list[float] = answer["taken"]
        return taken

    def phase(self, on: bool, seed: int) -> list[float]:
        """As `send`, while the evaluator works all the time, or rests.

        Raises:
            RuntimeError: It worked where it should have rested.
        """
        request = "sampled" if on else "passed_over"
        if not on:
            self._wait_until_quiet()
        self.send(request, _LEAD_SECONDS, 100 + seed)
        before, started = self._busy(), time.monotonic()
        taken = self.send(request, _SECONDS, seed)
        share = (self._busy() - before) / (time.monotonic() - started)
        if on:
            self.found.shares.append(share)
        elif share:
            raise RuntimeError(f"the evaluator took {share:.1%} of the device when it was to rest")
        return taken

    def _busy(self) -> float:
        return read_metrics(self.http)["xai_device_busy_seconds_total", "evaluate"]

    def _wait_until_quiet(self) -> None:
        """Until nothing has waited to be scored, or been scored, for longer than the evaluator takes to look."""
        end, quiet_since = time.monotonic() + _QUIET_SECONDS, None
        while (now := time.monotonic()) < end:
            metrics = read_metrics(self.http)
            if metrics["xai_evaluator_pending_samples",] or metrics["xai_evaluator_state", "working"]:
                quiet_since = None
            elif quiet_since is None:
                quiet_since = now
            elif now - quiet_since > 1.5 * _INTERVAL_SECONDS:
                return
            time.sleep(0.1)
        raise RuntimeError("the evaluator does not come to an end")


def figures() -> list[Figure]:
    """What predictions beside it take over those alone, and what it takes of the device; six minutes or seven."""
    beside = measure()
    slice_ = EvaluatorConfig().slice_milliseconds
    device_share = EvaluatorConfig().device_share
    off, on = (np.array([ms for taken in each for ms in taken]) * 1e3 for each in (beside.off, beside.on))
    uncut = 1e3 * np.array(beside.uncut)
    found = []
    for percentile, bar in ((50, None), (99, 1.10)):
        each = [[1e3 * float(np.percentile(taken, percentile)) for taken in side] for side in (beside.off, beside.on)]
        told = ", ".join(f"{b:.1f} / {a:.1f}" for a, b in zip(*each, strict=True))
        note = f"{told} ms by round, beside it and alone; {len(on)} and {len(off)} JPEGs at {RATE:g}/s"
        value = statistics.median(each[1]) / statistics.median(each[0])
        found.append(Figure(f"prediction p{percentile} beside the evaluator over alone", value, "×", bar, note))
    pooled, alone = float(np.percentile(on, 99)), float(np.percentile(off, 99))
    late = 1e3 * float(np.percentile(beside.late, 99))
    note = f"{pooled:.1f} of {alone:.1f} ms; the client sent late by {late:.1f} ms, p99"
    found.append(Figure("prediction p99, rounds taken together", pooled / alone, "×", 1.10, note))
    worst = float(np.percentile(uncut, 99))
    note = f"{worst:.1f} ms, {len(uncut)} JPEGs; its launches cannot be cut to {slice_:g} ms, and are rare"
    found.append(Figure("prediction p99 while it measures gradient's robustness", worst / alone, "×", 1.10, note))
    *shares, last = beside.shares
    note = f"by round {', '.join(f'{share:.3f}' for share in shares)}, and {last:.3f} with gradients"
    name = "part of the device's time that the evaluator took"
    # Above the lower bound it had something to do all the time; a launch may be counted that began before.
    share = statistics.mean(shares)
    found.append(Figure(name, share, "", 1.02 * device_share, note, at_least=0.8 * device_share))
    return found


def measure() -> Beside:
    """Rounds of predictions without the evaluator and beside it, in alternating order; then beside gradients."""
    found = Beside()
    with tempfile.TemporaryDirectory() as folder:
        _write_requests(Path(folder))
        with _served(Path(folder), "gradcam", ["faithfulness/srg"], found) as bench:
            for number in range(_ROUNDS):
                for on in (False, True) if number % 2 == 0 else (True, False):
                    (found.on if on else found.off).append(bench.phase(on, number))
        with _served(Path(folder), "gradient", ["robustness"], found) as bench:
            found.uncut = bench.phase(True, 0)
    return found


@contextmanager
def _served(folder: Path, explainer: str, metrics: list[str], found: Beside) -> Iterator[_Bench]:
    """A server that measures one explainer and the controls."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        http = f"127.0.0.1:{free.getsockname()[1]}"
    off = "".join(f"[explainers.{name}]\nenabled = false\n" for name in installed_explainers() if name != explainer)
    settings = f"""
[evaluator]
sample_rate = {_SAMPLED}
sampling = "uniform"
interval_seconds = {_INTERVAL_SECONDS}
explainers = ["{explainer}"]
metrics = {json.dumps(metrics)}
pending_bytes = {_WAITING_BYTES}
max_age_seconds = 10.0
store = "sqlite:///{folder / explainer}.sqlite"
[evaluator.metric_parameters."faithfulness/srg"]
steps = {_STEPS}
{off}"""
    _make_store(folder / f"{explainer}.sqlite")
    with models.sample_config(cache_folder() / "compiled") as (_, path):
        path.write_text(
            path.read_text().replace('http = "127.0.0.1:0"', f'http = "{http}"\nrepeat_seconds = 0') + settings
        )
        with served(path) as (address, _, _), load_client(address, folder) as client:
            client.ask("open_loop", "passed_over", rate=40, seconds=2, seed=0)()
            yield _Bench(client, http, found)


def _make_store(path: Path) -> None:
    """A store that chooses by the request's id alone, so that it is known beforehand what is sampled."""
    Store.open(f"sqlite:///{path}", max_bytes=1 << 30, retention_seconds=1e12).close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE store_secrets SET value = x''")


def _write_requests(folder: Path) -> None:
    """A photograph as JPEG: once without an id, and in a folder with ids that are not sampled."""
    file = io.BytesIO()
    Image.open(models.photograph()).save(file, "JPEG", quality=90)
    passed_over = (f"request-{n}" for n in itertools.count() if not chosen(f"request-{n}", _SAMPLED))
    (folder / "passed_over").mkdir()
    named = {f"passed_over/{n:03}": request_id for n, request_id in enumerate(itertools.islice(passed_over, _IDS))}
    for name, request_id in {"sampled": "", **named}.items():
        request = predict_request([file.getvalue()], (), top_k=None, ood=False, request_id=request_id)
        (folder / name).write_bytes(request.SerializeToString())
