"""Large JPEGs, decoded at a reduced scale: what a prediction costs, and how far answers are from exact decoding.

The large pictures are photographs enlarged, with noise for the detail that a camera would have found.
"""

from __future__ import annotations

import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench import models
from bench.figure import Figure
from bench.service import _quiet, served_here
from xai_sidecar.backends.graph.backend import GraphBackend
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.command.demo import demo_config
from xai_sidecar.command.memory import keep_freed_memory
from xai_sidecar.engine.batching import in_batches
from xai_sidecar.engine.work import FloatArray, Forward, drive, forward
from xai_sidecar.explainers.activations import ACTIVATIONS
from xai_sidecar.explainers.base import ModelFacts
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.imaging import read
from xai_sidecar.telemetry.logs import set_up_logs
from xai_sidecar.zoo.sample import sample_picture

_REFERENCES = ("chelsea", "coffee", "camera", "motorcycle_left")
_LARGE = ((3, 4, {}), (8, 6, {"progressive": True}), (12, 4, {}), (24, 8, {"subsampling": 0}), (12, 2, {"quality": 80}))
"""Megapixels, standard deviation of the noise, and how the JPEG is written: five of each of the four photographs."""

_BLOCK, _BLOCKS = 10, 5
_MOST_PIXELS = 10**9

_CLIENT = """
import sys
from pathlib import Path
from xai_client import Client
files = [Path(each).read_bytes() for each in sys.argv[2:]]
with Client(sys.argv[1]) as client:
    for line in sys.stdin:
        which, count = map(int, line.split())
        for _ in range(count):
            client.predict(files[which])
        print("done", flush=True)
"""


def figures() -> list[Figure]:
    """The CPU time of whole predictions in the server, and the answers of the sample classifier."""
    return [_cpu(), *_differences()]


def jpeg(name: str, megapixels: float | None = None, noise: float = 0.0, **options: Any) -> bytes:
    """A photograph as a JPEG, enlarged to so many megapixels if that is given."""
    picture = Image.open(sample_picture(name)).convert("RGB")
    if megapixels:
        factor = (megapixels * 1e6 / (picture.width * picture.height)) ** 0.5
        size = round(picture.width * factor), round(picture.height * factor)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    if noise:
        detail = np.random.default_rng(0).normal(0, noise, (picture.height, picture.width, 3)).astype(np.float32)
        picture = Image.fromarray(np.clip(np.asarray(picture) + detail, 0, 255).astype(np.uint8))
    out = io.BytesIO()
    picture.save(out, "JPEG", **{"quality": 90, **options})
    return out.getvalue()


def _cpu() -> Figure:
    """The server has this process, the client has another."""
    keep_freed_memory()
    set_up_logs("warning", "json")
    times: list[list[float]] = [[], []]
    with tempfile.TemporaryDirectory() as folder, models.sample_config(None) as (config, _):
        files = [Path(folder) / name for name in ("small.jpg", "large.jpg")]
        picture = Image.open(sample_picture("chelsea")).convert("RGB")
        small = picture.resize((512, round(512 * picture.height / picture.width)), Image.Resampling.LANCZOS)
        small.save(files[0], quality=90)
        files[1].write_bytes(jpeg("chelsea", 12, 4.0))
        with served_here(_quiet(config)) as server, _caller(server.grpc_address, files) as call:
            for which in (0, 1):
                call(which, _BLOCK)
            for _ in range(_BLOCKS):
                for which in (0, 1):
                    started = time.process_time()
                    call(which, _BLOCK)
                    times[which].append(1e3 * (time.process_time() - started) / _BLOCK)
        sizes = " and ".join(f"{file.stat().st_size / 1e6:.2f}" for file in files)
    small_ms, large_ms = map(statistics.median, times)
    ratio = statistics.median(large / small for small, large in zip(*times, strict=True))
    note = f"{large_ms:.1f} over {small_ms:.1f} ms of CPU in the server; {sizes} MB"
    return Figure("a prediction of a 12-megapixel JPEG over one of it at 512 pixels", ratio, "×", 3, note)


@contextmanager
def _caller(address: str, files: list[Path]) -> Iterator[Callable[[int, int], None]]:
    command = [sys.executable, "-c", _CLIENT, address, *map(str, files)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipes")
        stdin, stdout = process.stdin, process.stdout

        def call(which: int, count: int) -> None:
            stdin.write(f"{which} {count}\n")
            stdin.flush()
            if stdout.readline() != "done\n":
                raise RuntimeError("the client failed")

        yield call
        stdin.close()


def _differences() -> list[Figure]:
    answers = _Answers()
    large = [jpeg(name, *size, **options) for name in _REFERENCES for *size, options in _LARGE]
    found = [answers.compared(data) for data in [*map(jpeg, _REFERENCES), *large]]
    moved = max(each.pop("probabilities") for each in found)
    note = f"{moved:.4f}, the largest of four photographs and 20 large pictures; EfficientNet-Lite0"
    figures = [Figure("probabilities by exact decoding and by reduced, difference", moved, "", 0.01, note)]
    for name in found[0]:
        least, median = min(each[name] for each in found), statistics.median(each[name] for each in found)
        note = f"{least:.4f}, the least of 24; median {median:.4f}"
        bar = None if name == "gradient" else 0.99
        if bar is None:
            note += "; one value of a hundred that is rounded otherwise leaves 0.92 to 0.96"
        figures.append(Figure(f"correlation of {name}'s maps", least, "", None, note, bar))
    return figures


class _Answers:
    """The sample classifier, and what it says of a file that is decoded either way."""

    def __init__(self) -> None:
        config = demo_config([], lambda line: None)
        if config.model.onnx is None:
            raise ValueError("the sample classifier is an ONNX file")
        self._spec = config.model.input.spec()
        backend = GraphBackend(GraphSource(config.model.onnx, batch_sizes=(1,)))
        facts = ModelFacts(224, 224, backend.layers, backend.default_layer, False, self._spec.units)
        values: dict[str, dict[str, Any]] = {
            "gradcam": {},
            "occlusion": {"window_size": 32, "stride": 32},
            "rise": {"masks": 64},
            "gradient": {},
        }
        explainers = installed_explainers()
        self._calls = {
            name: (explainers[name], explainers[name].resolve(explainers[name].parameters_type(**given), facts))
            for name, given in values.items()
        }
        kinds = [Forward.kind, *(one.kind(parameters) for one, parameters in self._calls.values())]
        backend.warm_up(list(dict.fromkeys(kinds)), lambda line: None)
        self._run = in_batches(backend.run, 1)

    def compared(self, data: bytes) -> dict[str, float]:
        """The largest difference of a probability, and the correlation of each explainer's maps."""
        exact, reduced = (
            read(data, spec, _MOST_PIXELS).array for spec in (replace(self._spec, exact_decoding=True), self._spec)
        )
        one, other = (ACTIVATIONS["softmax"](drive(forward(each[None]), self._run)[0]) for each in (exact, reduced))
        target = np.array([int(one.argmax())], np.int32)
        maps = {name: [self._map(name, each, target) for each in (exact, reduced)] for name in self._calls}
        correlations = {name: float(np.corrcoef(*(each.ravel() for each in two))[0, 1]) for name, two in maps.items()}
        return {"probabilities": float(np.abs(one - other).max()), **correlations}

    def _map(self, name: str, image: FloatArray, target: np.ndarray[Any, Any]) -> FloatArray:
        explainer, parameters = self._calls[name]
        return np.asarray(drive(explainer.explain(image, target, parameters), self._run).maps[0])
