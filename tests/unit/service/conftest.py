"""A served model without a net behind it."""

from types import SimpleNamespace

import pytest

from xai_sidecar.config import parse_config
from xai_sidecar.engine.backend import Layer
from xai_sidecar.engine.work import Forward
from xai_sidecar.service.model import served_model


@pytest.fixture
def make_model():
    """Makes a `ServedModel` of four classes and two layers; takes overrides of the config."""

    def make_model(*overrides, layers=("early", "late"), ood=None):
        config = parse_config(
            {"model": {"factory": "nets:small", "labels": ["a", "b", "c", "d"], "input": {"size": [6, 8]}}}, overrides
        )
        backend = SimpleNamespace(
            device="cpu",
            engine="none 1.0",
            engine_note="",
            version="abc",
            class_count=4,
            layers={name: Layer(name, 2, 3, 4) for name in layers},
            default_layer=layers[-1] if layers else None,
            ood=ood,
            costs=lambda kind: {1: 0.01, 4: 0.02} if kind == Forward.kind else {1: 0.03},
        )
        return served_model(config, backend)

    return make_model


@pytest.fixture
def model(make_model):
    return make_model()
