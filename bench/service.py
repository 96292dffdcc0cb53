"""What the service adds to a prediction: a gRPC call minus the bare forward pass and the JPEG decoding in it."""

from __future__ import annotations

import asyncio
import io
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from bench import models
from bench.figure import Figure
from xai_sidecar.backends.loading import load_backend
from xai_sidecar.command.memory import keep_freed_memory
from xai_sidecar.command.server import Sidecar
from xai_sidecar.config import Config
from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.work import Forward
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.imaging import decode, prepare
from xai_sidecar.telemetry.logs import set_up_logs

_ROUNDS = 200

_CLIENT = """
import sys, time
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from xai_client import Client
health = health_pb2_grpc.HealthStub(grpc.insecure_channel(sys.argv[1]))
data = sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))
with Client(sys.argv[1]) as client:
    for _ in sys.stdin.buffer:
        started = time.perf_counter()
        client.predict(data)
        predicted = time.perf_counter()
        time.sleep(0.025)
        asked = time.perf_counter()
        health.Check(health_pb2.HealthCheckRequest())
        print(predicted - started, time.perf_counter() - asked, flush=True)
"""


def figures() -> list[Figure]:
    """Calls, forward passes and decodings take turns, so that all meet the same noise and the same caches.

    The calls come from a process of their own. The forward passes run on the server's own device thread, with nothing
    around them: those of another process would compete with the server's threads.
    """
    keep_freed_memory()
    set_up_logs("warning", "json")
    jpeg = io.BytesIO()
    Image.open(models.photograph()).save(jpeg, "JPEG", quality=90)
    data = jpeg.getvalue()
    calls: list[float] = []
    checks: list[float] = []
    forwards: list[float] = []
    decodings: list[float] = []
    with (
        models.sample_config(None) as (config, _),
        served_here(_quiet(config)) as server,
        _caller(server, data) as call,
    ):
        if server.engine is None:
            raise RuntimeError("the server has no engine")
        image = prepare(decode(data, 10**9), config.model.input.spec()).array[None]
        for _ in range(_ROUNDS):
            predicted, checked = call()
            calls.append(predicted)
            checks.append(checked)
            forwards.append(server.engine.submit(_bare(server, image), Lane.PREDICT).result().value)
            decodings.append(_timed(lambda: decode(data, 10**9)))
    overhead = 1e3 * (statistics.median(calls) - statistics.median(forwards) - statistics.median(decodings))
    note = (
        f"call {1e3 * statistics.median(calls):.1f}, forward {1e3 * statistics.median(forwards):.1f}, "
        f"decoding {1e3 * statistics.median(decodings):.1f} ms, medians; EfficientNet-Lite0"
    )
    empty = 1e3 * statistics.median(checks)
    return [
        Figure("a gRPC prediction minus forward pass and JPEG decoding", overhead, "ms", 3, note),
        Figure("of that, what any gRPC call costs", empty, "ms", note="a health check after as long a silence"),
    ]


def _quiet(config: Config) -> Config:
    """On free ports, with the one batch size that is needed, no explainers to compile and no evaluator beside."""
    server = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "log_level": "warning"}
    off = {name: {"enabled": False} for name in installed_explainers()}
    data = config.model_dump(exclude={"server", "explainers", "evaluator"}, exclude_unset=True)
    data["model"]["batch_sizes"] = [1]
    return Config.model_validate({**data, "server": server, "explainers": off})


@contextmanager
def served_here(config: Config) -> Iterator[Sidecar]:
    """Serves a config in a thread of this process."""
    ready = threading.Event()
    started: list[tuple[Sidecar, asyncio.AbstractEventLoop]] = []

    async def run() -> None:
        server = Sidecar(config, load_backend, handle_signals=False)
        started.append((server, asyncio.get_running_loop()))
        await server.run(on_ready=lambda _: ready.set())

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        if not ready.wait(300):
            raise RuntimeError("the server did not start")
        yield started[0][0]
    finally:
        server, loop = started[0]
        loop.call_soon_threadsafe(server.stop)
        thread.join()


@contextmanager
def _caller(server: Sidecar, data: bytes) -> Iterator:  # type: ignore[type-arg]
    """A process with a client; yields what has it make a call and a health check, and returns the seconds of each."""
    command = [sys.executable, "-c", _CLIENT, server.grpc_address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipes")
        process.stdin.write(f"{len(data)}\n".encode() + data)

        def call() -> tuple[float, ...]:
            process.stdin.write(b"go\n")
            process.stdin.flush()
            return tuple(map(float, process.stdout.readline().split()))

        yield call
        process.stdin.close()


def _bare(server: Sidecar, image):  # type: ignore[no-untyped-def]
    """A computation that is over at once, but times bare forward passes on the device thread as it runs."""
    backend = server.serving.model.backend
    return _timed(lambda: backend.run(Forward.kind, (image,)))
    yield


def _timed(function) -> float:  # type: ignore[no-untyped-def]
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
