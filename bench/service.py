"""What the service adds to a prediction: a gRPC call minus the bare forward pass and the JPEG decoding in it."""

from __future__ import annotations

import asyncio
import io
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from PIL import Image

from bench import models
from bench.figure import Figure
from bench.steps import Collector, steps_table
from xai_sidecar.backends.loading import load_backend
from xai_sidecar.command.environment import keep_for_good
from xai_sidecar.command.memory import keep_freed_memory
from xai_sidecar.command.server import Sidecar
from xai_sidecar.config import Config
from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.work import Forward
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.imaging import decode, prepare
from xai_sidecar.telemetry.logs import set_up_logs
from xai_sidecar.telemetry.tracing import Tracer

_ROUNDS = 100
_BLOCK = 50
_BLOCKS = 4
_PAUSE = 0.01

_CLIENT = """
import sys, time
import grpc
from xai_client import Client
data = sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))
empty = grpc.insecure_channel(sys.argv[2]).unary_unary("/bench/Empty")
with Client(sys.argv[1]) as client:
    calls = {b"predict": lambda: client.predict(data), b"empty": lambda: empty(b"")}
    for line in sys.stdin.buffer:
        name, count, pause = line.split()
        taken = []
        for _ in range(int(count)):
            time.sleep(float(pause))
            started = time.perf_counter()
            calls[name]()
            taken.append(time.perf_counter() - started)
        print(*taken, flush=True)
"""


def figures() -> list[Figure]:
    """Calls, forward passes and decodings take turns, so that all meet the same noise and the same caches.

    The calls come from a process of their own. The forward passes run on the server's own device thread, with nothing
    around them: those of another process would compete with the server's threads. Prints the steps of a prediction,
    too.
    """
    keep_freed_memory()
    set_up_logs("warning", "json")
    jpeg = io.BytesIO()
    Image.open(models.photograph()).save(jpeg, "JPEG", quality=90)
    data = jpeg.getvalue()
    collector = Collector()
    with (
        models.sample_config(None) as (config, _),
        served_here(_quiet(config), collector) as server,
        _empty_server() as empty,
        _caller(server, empty, data) as call,
    ):
        if server.engine is None:
            raise RuntimeError("the server has no engine")
        inputs = config.model.input.spec()
        image = prepare(decode(data, 10**9), inputs).array[None]

        def bare(clock: Callable[[], float]) -> float:
            return server.engine.submit(_bare(server, image, clock), Lane.PREDICT).result().value  # type: ignore[union-attr]

        latency = _latency(call, collector)
        cpu = _cpu(call, bare, lambda: prepare(decode(data, 10**9), inputs))
        print(f"\n{steps_table(server, collector, data)}", flush=True)
    return [*latency, *cpu]


def _latency(call: _Call, collector: Collector) -> list[Figure]:
    """Of each call what its own pass and decoding leave, which a pass at another time would not tell."""
    calls, checks, collector.on = [], [], True
    for _ in range(_ROUNDS):
        calls += call("predict", 1, 0.025)
        checks += call("empty", 1, 0.025)
    collector.on = False
    steps = [{step.name: step.seconds for step in trace.steps} for trace in collector.traces]
    beyond = [taken - each["pass"] - each["decode"] for taken, each in zip(calls, steps, strict=True)]
    forwards, decodings = ([each[name] for each in steps] for name in ("pass", "decode"))
    whole, forward, decoding = (1e3 * statistics.median(each) for each in (calls, forwards, decodings))
    note = f"call {whole:.1f}, pass {forward:.1f}, decoding {decoding:.1f} ms, medians; EfficientNet-Lite0"
    empty = 1e3 * statistics.median(checks)
    return [
        Figure("a gRPC prediction minus its pass and JPEG decoding", 1e3 * statistics.median(beyond), "ms", 3, note),
        Figure("of that, what any gRPC call costs", empty, "ms", note="an empty call after as long a silence"),
    ]


def _cpu(call: _Call, bare: _Bare, decoded: Callable[[], object]) -> list[Figure]:
    """CPU time of this process for predictions, and for empty calls, with equal pauses between them."""

    def of(name: str) -> float:
        started = time.process_time()
        call(name, _BLOCK, _PAUSE)
        return 1e3 * (time.process_time() - started) / _BLOCK

    calls, checks, forwards, decodings = [], [], [], []
    for _ in range(_BLOCKS):
        calls.append(of("predict"))
        checks.append(of("empty"))
        for _ in range(_BLOCK // 2):
            time.sleep(_PAUSE)
            forwards.append(1e3 * bare(time.process_time))
            decodings.append(1e3 * _timed(decoded, time.thread_time))
    whole, forward, decoding, empty = map(statistics.median, (calls, forwards, decodings, checks))
    note = f"call {whole:.2f}, forward {forward:.2f}, decoding and preparing {decoding:.2f}, empty call {empty:.2f} ms"
    name = "CPU time of a prediction in the server beyond pass and decoding"
    return [Figure(name, whole - forward - decoding, "ms", 0.8 * empty + 0.5, note)]


def _quiet(config: Config) -> Config:
    """On free ports, no explainer to compile but RISE, and no evaluator beside."""
    server = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "log_level": "warning"}
    off = {name: {"enabled": False} for name in installed_explainers() if name != "rise"}
    data = config.model_dump(exclude={"server", "explainers", "evaluator"}, exclude_unset=True)
    return Config.model_validate({**data, "server": server, "explainers": off})


@contextmanager
def served_here(config: Config, tracer: Tracer | None = None) -> Iterator[Sidecar]:
    """Serves a config in a thread of this process, which traces predictions if it is given a tracer."""
    ready = threading.Event()
    started: list[tuple[Sidecar, asyncio.AbstractEventLoop]] = []

    def is_ready(_: Sidecar) -> None:
        keep_for_good()  # as the command line has it
        ready.set()

    async def run() -> None:
        server = Sidecar(config, load_backend, handle_signals=False, tracer=tracer)
        started.append((server, asyncio.get_running_loop()))
        await server.run(on_ready=is_ready)

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
def _empty_server() -> Iterator[str]:
    """A server of grpc.aio in a thread of this process, whose only call does nothing; yields its address."""
    ready: queue.SimpleQueue[tuple[str, Any, Any]] = queue.SimpleQueue()

    async def empty(_: bytes, context: Any) -> bytes:
        return b""

    async def run() -> None:
        handlers = {"Empty": grpc.unary_unary_rpc_method_handler(empty)}
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stop = asyncio.Event()
        ready.put((f"127.0.0.1:{port}", asyncio.get_running_loop(), stop))
        await stop.wait()
        await server.stop(0)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    address, loop, stop = ready.get()
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


_Call = Callable[[str, int, float], list[float]]
_Bare = Callable[[Callable[[], float]], float]


@contextmanager
def _caller(server: Sidecar, empty: str, data: bytes) -> Iterator[_Call]:
    """A process with a client; yields what has it make so many calls with pauses, and returns the seconds of each."""
    command = [sys.executable, "-c", _CLIENT, server.grpc_address, empty]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipes")
        process.stdin.write(f"{len(data)}\n".encode() + data)

        def call(name: str, count: int, pause: float) -> list[float]:
            process.stdin.write(f"{name} {count} {pause}\n".encode())
            process.stdin.flush()
            return [float(seconds) for seconds in process.stdout.readline().split()]

        yield call
        process.stdin.close()


def _bare(server: Sidecar, image, clock):  # type: ignore[no-untyped-def]
    """A computation that is over at once, but times bare forward passes on the device thread as it runs."""
    backend = server.serving.model.backend
    return _timed(lambda: backend.run(Forward.kind, (image,)), clock)
    yield


def _timed(function, clock) -> float:  # type: ignore[no-untyped-def]
    started = clock()
    function()
    return clock() - started
