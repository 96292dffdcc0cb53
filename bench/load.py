"""The server under load from other processes: predictions beside long explanations, throughput, cancelled calls.

The server runs in this process, so that the bare passes that it is compared with run on its own device thread. The
clients share the CPUs with it, which remote ones would not.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench import models
from bench.figure import Figure, ratio
from bench.load_client import LoadClient, load_client
from bench.metrics import read_metrics
from bench.service import served_here
from xai_client import Explain
from xai_client.request import predict_request
from xai_sidecar.command.memory import keep_freed_memory
from xai_sidecar.command.server import Sidecar
from xai_sidecar.config import Config
from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.work import Array, Forward, Kind, MaskedForward
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.imaging import decode, prepare
from xai_sidecar.telemetry.logs import set_up_logs

_ROUNDS = 3
_OPEN_SECONDS = 15.0
_EXPLAIN_SECONDS = 6.0
_FLOOD_SECONDS = 3.0
_SETTLE_SECONDS = 1.0

_SHARE = 0.3
"""Of what the device can do, as predictions that arrive while their latency is measured."""

_EXPLAIN_CALLERS = 8
_PREDICT_CALLERS = 32
_CANCELS = 20
_CANCEL_SECONDS = 0.5


@dataclass
class _Bench:
    """A server with two client processes, and how long a launch beside predictions may be."""

    server: Sidecar
    one: LoadClient
    other: LoadClient
    slice_seconds: float

    @property
    def backend(self) -> Any:
        """The server's."""
        return self.server.serving.model.backend  # type: ignore[union-attr]

    def bare(self, kind: Kind, rows: tuple[Array, ...], seconds: float = _FLOOD_SECONDS) -> float:
        """Rows per second of launch after launch on the device thread, with nothing around them."""

        def steps() -> Any:
            started, count = time.perf_counter(), 0
            while (passed := time.perf_counter() - started) < seconds:
                self.backend.run(kind, rows)
                count += len(rows[0])
            return count / passed
            yield

        return self.server.engine.submit(steps(), Lane.PREDICT).result().value  # type: ignore[union-attr]

    def best(self, kind: Kind, rows: Callable[[int], tuple[Array, ...]], longest: float) -> tuple[Array, ...]:
        """The rows of the launch that gets the most rows done per second and takes no longer; or else a single one."""
        rates = {size: self.bare(kind, rows(size), 1.0) for size in self.backend.costs(kind)}
        fitting = [size for size in rates if size / rates[size] <= longest] or [1]
        return rows(max(fitting, key=lambda size: rates[size]))

    def wait_until_idle(self) -> None:
        """Until no call is open, and a launch that was under way is over."""
        while read_metrics(self.server.http_address)["xai_open_images",]:
            time.sleep(0.02)
        time.sleep(0.3)

    @contextmanager
    def masked_launches(self) -> Iterator[list[tuple[float, float, int]]]:
        """Notes of every launch of masked passes when it began and ended, by `time.monotonic`, and its rows."""
        noted: list[tuple[float, float, int]] = []
        run = self.backend.run

        def noting(kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
            started = time.monotonic()
            outputs = run(kind, rows)
            if kind == MaskedForward.kind:
                noted.append((started, time.monotonic(), len(rows[0])))
            return outputs

        self.backend.run = noting
        try:
            yield noted
        finally:
            self.backend.run = run


def figures() -> list[Figure]:
    """All on EfficientNet-Lite0; phases that are compared take turns."""
    keep_freed_memory()
    set_up_logs("warning", "json")
    with ExitStack() as stack:
        config, _ = stack.enter_context(models.sample_config(None))
        config = with_rise_alone(config)
        server = stack.enter_context(served_here(config))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        decoding = _write_requests(folder, config)
        one, other = (stack.enter_context(load_client(server.grpc_address, folder)) for _ in range(2))
        bench = _Bench(server, one, other, config.server.slice_milliseconds / 1e3)
        one.ask("closed_loop", "jpeg", callers=8, settle=0, seconds=2)()
        bench.wait_until_idle()
        return [*_latency(bench, decoding), *_explaining(bench), *_predicting(bench, decoding), *_cancelling(bench)]


def _latency(bench: _Bench, decoding: float) -> list[Figure]:
    rate = _SHARE * max(size / seconds for size, seconds in bench.backend.costs(Forward.kind).items())
    taken: dict[bool, list[Any]] = {False: [], True: []}
    late: dict[bool, list[float]] = {False: [], True: []}
    passes = []
    with bench.masked_launches() as launches:
        for number in range(_ROUNDS):
            for beside in (False, True):
                seconds = _SETTLE_SECONDS + _OPEN_SECONDS
                callers = bench.other.ask(
                    "closed_loop", "rise", callers=beside * _EXPLAIN_CALLERS, settle=0, seconds=seconds
                )
                time.sleep(_SETTLE_SECONDS)
                found = bench.one.ask("open_loop", "jpeg", rate=rate, seconds=_OPEN_SECONDS, seed=number)()
                taken[beside].append(1e3 * np.asarray(found["taken"]))
                late[beside] += found["late"]
                callers()
                bench.wait_until_idle()
            passes.append(1 / bench.bare(Forward.kind, (models.image()[None],), 1.0))
    bare = statistics.median(passes)

    def told(beside: bool) -> str:
        rounds = ", ".join(f"{np.percentile(one, 99):.0f}" for one in taken[beside])
        return f"by round {rounds} ms; the client sent late by {1e3 * np.percentile(late[beside], 99):.1f} ms, p99"

    def median(beside: bool, percentile: int) -> float:
        return statistics.median(float(np.percentile(one, percentile)) for one in taken[beside])

    alone99, beside99 = median(False, 99), median(True, 99)
    arrivals = f"{rate:.0f} JPEGs/s at random times, {_SHARE:.0%} of what the device can do; {len(late[False])} calls; "
    arrivals += f"the bare pass takes {1e3 * bare:.1f} ms, decoding and preparing {1e3 * decoding:.1f}"
    slice_, row = 1e3 * bench.slice_seconds, 1e3 * bench.backend.costs(MaskedForward.kind)[1]
    longest = 1e3 * max(end - start for start, end, _ in launches)
    uncut = ", which cannot be cut" if row > slice_ else ""
    difference = beside99 - alone99
    slices = f"{difference / slice_:.2f} slices of {slice_:g} ms"
    note = f"{slices}; a row takes {row:.0f} ms{uncut}, the longest launch took {longest:.0f}"
    return [
        Figure("prediction alone, p50", median(False, 50), "ms", 1e3 * (bare + decoding) + 5, note=arrivals),
        Figure("prediction alone, p99", alone99, "ms", note=told(False)),
        Figure(f"prediction beside {_EXPLAIN_CALLERS} callers of 4,000-mask RISEs, p50", median(True, 50), "ms"),
        Figure("the same, p99", beside99, "ms", note=told(True)),
        Figure("p99 beside RISEs over p99 alone", beside99 / alone99, "×"),
        Figure("p99 beside RISEs minus p99 alone", difference, "ms", 2 * slice_, note),
    ]


def _explaining(bench: _Bench) -> list[Figure]:
    masks = np.random.default_rng(0).random((max(bench.backend.costs(MaskedForward.kind)), 224, 224), np.float32)
    best = bench.best(
        MaskedForward.kind, lambda size: MaskedForward(models.image(), masks[:size]).rows, bench.slice_seconds
    )

    def masked_rows() -> float:
        return read_metrics(bench.server.http_address)["xai_launch_rows_total", MaskedForward.kind.name]

    served, bare = [], []
    for _ in range(_ROUNDS):
        seconds = 2 * _SETTLE_SECONDS + _EXPLAIN_SECONDS
        callers = bench.other.ask("closed_loop", "rise", callers=_EXPLAIN_CALLERS, settle=0, seconds=seconds)
        time.sleep(_SETTLE_SECONDS)
        before, started = masked_rows(), time.perf_counter()
        time.sleep(_EXPLAIN_SECONDS)
        served.append((masked_rows() - before) / (time.perf_counter() - started))
        callers()
        bench.wait_until_idle()
        bare.append(bench.bare(MaskedForward.kind, best))
    note = f"{_over(served, bare)} rows/s; {_EXPLAIN_CALLERS} callers, bare launches of {len(best[0])}"
    return [Figure("masked passes of RISEs over the bare engine's", ratio(served, bare), "×", note=note, at_least=0.9)]


def _predicting(bench: _Bench, decoding: float) -> list[Figure]:
    best = bench.best(Forward.kind, lambda size: (np.repeat(models.image()[None], size, axis=0),), float("inf"))
    forms = ("float32", "jpeg")
    rates, clients, server = ({form: [] for form in forms} for _ in range(3))  # type: ignore[var-annotated]
    bare, beside = [], []
    for _ in range(_ROUNDS):
        for form in forms:
            values = {"callers": _PREDICT_CALLERS, "settle": _SETTLE_SECONDS, "seconds": _FLOOD_SECONDS}
            used, started = time.process_time(), time.perf_counter()
            found = bench.one.ask("closed_loop", form, **values)()
            server[form].append((time.process_time() - used) / (time.perf_counter() - started) / found["rate"])
            clients[form].append(found["cpu"] / found["rate"])
            rates[form].append(found["rate"])
            bench.wait_until_idle()
        bare.append(bench.bare(Forward.kind, best))
        cpu = clients["float32"][-1] * rates["float32"][-1]
        burner = bench.one.ask("burn", "float32", cpu=cpu, seconds=_FLOOD_SECONDS)
        beside.append(bench.bare(Forward.kind, best))
        burner()

    def told(form: str, other: list[float]) -> str:
        server_cpu, client_cpu = (1e3 * statistics.median(each[form]) for each in (server, clients))
        cpu = f"{server_cpu:.1f} ms in the server, {client_cpu:.1f} in the client"
        return f"{_over(rates[form], other)}/s; CPU time of each: {cpu}"

    name = "predictions at saturation over the bare pass"
    note = f"{told('float32', bare)}; {_PREDICT_CALLERS} callers, bare launches of {len(best[0])}"
    aside = f"{_over(rates['float32'], beside)}/s: the bare pass beside a process that takes as much CPU as the client"
    jpeg = f"{told('jpeg', bare)}; decoding takes {1e3 * decoding:.1f} ms of a CPU"
    return [
        Figure(f"{name}, float32 model inputs", ratio(rates["float32"], bare), "×", note=note, at_least=0.85),
        Figure("the same with the client's CPU time set aside", ratio(rates["float32"], beside), "×", note=aside),
        Figure(f"{name}, JPEGs", ratio(rates["jpeg"], bare), "×", note=jpeg),
    ]


def _cancelling(bench: _Bench) -> list[Figure]:
    counts, rows, seconds = [], [], []
    busy = bench.other.ask("burn", "float32", cpu=0.9, seconds=_CANCELS * (_CANCEL_SECONDS + 0.5))
    for _ in range(_CANCELS):
        with bench.masked_launches() as launches:
            when = bench.one.ask("cancelled", "long", after=_CANCEL_SECONDS)()
            bench.wait_until_idle()
        after = [count for start, _, count in launches if start > when]
        counts.append(len(after))
        rows.append(sum(after))
        seconds.append(max(0.0, launches[-1][1] - when))
    busy()
    free = f"{1e3 * statistics.median(seconds):.0f} ms after it, {1e3 * max(seconds):.0f} at most"
    note = (
        f"the most of {_CANCELS}, {max(rows)} rows; {statistics.mean(counts):.2f} in the mean; after the client's "
        f"cancel, so that its way to the server counts, too; beside a busy process; the device was free {free}"
    )
    return [Figure("launches begun after a RISE was cancelled", max(counts), "", 1, note)]


def _over(values: list[float], others: list[float]) -> str:
    return f"{statistics.median(values):.0f} of {statistics.median(others):.0f}"


def with_rise_alone(config: Config) -> Config:
    """On free ports, with no other explainer to compile, and without the demo's evaluator, which uses all idle time."""
    server = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "log_level": "warning"}
    off = {name: {"enabled": False} for name in installed_explainers() if name != "rise"}
    data = config.model_dump(exclude={"server", "explainers", "evaluator"}, exclude_unset=True)
    return Config.model_validate({**data, "server": server, "explainers": off})


def _write_requests(folder: Path, config: Config) -> float:
    """A file for each request that clients send; returns the seconds that decoding the picture takes."""
    file = io.BytesIO()
    Image.open(models.photograph()).save(file, "JPEG", quality=90)
    jpeg = file.getvalue()
    seconds = []
    for _ in range(50):
        started = time.perf_counter()
        array = prepare(decode(jpeg, 10**9), config.model.input.spec()).array
        seconds.append(time.perf_counter() - started)
    requests: dict[str, Any] = {
        "jpeg": (jpeg, ()),
        "float32": (array, ()),
        "rise": (jpeg, Explain("rise", masks=4000)),
        "long": (jpeg, Explain("rise", masks=100_000)),
    }
    for name, (image, explain) in requests.items():
        request = predict_request([image], explain, top_k=None, ood=False, request_id="")
        (folder / name).write_bytes(request.SerializeToString())
    return statistics.median(seconds)
