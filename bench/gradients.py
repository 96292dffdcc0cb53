"""Gradients made on the graph against MindSpore's compiled ones, and against the bare forward pass, in one round."""

from __future__ import annotations

import numpy as np

from bench import models
from bench.figure import Figure, interleaved, ratio
from xai_sidecar.backends.mindspore.backend import MindSporeBackend
from xai_sidecar.backends.mindspore.loading import load_net
from xai_sidecar.backends.mindspore.source import ModelSource
from xai_sidecar.engine.work import Forward, Kind

_ROUNDS = 15
_BARS = {models.RESNET: 0.5, models.SAMPLE: 0.3}
_GRADIENTS = {"gradient": "", "guided_backprop": "guided", "deconvolution": "deconvolution"}


def figures() -> list[Figure]:
    """The ratios of medians, one row at a time, for two nets with random weights."""
    return [figure for factory in _BARS for figure in _of(factory)]


def _of(factory: str) -> list[Figure]:
    net = load_net(factory, {"num_classes": 1000}, None).net
    graph, cell = (_backend(factory, net, engine) for engine in ("auto", "mindspore"))
    kinds = {name: Kind("input_gradient", relu_rule=rule) for name, rule in _GRADIENTS.items()}
    layer = Kind("layer_gradient", graph.default_layer or "")
    for backend in (graph, cell):
        backend.warm_up([Forward.kind, *kinds.values(), layer], lambda line: None)
    rows = models.image()[None], np.zeros(1, np.int32)
    name = factory.partition(":")[2]
    found = []
    for explainer, kind in kinds.items():
        ours, theirs = interleaved(_ROUNDS, lambda k=kind: graph.run(k, rows), lambda k=kind: cell.run(k, rows))
        title = f"{explainer} of {name} over MindSpore's compiled"
        found.append(Figure(title, ratio(ours, theirs), "×", _BARS[factory], graph.engine))
    passes, maps = interleaved(_ROUNDS, lambda: graph.run(Forward.kind, rows[:1]), lambda: graph.run(layer, rows))
    found.append(Figure(f"gradcam's pass of {name} over the bare one", ratio(maps, passes), "×", 1.6, graph.engine))
    return found


def _backend(factory: str, net: object, forward_engine: str) -> MindSporeBackend:
    source = ModelSource(
        factory, {"num_classes": 1000}, batch_sizes=(1,), gradient_batch_sizes=(1,), forward_engine=forward_engine
    )
    return MindSporeBackend(source, net)
