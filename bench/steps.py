"""Where the time of a prediction goes: the steps of its trace, alone and beside other work."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench import models
from bench.load_client import load_client
from xai_client import Explain
from xai_client.request import predict_request
from xai_sidecar.command.server import Sidecar
from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.trace import STEPS, Trace
from xai_sidecar.engine.work import Forward
from xai_sidecar.explainers.rise import Rise, RiseParameters

_SECONDS = 5.0
_SHARE = 0.3
_ALONE_PER_SECOND = 10
_CALLERS = 8


class Collector:
    """Collects the traces of predictions while it is on.

    Attributes:
        on: Whether calls are traced.
        traces: Those that have ended.
    """

    def __init__(self) -> None:
        self.on = False
        self.traces: list[Trace] = []

    def begin(self, method: str, metadata: Mapping[str, Any]) -> Trace | None:
        """See `Tracer.begin`."""
        return Trace(method) if self.on else None

    def ended(self, trace: Trace) -> None:
        """See `Tracer.ended`; leaves explanations out."""
        if any(step.name == "answer" for step in trace.steps) and not any(s.name == "explain" for s in trace.steps):
            self.traces.append(trace)


def steps_table(server: Sidecar, collector: Collector, jpeg: bytes) -> str:
    """Medians and 99th percentiles of the steps, in milliseconds: alone, at some load, beside RISE and evaluation."""
    pass_seconds = min(server.serving.model.backend.costs(Forward.kind).values())  # type: ignore[union-attr]
    rate = _SHARE / pass_seconds
    columns: dict[str, tuple[list[Trace], list[float]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, explain in (("jpeg", ()), ("rise", Explain("rise", masks=4000))):
            request = predict_request([jpeg], explain, top_k=None, ood=False, request_id="")
            (folder / name).write_bytes(request.SerializeToString())
        one, other = (stack.enter_context(load_client(server.grpc_address, folder)) for _ in range(2))

        def measured(name: str, rate: float) -> None:
            collector.traces, collector.on = [], True
            found = one.ask("open_loop", "jpeg", rate=rate, seconds=_SECONDS, seed=0)()
            collector.on = False
            columns[name] = collector.traces, found["taken"]

        one.ask("closed_loop", "jpeg", callers=1, settle=0, seconds=1)()
        measured("alone", _ALONE_PER_SECOND)
        measured(f"{_SHARE:.0%} load", rate)
        rises = other.ask("closed_loop", "rise", callers=_CALLERS, settle=0, seconds=_SECONDS + 1)
        measured("beside RISE", rate)
        rises()
        with _evaluating(server):
            measured("beside evaluation", rate)
    return _table(columns)


@contextmanager
def _evaluating(server: Sidecar) -> Iterator[None]:
    """Two RISEs in the lane of the evaluator, as it has two instances in progress."""
    rise = Rise()
    parameters = rise.resolve(RiseParameters(masks=100_000), server.serving.model.facts)  # type: ignore[union-attr]
    target = np.array([0], np.int32)
    jobs = [
        server.engine.submit(rise.explain(models.image(), target, parameters), Lane.EVALUATE)  # type: ignore[union-attr]
        for _ in range(2)
    ]
    try:
        yield
    finally:
        for job in jobs:
            job.cancel()


def _table(columns: dict[str, tuple[list[Trace], list[float]]]) -> str:
    rows = [("step, ms: p50 / p99", *columns)]
    for step in STEPS:
        taken = [[s.seconds for t in traces for s in t.steps if s.name == step] for traces, _ in columns.values()]
        if any(taken):
            rows.append((step, *map(_cell, taken)))
    rows.append(("in the server", *(_cell([t.last - t.started for t in traces]) for traces, _ in columns.values())))
    rows.append(("at the client", *(_cell(taken) for _, taken in columns.values())))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _cell(seconds: list[float]) -> str:
    if not seconds:
        return "–"
    ordered = sorted(seconds)
    high = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return f"{1e3 * statistics.median(ordered):.2f} / {1e3 * high:.2f}"
