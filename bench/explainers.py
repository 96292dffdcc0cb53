"""What an explanation costs over the passes that it is made of, on ResNet-50 and EfficientNet-Lite0 at 224.

Both sides run on the engine's own device thread, with the engine around the explanation and nothing around the passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from bench import models
from bench.figure import Figure, interleaved, ratio
from xai_sidecar.backends.mindspore.backend import MindSporeBackend
from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.work import Forward, Kind
from xai_sidecar.explainers.base import ModelFacts
from xai_sidecar.explainers.discovery import installed_explainers

_ROUNDS = 15
_BATCH = 8
_SIZES = {models.RESNET: (256, 14), models.SAMPLE: (1024, 7)}
"""Masks of RISE and windows of occlusion: some seconds' worth of passes."""

_GRADIENTS = ("gradient", "guided_backprop", "deconvolution")


def figures() -> list[Figure]:
    """Each explainer with one target."""
    found = []
    for title, factory in (("ResNet-50", models.RESNET), ("EfficientNet-Lite0", models.SAMPLE)):
        with models.engine(factory, "auto", 1, _BATCH) as (engine, backend):
            masks, window = _SIZES[factory]
            values = {
                "rise": {"masks": masks},
                "rise_plus": {"masks": masks},
                "occlusion": {"window_size": window, "stride": window},
            }
            found += _by_forward_passes(title, engine, backend, values)
        # Gradients run on MindSpore, so their floor is a pass of MindSpore's, too.
        with models.engine(factory, "mindspore", 1) as (engine, backend):
            found += _by_gradients(title, engine, backend)
    return found


def _by_forward_passes(
    title: str, engine: Engine, backend: MindSporeBackend, asked: dict[str, dict[str, Any]]
) -> list[Figure]:
    image = models.image()
    batch = np.repeat(image[None], _BATCH, axis=0)
    found = []
    for name, values in asked.items():
        kind, count, explain = _explained(name, values, engine, backend)
        floor = Forward.kind if kind.name == "masked_forward" else Kind("features")
        bare = _passes(engine, backend, floor, (batch,), math.ceil(count / _BATCH))
        passes, explained = interleaved(3, bare, explain)
        bar = None if name == "rise_plus" else 1.10
        note = f"batch {_BATCH}, {count} masks, {backend.engine}"
        found.append(Figure(f"{name} per mask over the bare pass, {title}", ratio(explained, passes), "×", bar, note))
    _, _, explain = _explained("gradcam", {}, engine, backend)
    bare, explained = interleaved(_ROUNDS, _passes(engine, backend, Forward.kind, (image[None],)), explain)
    found.append(
        Figure(f"gradcam over the bare forward pass, {title}", ratio(explained, bare), "×", 1.6, backend.engine)
    )
    return found


def _by_gradients(title: str, engine: Engine, backend: MindSporeBackend) -> list[Figure]:
    rows = (models.image()[None], np.array([7], np.int32))
    forward = _passes(engine, backend, Forward.kind, rows[:1])
    found = []
    for name in _GRADIENTS:
        kind, _, explain = _explained(name, {}, engine, backend)
        gradient, explained = interleaved(_ROUNDS, _passes(engine, backend, kind, rows), explain)
        bar = None if name == "deconvolution" else 1.15
        found.append(Figure(f"{name} over the bare compiled gradient, {title}", ratio(explained, gradient), "×", bar))
    _, _, explain = _explained("gradcam", {}, engine, backend)
    _, _, plain = _explained("gradient", {}, engine, backend)
    bare, explained, derived = interleaved(_ROUNDS, forward, explain, plain)
    for name, taken, bar in (("gradcam", explained, 1.6), ("gradient", derived, None)):
        found.append(Figure(f"{name} over the bare forward pass, {title}", ratio(taken, bare), "×", bar, "mindspore"))
    return found


def _explained(
    name: str, values: dict[str, Any], engine: Engine, backend: MindSporeBackend
) -> tuple[Kind, int, Callable[[], object]]:
    """An explanation through the engine: its kind of work, its passes, and what makes it."""
    explainer = installed_explainers()[name]
    facts = ModelFacts(224, 224, backend.layers, backend.default_layer, backend.ood is not None)
    parameters = explainer.resolve(explainer.parameters_type(**values), facts)
    image, target = models.image(), np.array([7], np.int32)

    def explain() -> object:
        return engine.submit(explainer.explain(image, target, parameters), Lane.EXPLAIN).result()

    return explainer.kind(parameters), explainer.pass_counts(1, parameters, facts).most, explain


def _passes(
    engine: Engine, backend: MindSporeBackend, kind: Kind, rows: tuple[Any, ...], count: int = 1
) -> Callable[[], object]:
    """Bare launches on the device thread."""

    def steps() -> Any:
        for _ in range(count):
            backend.run(kind, rows)
        return None
        yield

    return lambda: engine.submit(steps(), Lane.EXPLAIN).result()
