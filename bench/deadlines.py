"""Crowds of callers with a deadline: how much of the device's time goes into explanations that are delivered.

The server runs in this process, with the sample classifier's EfficientNet-Lite0; the callers are another process, come
all at once, and do not come back when they are refused.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import models
from bench.figure import Figure
from bench.load import with_rise_alone
from bench.load_client import LoadClient, load_client
from bench.metrics import read_metrics
from bench.service import served_here
from xai_client import Explain
from xai_client.request import predict_request
from xai_sidecar.command.memory import keep_freed_memory
from xai_sidecar.command.server import Sidecar
from xai_sidecar.engine.work import MaskedForward
from xai_sidecar.telemetry.logs import set_up_logs

_CROWDS = (6, 12, 20)
_TIMEOUT_SECONDS = 30.0
_SETTLE_SECONDS = 1.0


@dataclass
class _Crowd:
    """What became of a crowd.

    Attributes:
        calls: Of each caller the seconds, the status code, the passes and whether there is a map.
        rows: Rows that the device ran for explanations.
        seconds: From the first call until the last was answered.
    """

    calls: list[dict[str, Any]]
    rows: float
    seconds: float

    @property
    def delivered(self) -> list[dict[str, Any]]:
        """The calls that got a map."""
        return [call for call in self.calls if call["maps"]]

    @property
    def refused(self) -> list[dict[str, Any]]:
        """The calls that were told to come back."""
        return [call for call in self.calls if call["code"] == "RESOURCE_EXHAUSTED"]


def figures() -> list[Figure]:
    """Of each crowd the share of the passes that were delivered, and how soon the others knew."""
    keep_freed_memory()
    set_up_logs("warning", "json")
    with ExitStack() as stack:
        config, _ = stack.enter_context(models.sample_config(None))
        server = stack.enter_context(served_here(with_rise_alone(config)))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        request = predict_request([models.photograph()], Explain("rise"), top_k=None, ood=False, request_id="")
        (folder / "rise").write_bytes(request.SerializeToString())
        client = stack.enter_context(load_client(server.grpc_address, folder))
        client.ask("cancelled", "rise", after=_SETTLE_SECONDS)()  # the first call connects, and is slower
        time.sleep(_SETTLE_SECONDS)
        return [figure for callers in _CROWDS for figure in _figures(server, callers, _crowd(server, client, callers))]


def _crowd(server: Sidecar, client: LoadClient, callers: int) -> _Crowd:
    def rows() -> float:
        return read_metrics(server.http_address)["xai_launch_rows_total", MaskedForward.kind.name]

    before, started = rows(), time.monotonic()
    calls = client.ask("crowd", "rise", callers=callers, timeout=_TIMEOUT_SECONDS)()
    seconds = time.monotonic() - started
    time.sleep(_SETTLE_SECONDS)
    return _Crowd(calls, rows() - before, seconds)


def _figures(server: Sidecar, callers: int, crowd: _Crowd) -> list[Figure]:
    delivered, refused = crowd.delivered, crowd.refused
    complete = sum(call["complete"] for call in delivered)
    rate = server.engine.explaining_seconds("rise", MaskedForward.kind, 1)  # type: ignore[union-attr]
    note = (
        f"{complete} complete, {len(delivered) - complete} cut short, {len(refused)} refused, "
        f"{callers - len(delivered) - len(refused)} failed; all was over after {crowd.seconds:.1f} s, and a mask takes "
        f"{1e3 * rate:.1f} ms"
    )
    share = sum(call["passes"] for call in delivered) / max(1.0, crowd.rows)
    knew = sorted(1e3 * call["seconds"] for call in refused) or [0.0]
    who = f"{callers} callers of RISE with {_TIMEOUT_SECONDS:g} s"
    return [
        Figure(f"{who}: passes that were delivered over those that ran", share, "×", note=note, at_least=0.9),
        Figure("the last of those refused knew after", knew[-1], "ms", 100, f"the first after {knew[0]:.0f} ms"),
    ]
