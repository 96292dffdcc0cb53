"""A real Triton beside this server: the same ONNX file under ONNX Runtime with as many threads, float32 inputs.

Triton comes from PyPI's nvidia-pytriton, in an environment of its own, with onnxruntime and tritonclient[grpc]; the
variable TRITON_ENVIRONMENT names its folder. Its Python backend runs ONNX Runtime, with dynamic batching. Both servers
are processes, as are their clients: tritonclient there, our SDK here. They take turns, so that both meet the same
noise.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench import models
from bench.figure import Figure, ratio
from bench.server import served
from bench.upstreams.servers import triton

VARIABLE = "TRITON_ENVIRONMENT"
_ROUNDS = 5
_CALLS = 40
_CALLERS = 8
_SECONDS = 3.0

_CALLING = """
import json, sys, threading, time
import numpy as np

address = sys.argv[1]
image = np.load(sys.argv[2])
{make}

def unary(count):
    taken = []
    for _ in range(count):
        time.sleep(0.01)
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return taken

def saturation(callers, seconds):
    end, counts = time.perf_counter() + seconds, [0] * callers
    def run(index):
        while time.perf_counter() < end:
            call()
            counts[index] += 1
    threads = [threading.Thread(target=run, args=(index,)) for index in range(callers)]
    started = time.perf_counter()
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return sum(counts) / (time.perf_counter() - started)

for line in sys.stdin:
    name, *values = json.loads(line)
    print(json.dumps({{"unary": unary, "saturation": saturation}}[name](*values)), flush=True)
"""

_OURS = """
from xai_client import Client
client = Client(address)
def call():
    client.predict(image)
"""

_TRITONS = """
import tritonclient.grpc as triton
client = triton.InferenceServerClient(address)
def call():
    given = triton.InferInput("inputs", [1, *image.shape], "FP32")
    given.set_data_from_numpy(image[None])
    client.infer("model", [given]).as_numpy("logits")
"""


def figures() -> list[Figure]:
    """Unary latency and saturation, round by round."""
    environment = os.environ.get(VARIABLE)
    if not environment:
        print(f"triton: skipped, since {VARIABLE} names no environment with nvidia-pytriton", file=sys.stderr)
        return []
    with ExitStack() as stack:
        config, file = stack.enter_context(models.sample_config(None))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        image = folder / "image.npy"
        np.save(image, models.image())
        upstream = stack.enter_context(triton(Path(environment), Path(str(config.model.onnx)), folder))
        theirs_at = f"127.0.0.1:{upstream.grpc}"
        file.write_text(file.read_text().replace("[model]\n", '[model]\nforward_engine = "onnxruntime"\n', 1))
        ours_at, _, _ = stack.enter_context(served(file))
        ours = stack.enter_context(_client(Path(sys.executable), _OURS, ours_at, image))
        theirs = stack.enter_context(_client(_python(Path(environment)), _TRITONS, theirs_at, image))
        for ask in (ours, theirs):
            ask("unary", 10)
            ask("saturation", _CALLERS, 1.0)
        latencies: tuple[list[float], ...] = ([], [])
        rates: tuple[list[float], ...] = ([], [])
        for _ in range(_ROUNDS):
            for index, ask in enumerate((ours, theirs)):
                latencies[index].append(1e3 * statistics.median(ask("unary", _CALLS)))
            for index, ask in enumerate((ours, theirs)):
                rates[index].append(ask("saturation", _CALLERS, _SECONDS))
    shown = " of ".join(f"{statistics.median(each):.1f}" for each in latencies)
    saturated = " of ".join(f"{statistics.median(each):.0f}" for each in rates)
    return [
        Figure("unary latency over Triton's", ratio(*latencies), "×", 1.0, f"{shown} ms, float32 inputs"),
        Figure("saturation over Triton's", ratio(*rates), "×", note=f"{saturated}/s, {_CALLERS} callers", at_least=1.0),
    ]


def _python(environment: Path) -> Path:
    return environment / "bin" / "python"


@contextmanager
def _client(python: Path, make: str, address: str, image: Path) -> Iterator[Callable[..., Any]]:
    """A client process; yields what has it run `unary` or `saturation`."""
    # Neither this process's path nor its packages are for another environment.
    variables = dict(os.environ) if str(python) == sys.executable else {**os.environ, "PYTHONPATH": ""}
    command = [python, "-c", _CALLING.format(make=make), address, image]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables) as process:

        def ask(*order: object) -> Any:
            print(json.dumps(order), file=process.stdin, flush=True)
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise RuntimeError("a client process failed; it has said why")
            return json.loads(line)

        try:
            yield ask
        finally:
            process.kill()
