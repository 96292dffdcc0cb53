"""A backend that serves holds no graphs of its programs: each has weights of its own, and engines have their copies."""

import gc

import numpy as np
import pytest
from small_graphs import HEIGHT, WIDTH, convolution, pictures

from xai_sidecar.backends.graph import reference
from xai_sidecar.backends.graph.backend import GraphBackend
from xai_sidecar.backends.graph.graph import Graph
from xai_sidecar.backends.graph.kinds import SEED
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.engine.work import Forward, Kind

LAYER = Kind("layer_gradient", layer="positive")

forget = reference.Reference.forget


def derived_graphs():
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, Graph) and SEED in each.inputs]


@pytest.mark.parametrize("cached", [False, True])
def test_graphs_of_gradients_are_gone_when_they_serve_also_those_made_on_demand(tmp_path, monkeypatch, cached):
    path = tmp_path / "model.onnx"
    path.write_bytes(convolution())
    held = []
    monkeypatch.setattr(reference.Reference, "forget", lambda self: held.append(len(derived_graphs())) or forget(self))
    source = GraphSource(
        path,
        output="logits",
        height=HEIGHT,
        width=WIDTH,
        batch_sizes=(1,),
        cache=tmp_path / "cache" if cached else None,
    )
    before = len(derived_graphs())
    backend = GraphBackend(source)
    assert backend.warm_up([Forward.kind, Kind("input_gradient")], lambda line: None) == {}
    assert held.pop() > before == len(derived_graphs())
    outputs = backend.run(LAYER, (pictures(1), np.array([3], np.int32)))
    assert held.pop() > before == len(derived_graphs())
    assert len(outputs) == 3
