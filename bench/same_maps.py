"""Whether the maps of the sample classifier's ONNX graph are those of its MindSpore cell, for all explainers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bench import models
from bench.figure import Figure
from xai_sidecar.backends.graph.backend import GraphBackend
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.backends.mindspore.backend import MindSporeBackend
from xai_sidecar.backends.mindspore.source import ModelSource
from xai_sidecar.command.demo import demo_config
from xai_sidecar.config import Config
from xai_sidecar.engine.backend import Backend
from xai_sidecar.engine.batching import in_batches
from xai_sidecar.engine.work import FloatArray, Forward, Kind, OodScore, drive
from xai_sidecar.explainers.base import ModelFacts
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.imaging import decode, prepare
from xai_sidecar.zoo.sample import sample_checkpoint

_CAT = 282
_VALUES: dict[str, dict[str, Any]] = {
    "rise": {"masks": 100},
    "rise_plus": {"masks": 100},
    "occlusion": {"window_size": 32, "stride": 32},
}


def figures() -> list[Figure]:
    """The correlation of the maps for the class that the photograph shows, the cell run by MindSpore, by explainer."""
    config = demo_config([], lambda line: None)
    picture = decode(models.photograph().read_bytes(), config.server.max_pixels)
    image = prepare(picture, config.model.input.spec()).array
    cell, graph = (_maps(backend, config, image) for backend in (_cell(), _graph(config)))
    return [_figure(name, float(np.corrcoef(cell[name].ravel(), graph[name].ravel())[0, 1])) for name in cell]


def _figure(name: str, correlation: float) -> Figure:
    note = f"EfficientNet-Lite0, chelsea, float32; {1 - correlation:.1e} off"
    return Figure(f"correlation of {name}'s map of the graph with the cell's", correlation, "", None, note, 0.9999)


def _cell() -> MindSporeBackend:
    source = ModelSource(
        models.SAMPLE,
        checkpoint=sample_checkpoint(),
        batch_sizes=(1,),
        gradient_batch_sizes=(1,),
        forward_engine="mindspore",
    )
    version = MindSporeBackend(source).version
    return MindSporeBackend(replace(source, ood=models.random_head(version, 1280)))


def _graph(config: Config) -> GraphBackend:
    if config.model.onnx is None:
        raise ValueError("the sample classifier is an ONNX file")
    source = GraphSource(config.model.onnx, batch_sizes=(1,))
    version = GraphBackend(source).version
    return GraphBackend(replace(source, ood=models.random_head(version, 1280)))


def _maps(backend: Backend, config: Config, image: FloatArray) -> dict[str, FloatArray]:
    units = config.model.input.spec().units
    facts = ModelFacts(224, 224, backend.layers, backend.default_layer, True, units)
    asked = {}
    for name, explainer in installed_explainers().items():
        parameters = explainer.parameters_type(**_VALUES.get(name, {}))
        asked[name] = explainer, explainer.resolve(parameters, facts)
    kinds: list[Kind] = [Forward.kind, OodScore.kind, *(one.kind(values) for one, values in asked.values())]
    failed = backend.warm_up(list(dict.fromkeys(kinds)), lambda line: None)
    if failed:
        raise RuntimeError(f"not all explainers work: {failed}")
    targets = np.array([_CAT], np.int32)
    return {
        name: np.asarray(drive(one.explain(image, targets, values), in_batches(backend.run, 1)).maps[0])
        for name, (one, values) in asked.items()
    }
