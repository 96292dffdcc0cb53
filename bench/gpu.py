"""ONNX graphs on a CUDA device: are its results those of the CPU, and how fast is it. `python -m bench.gpu`.

First every kind of work of a ResNet-50 with made-up weights, at several batch sizes, row by row against the CPU; then
times, against a plain PyTorch computation with the same weights on the same device, if PyTorch is installed. Exit
status 0 when all agrees, 1 when something does not, 2 when there is no such device or a package is missing.

docs/gpu.md says how to run it on a machine without a network.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bench.figure import Figure, table
from bench.resnet import Net, OnnxOperations, in_torch
from xai_sidecar.backends.graph.backend import GraphBackend
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.backends.runtimes.accelerators import CUDA, OnnxRuntimeOnDevice
from xai_sidecar.backends.runtimes.agreement import GRADIENT_TOLERANCE, LOGIT_TOLERANCE, disagreement, relative_errors
from xai_sidecar.engine.work import INPUT_GRADIENT, RELU_RULES, Array, Features, Forward, Kind, MaskedForward
from xai_sidecar.errors import SidecarError

_ROUNDS = 20

_ALL_WRONG = 1e9
"""Instead of infinity or NaN, which JSON lacks."""


_NAMES = {Forward.kind: "predict", MaskedForward.kind: "RISE's masked pass", INPUT_GRADIENT: "input gradient"}


@dataclass(frozen=True)
class Sizes:
    """Batch sizes that are tried."""

    passes: tuple[int, ...] = (1, 8, 32)
    gradients: tuple[int, ...] = (1, 8)


def main(arguments: Sequence[str] | None = None, net: Net | None = None) -> int:
    """Prints the figures; `net` is for a rehearsal with a small one."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--device", default="gpu:0", help="gpu:INDEX, or cpu for a rehearsal of this script; default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="of timing; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    chosen = parser.parse_args(arguments)
    if chosen.device != "cpu" and (missing := missing_for(chosen.device)):
        print(f"bench.gpu: {missing}", file=sys.stderr)
        return 2
    try:
        figures = measured(chosen.device, net or Net(), Sizes(), chosen.rounds)
    except SidecarError as error:
        print(f"bench.gpu: {error}", file=sys.stderr)
        return 1
    print(table(figures))
    if chosen.json:
        chosen.json.write_text(json.dumps([figure.as_dict() for figure in figures], indent=2) + "\n")
    return 0 if all(figure.met for figure in figures) else 1


# ---------------------------------------------------------------------------------------- what it takes


def missing_for(device: str, count: Callable[[], int | str] | None = None) -> str | None:
    """Why nothing can be measured on a device, in a sentence; None if it can.

    Args:
        device: "gpu", optionally with ":index".
        count: Counts the CUDA devices, or says why it cannot.
    """
    kind, _, text = device.partition(":")
    if kind != "gpu" or not (text or "0").isdecimal():
        return f"{device!r} is no CUDA device. Name gpu:0 or another index."
    index, found = int(text or 0), (count or _cuda_devices)()
    if isinstance(found, str):
        return f"There is no CUDA device: {found}. Run this on a machine with an NVIDIA card and its driver."
    if index >= found:
        return f"There is no CUDA device {index}, but {found}. Count them from 0."
    missing = OnnxRuntimeOnDevice(CUDA, index).missing()
    return f"{missing[0].upper()}{missing[1:]}." if missing else None


def _cuda_devices() -> int | str:
    """How many devices the driver has, or why that cannot be told."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"the driver's library cannot be loaded, {error}"
    count = ctypes.c_int()
    for call in (partial(driver.cuInit, 0), partial(driver.cuDeviceGetCount, ctypes.byref(count))):
        if status := call():
            return f"the driver refuses with status {status}"
    return count.value or "the driver finds none"


# ---------------------------------------------------------------------------------------- what is measured


def measured(device: str, net: Net, sizes: Sizes, rounds: int) -> list[Figure]:
    """Figures of conformance and of speed.

    Raises:
        SidecarError: The net cannot be loaded there, or a kind of work is refused.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet.onnx"
        path.write_bytes(OnnxOperations().model(net))
        ours, reference = (_loaded(path, net, where, sizes) for where in (device, "cpu"))
        try:
            return [*_conformance(ours, reference, net, sizes), *_speed(ours, net, device, sizes, rounds)]
        finally:
            ours.close()
            reference.close()


def _loaded(path: Path, net: Net, device: str, sizes: Sizes) -> GraphBackend:
    shape = {"height": net.side, "width": net.side}
    source = GraphSource(path, device=device, **shape, batch_sizes=sizes.passes, gradient_batch_sizes=sizes.gradients)
    backend = GraphBackend(source)
    for kind, why in backend.warm_up(_kinds(backend), lambda line: None).items():
        raise SidecarError(f"on {device}, {kind.name} {kind.relu_rule} is refused: {why}")
    print(f"{device}: {backend.engine}", file=sys.stderr, flush=True)
    return backend


def _kinds(backend: GraphBackend) -> list[Kind]:
    gradients = [INPUT_GRADIENT, *(Kind("input_gradient", relu_rule=rule) for rule in RELU_RULES)]
    return [
        Forward.kind,
        Features.kind,
        MaskedForward.kind,
        *gradients,
        Kind("layer_gradient", layer=backend.default_layer or ""),
    ]


def _rows(kind: Kind, net: Net, size: int) -> tuple[Array, ...]:
    """Pictures, and what else a kind takes."""
    generator = np.random.default_rng(size)
    inputs = generator.standard_normal((size, 3, net.side, net.side), np.float32)
    if kind.name.startswith("masked"):
        cells = generator.random((size, 7, 7)) < 0.5
        masks = np.kron(cells, np.ones((net.side // 7 + 1,) * 2))[:, : net.side, : net.side].astype(np.float32)
        return MaskedForward(inputs[0], masks).rows
    if kind.name.endswith("gradient"):
        return inputs, np.arange(size, dtype=np.int32) % net.classes
    return (inputs,)


def _conformance(ours: GraphBackend, reference: GraphBackend, net: Net, sizes: Sizes) -> list[Figure]:
    """How far each kind of work is from the CPU's, at its worst row, as a share of what is allowed."""
    figures = []
    for kind in _kinds(reference):
        for size in sizes.gradients if kind.name.endswith("gradient") else sizes.passes:
            rows = _rows(kind, net, size)
            outputs, expected = ours.run(kind, rows), reference.run(kind, rows)
            tolerances = [GRADIENT_TOLERANCE] * (len(expected) - 1) + [LOGIT_TOLERANCE]
            figures.append(_agreement(kind, size, outputs, expected, tolerances))
    return figures


def _agreement(
    kind: Kind, size: int, outputs: Sequence[Array], expected: Sequence[Array], tolerances: Sequence[float]
) -> Figure:
    name = f"{kind.relu_rule} {kind.name}".strip().replace("_", " ")
    if wrong := disagreement(outputs, expected, tolerances, reference="the CPU"):
        return Figure(f"conformance, {name}, batch {size}", _ALL_WRONG, "of what is allowed", 1, wrong)
    worst = max(
        float(relative_errors(one.reshape(size, -1), other.reshape(size, -1)).max()) / tolerance
        for one, other, tolerance in zip(outputs, expected, tolerances, strict=True)
    )
    return Figure(f"conformance, {name}, batch {size}", worst, "of what is allowed", 1)


def _speed(ours: GraphBackend, net: Net, device: str, sizes: Sizes, rounds: int) -> list[Figure]:
    """Milliseconds a picture and, where PyTorch is there, ratios."""
    where = "cuda:" + (device.partition(":")[2] or "0") if device != "cpu" else "cpu"
    peer = in_torch(net, where) if importlib.util.find_spec("torch") else {}
    cases = [(Forward.kind, size) for size in sizes.passes]
    cases += [(MaskedForward.kind, sizes.passes[-1]), *((INPUT_GRADIENT, size) for size in sizes.gradients)]
    figures: list[Figure] = []
    taken: dict[tuple[Kind, int], float] = {}
    for kind, size in cases:
        rows = _rows(kind, net, size)
        runs: dict[str, Callable[[], object]] = {"ours": partial(ours.run, kind, rows)}
        if kind.name in peer:
            runs["torch"] = partial(peer[kind.name], *rows[:2])
        seconds = _shortest(runs, rounds)
        taken[kind, size] = seconds["ours"]
        figures += _timed(kind, size, seconds, taken.get((Forward.kind, size)))
    if not peer:
        print("PyTorch is not installed: there are no ratios to it.", file=sys.stderr)
    return figures


def _timed(kind: Kind, size: int, seconds: dict[str, float], predict: float | None) -> list[Figure]:
    name = f"{_NAMES[kind]}, batch {size}"
    figures = [Figure(f"{name}, each", 1000 * seconds["ours"] / size, "ms")]
    if predict and kind != Forward.kind:
        figures.append(Figure(f"{name}, over predict", seconds["ours"] / predict, "×"))
    if "torch" in seconds:
        note = f"PyTorch: {1000 * seconds['torch'] / size:.2f} ms, arrays in and out"
        ratio = seconds["ours"] / seconds["torch"]
        figures.append(Figure(f"{name}, over PyTorch on the same device", ratio, "×", note=note))
    return figures


def _shortest(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The shortest time of each, taken in turn, after two runs that are not counted."""
    best = dict.fromkeys(runs, np.inf)
    for turn in range(rounds + 2):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if turn > 1:
                best[name] = min(best[name], time.perf_counter() - started)
    return {name: float(seconds) for name, seconds in best.items()}


if __name__ == "__main__":
    sys.exit(main())
