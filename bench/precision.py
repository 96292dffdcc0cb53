"""RISE in a precision below float32: what a masked pass takes, and whether the errors told of the maps are kept.

For each photograph the same 1,000 masks are scored in both precisions. What the precision does to the map is compared
with what the explanation tells of it, and the map's distance from that of other masks with the whole standard error.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import models
from bench.figure import Figure, interleaved, ratio
from xai_sidecar.backends.graph.backend import GraphBackend
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.backends.runtimes.onnxruntime import OnnxRuntime
from xai_sidecar.command.demo import demo_config
from xai_sidecar.config import Config
from xai_sidecar.engine.batching import in_batches, masked
from xai_sidecar.engine.work import FloatArray, Forward, Kind, MaskedForward, drive, forward
from xai_sidecar.explainers.base import Context, ModelFacts, Saliency
from xai_sidecar.explainers.rise import Rise
from xai_sidecar.imaging import decode, prepare
from xai_sidecar.zoo.sample import sample_picture

_PICTURES = ("chelsea", "coffee", "camera")
_SIZE = 8
_ROUNDS = 30


def figures() -> list[Figure]:
    """The time of a masked pass over ONNX Runtime's in float32, and how errors made compare with errors told."""
    config = demo_config([], lambda line: None)
    if config.model.onnx is None:
        raise ValueError("the sample classifier is an ONNX file")
    backend = GraphBackend(GraphSource(config.model.onnx, batch_sizes=(1, _SIZE), gradient_batch_sizes=(1,)))
    if not backend.reduced_precision:
        raise SystemExit("No engine has a precision below float32 on this machine.")
    reduced = replace(MaskedForward.kind, precision=backend.reduced_precision)
    failed = backend.warm_up([Forward.kind, reduced], lambda line: None)
    if failed:
        raise SystemExit(failed[reduced])
    return [_speed(config, backend, reduced), *_honesty(config, backend, reduced)]


def _speed(config: Config, backend: GraphBackend, reduced: Kind) -> Figure:
    runtime = OnnxRuntime().load(config.model.onnx or b"")
    masks = np.random.default_rng(0).random((_SIZE, *models.image().shape[1:]), np.float32)
    rows = MaskedForward(models.image(), masks).rows
    lower, full = interleaved(_ROUNDS, lambda: backend.run(reduced, rows), lambda: runtime((masked(*rows),)))
    return Figure(
        f"RISE's masked pass in {reduced.precision} over ONNX Runtime's in float32",
        ratio(lower, full),
        "×",
        0.6,
        f"EfficientNet-Lite0, {_SIZE} rows; masks applied in both; {_cpu()}",
    )


def _honesty(config: Config, backend: GraphBackend, reduced: Kind) -> list[Figure]:
    made, whole, notes = [], [], []
    run = in_batches(backend.run, _SIZE)
    for name in _PICTURES:
        picture = decode(sample_picture(name).read_bytes(), config.server.max_pixels)
        explain = _explaining(prepare(picture, config.model.input.spec()).array, config, run)
        plain, mixed, other = explain(1, None), explain(1, reduced), explain(2, None)
        if mixed.rounding is None:
            notes.append(f"{name} stays in float32")
            continue
        told = float(mixed.rounding.errors[0])
        error = float((mixed.maps - plain.maps).std() / plain.maps.std())
        made.append(error / told)
        notes.append(f"{name} {error:.3f} for {told:.3f}")
        both = np.hypot(
            *(float(each.standard_errors[0]) for each in (mixed, other) if each.standard_errors is not None)
        )
        whole.append(float((mixed.maps - other.maps).std() / plain.maps.std()) / both)
    return [
        Figure("error of the precision made over told", statistics.geometric_mean(made), "×", 1.5, "; ".join(notes)),
        Figure(
            "distance from a map of other masks over the standard errors told",
            statistics.geometric_mean(whole),
            "×",
            1.25,
            f"{len(whole)} photographs, 1,000 masks; worst {max(whole):.2f}",
        ),
    ]


def _explaining(image: FloatArray, config: Config, run: Any) -> Callable[[int, Kind | None], Saliency]:
    rise, units = Rise(), config.model.input.spec().units
    parameters = rise.resolve(rise.parameters_type(), ModelFacts(*image.shape[1:]))
    target = drive(forward(image[np.newaxis]), run)[0].argmax()

    def explain(seed: int, reduced: Kind | None) -> Saliency:
        context = Context(seed=seed, units=units, reduced=reduced)
        return drive(rise.explain(image, np.array([target], np.int32), parameters, context), run)

    return explain


def _cpu() -> str:
    """The CPU's abilities that matter here."""
    flags = Path("/proc/cpuinfo").read_text()
    return ", ".join(name for name in ("amx_bf16", "avx512_bf16") if name in flags) or "without bfloat16 instructions"
