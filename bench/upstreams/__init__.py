"""Models on servers of others, explained from outside: the same maps as here, and as many masks as batches alone.

Triton (from PyPI's nvidia-pytriton), MLServer and KServe's model server each serve the sample classifier's ONNX file
under ONNX Runtime, from an environment of their own; `make upstreams` makes these. The variable UPSTREAMS names the
folder that they are in. The peer of speed is a process that only sends ready-made batches, as many at once as suits the
server best.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench import models
from bench.figure import Figure, MissingError, ratio
from bench.server import served
from bench.upstreams.batches import sending
from bench.upstreams.servers import SERVERS, Upstream
from xai_client import Client, Explain

VARIABLE = "UPSTREAMS"
_ROUNDS = 3
_SECONDS = 2.5
_TRIAL_SECONDS = 1.0
_SIZES = (1, 2, 4, 8)
_AT_ONCE = (2, 4)
_MASKS = 300
_ROUNDING = 1e-4
"""Difference of two maps in float32, as a part of the range of one."""

_EXPLAIN = (Explain("rise", masks=_MASKS, seed=7), Explain("occlusion"))


def figures() -> list[Figure]:
    """Differences of maps and rates of masks, by each of the servers that has an environment."""
    found = [name for name in SERVERS if (_environments() / name / "bin" / "python").exists()]
    if not found:
        raise MissingError(f"{_environments()} has no environment of a server. Run make upstreams.")
    with models.sample_config(None) as (config, file):
        plain = file.read_text().replace("[model]\n", '[model]\nforward_engine = "onnxruntime"\n', 1)
        plain += '[explainers]\nprecision = "float32"\n'
        ours = _maps(file.with_name("here.toml"), plain)
        return [figure for name in found for figure in _of(name, Path(str(config.model.onnx)), file, ours)]


def _environments() -> Path:
    return Path(os.environ.get(VARIABLE, ".venv-upstreams")).absolute()


def _of(name: str, onnx: Path, file: Path, ours: dict[str, np.ndarray]) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder, SERVERS[name](_environments() / name, onnx, Path(folder)) as upstream:
        for scheme in ("grpc", "http"):
            theirs = _maps(file.with_name(f"{name}-{scheme}.toml"), _config(file, upstream, scheme))
            worst = max(_difference(theirs[key], ours[key]) for key in ours)
            note = f"{worst:.1e} of a map's range; {', '.join(ours)}"
            yield Figure(f"{name}, {scheme}: maps' difference", worst, "of the range", _ROUNDING, note)
        yield from _rates(name, file, upstream)


def _config(file: Path, upstream: Upstream, scheme: str, more: str = "") -> str:
    lines = file.read_text().splitlines()
    lines = [line for line in lines if not line.startswith("onnx")]
    at = lines.index("[model]") + 1
    lines.insert(at, f'oip = "{upstream.address(scheme)}"')
    return "\n".join(lines) + f"\n{more}\n"


def _maps(file: Path, text: str) -> dict[str, np.ndarray]:
    """The maps of a photograph that a server of a config makes, by explainer."""
    file.write_text(text)
    with served(file) as (address, _, _), Client(address, timeout=300) as client:
        prediction = client.predict(models.photograph(), explain=list(_EXPLAIN))
        return {name: each.saliency for name, each in prediction.explanations.items()}


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max() / np.ptp(other))


def _rates(name: str, file: Path, upstream: Upstream) -> Iterator[Figure]:
    """Masks per second through this server, by default and with longer slices, over those of batches alone."""
    with sending(upstream.address("grpc"), upstream.input, models.image()) as send:
        trials = {(size, at_once): send(size, at_once, _TRIAL_SECONDS) for size in _SIZES for at_once in _AT_ONCE}
        size, at_once = max(trials, key=lambda each: trials[each])
        for what, more in (("default", ""), ("slices of 200 ms", "slice_milliseconds = 200")):
            with _explaining(file.with_name(f"{name}-rate.toml"), _config(file, upstream, "grpc", more)) as explain:
                theirs, ours = [], []
                for _ in range(_ROUNDS):
                    theirs.append(send(size, at_once, _SECONDS))
                    ours.append(explain())
            rates = f"{statistics.median(ours):.0f} of {statistics.median(theirs):.0f} masks/s"
            note = f"{rates}; batches of {size}, {at_once} at once"
            yield Figure(f"{name}: masks over batches alone, {what}", ratio(ours, theirs), "×", note=note, at_least=0.8)


@contextmanager
def _explaining(file: Path, text: str) -> Iterator[Callable[[], float]]:
    """Explains by RISE on a server of a config; yields what does it once and returns the masks per second."""
    file.write_text(text)
    with served(file) as (address, _, _), Client(address, timeout=300) as client:
        picture = models.image()

        def explain() -> float:
            started = time.perf_counter()
            client.predict(picture, explain=[Explain("rise", masks=_MASKS)])
            return _MASKS / (time.perf_counter() - started)

        explain()
        yield explain
