"""What the folder of a run keeps of its model: enough to describe it as it was, and nothing that may be secret."""

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from xai_sidecar.engine.backend import Layer, OodTraining
from xai_sidecar.errors import ConfigError
from xai_sidecar.evaluator.definitions import map_definition
from xai_sidecar.explainers.base import renamed
from xai_sidecar.rpc.info import model_info
from xai_sidecar.runner.model_record import model_record, recorded_model
from xai_sidecar.runner.options import run_config
from xai_sidecar.serving.description import describe
from xai_sidecar.serving.evaluation import evaluated_model
from xai_sidecar.serving.model import ExplainerSetup

SECRET = "postgresql://me:hunter2@host/db"


@pytest.fixture
def model(make_model):
    """A model with an explainer switched off, one of other settings, and a store with a password."""
    model = make_model(
        "explainers.gradient.enabled=false",
        "explainers.rise.masks=77",
        "model.activation=sigmoid",
        f"evaluator.store={SECRET}",
        "evaluator.sample_rate=0.25",
    )
    object.__setattr__(model, "config", run_config(model.config))
    return model


def again(model):
    return recorded_model(json.loads(json.dumps(model_record(model), allow_nan=False)))


def test_a_model_is_described_as_it_was(model, make_quality):
    read = again(model)
    nothing = make_quality(sample_rate=1.0).summary()
    assert model_info(describe(read, 5.0, nothing)) == model_info(describe(model, 5.0, nothing))
    ours, theirs = evaluated_model(read), evaluated_model(model)
    assert ours.version == theirs.version
    assert ours.labels == theirs.labels
    assert {name: parameters for name, (_, parameters) in ours.explainers.items()} == {
        name: parameters for name, (_, parameters) in theirs.explainers.items()
    }
    assert read.config.evaluator.window_seconds == model.config.evaluator.window_seconds


def test_what_failed_to_compile_stays_unavailable(model, make_quality):
    kind = model.explainers["gradcam"].kinds[0]
    failed = model.without({kind: "No rule for this operator."})
    info = model_info(describe(again(failed), 5.0, make_quality(sample_rate=1.0).summary()))
    (gradcam,) = (each for each in info.explainers if each.name == "gradcam")
    assert (gradcam.available, gradcam.unavailable_reason) == (False, "No rule for this operator.")


def test_explainers_may_have_names_of_their_own(model, make_quality):
    """Two of a kind, as a script may have them."""
    rise = model.explainers["rise"]
    other = rise.defaults.model_copy(update={"masks": 55})
    named = {
        "RISE": ExplainerSetup(renamed(rise.explainer, "RISE"), rise.defaults, rise.defaults, rise.kinds),
        "RISE_2": ExplainerSetup(renamed(rise.explainer, "RISE_2"), other, other, rise.kinds),
    }
    model = replace(model, explainers=named)
    record = json.loads(json.dumps(model_record(model, dict.fromkeys(named, "rise"))))
    ours, theirs = evaluated_model(recorded_model(record)), evaluated_model(model)
    assert ours.version == theirs.version
    for name, (explainer, parameters) in theirs.explainers.items():
        assert map_definition(*ours.explainers[name]) == map_definition(explainer, parameters)
    info = model_info(describe(recorded_model(record), 5.0, make_quality(sample_rate=1.0).summary()))
    assert [each.name for each in info.explainers] == ["RISE", "RISE_2"]
    record["named"]["RISE_2"]["explainer"] = "theirs"
    with pytest.raises(ConfigError, match="there is no explainer 'theirs'"):
        recorded_model(record)


def test_a_layer_may_be_more_than_the_record_says(model):
    @dataclass(frozen=True)
    class Placed(Layer):
        axes: tuple[int, ...] = (2, 3)

    known = dict(model.backend.layers)
    model.backend.layers = {name: Placed(**vars(layer)) for name, layer in known.items()}
    try:
        assert again(model).backend.layers == known
    finally:
        model.backend.layers = known


def test_the_ood_net_is_part_of_the_version(model):
    training = OodTraining(100, 12.5, {"textures": 0.9})
    ood = SimpleNamespace(**{name: getattr(model.backend, name) for name in dir(model.backend) if name[0] != "_"})
    ood.ood = training
    object.__setattr__(model, "backend", ood)
    assert again(model).backend.ood == training
    assert evaluated_model(again(model)).version == evaluated_model(model).version


def test_no_secret_is_kept(model):
    assert "hunter2" not in json.dumps(model_record(model))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda record: record["config"]["explainers"].update(theirs={"enabled": True}), "explainers.theirs"),
        (lambda record: record["config"]["evaluator"].update(metrics=["theirs"]), "evaluator.metrics"),
        (lambda record: record["backend"].pop("layers"), "cannot be read"),
        (lambda record: record["backend"].update(costs=[{"kind": {"name": "x", "more": 1}}]), "cannot be read"),
    ],
)
def test_what_is_not_known_here_is_said(model, spoil, words):
    record = json.loads(json.dumps(model_record(model)))
    spoil(record)
    with pytest.raises(ConfigError, match=words) as caught:
        recorded_model(record)
    assert caught.value.field == "run"
