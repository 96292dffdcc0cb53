"""Sections of the config that are made from explainers and metrics."""

import pytest

from xai_sidecar.config import parse_config
from xai_sidecar.config.section import key_path
from xai_sidecar.errors import ConfigError
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.metrics.discovery import installed_metrics

MODEL = {"factory": "nets:small"}
DELETION = '"faithfulness/deletion_auc"'


def parse(*overrides, **sections):
    return parse_config({"model": MODEL, **sections}, overrides)


def test_each_explainer_has_a_section_with_its_defaults():
    config = parse()
    assert list(type(config.explainers).model_fields) == ["precision", *installed_explainers()]
    for name, explainer in installed_explainers().items():
        section = getattr(config.explainers, name).model_dump()
        assert section.pop("enabled") is True
        layers = {key: section.pop(key, None) for key in ("layers", "compile_on_demand")}
        assert layers == (
            {"layers": [], "compile_on_demand": False} if explainer.takes_layer else dict.fromkeys(layers)
        )
        assert section == explainer.parameters_type().model_dump()


def test_each_metric_has_a_section_with_its_defaults():
    settings = parse().evaluator
    assert settings.metrics == [name for name, metric in installed_metrics().items() if metric.by_default]
    for metric in installed_metrics().values():
        assert settings.parameters_of(metric) == metric.parameters_type()


def test_a_metrics_section_goes_before_the_evaluators_protocol():
    tables = {"faithfulness/deletion_auc": {"protocol": "mindspore_xai"}, "robustness": {"radius": 0.5}}
    settings = parse(evaluator={"protocol": "rise", "metric_parameters": tables}).evaluator
    found = {name: settings.parameters_of(metric) for name, metric in installed_metrics().items()}
    assert found["faithfulness/deletion_auc"].protocol == "mindspore_xai"
    assert found["faithfulness/insertion_auc"].protocol == "rise"
    assert (found["robustness"].radius, found["robustness"].draw_count) == (0.5, 10)


def test_the_command_line_sets_a_metrics_parameters():
    settings = parse(f"evaluator.metric_parameters.{DELETION}.protocol=rise").evaluator
    assert settings.parameters_of(installed_metrics()["faithfulness/deletion_auc"]).protocol == "rise"


@pytest.mark.parametrize(
    ("override", "field", "said"),
    [
        ("explainers.rise.masks=3", "explainers.rise.masks", "greater than or equal to 16 (got 3). Masks to spend"),
        ("explainers.rise.maks=30", "explainers.rise.maks", "Did you mean 'masks'?"),
        ("explainers.rize.masks=30", "explainers.rize", "Did you mean 'rise'?"),
        ("explainers.rise=30", "explainers.rise", ""),
        ("explainers=30", "explainers", ""),
        (
            f"evaluator.metric_parameters.{DELETION}.protocol=x",
            f"evaluator.metric_parameters.{DELETION}.protocol",
            "'x'",
        ),
        ("evaluator.metric_parameters.robustness.radius=2", "evaluator.metric_parameters.robustness.radius", "got 2"),
        ("evaluator.metric_parameters.robustness.x=2", "evaluator.metric_parameters.robustness.x", "no such key"),
        (
            'evaluator.metric_parameters."faithfulness/delete".protocol=rise',
            'evaluator.metric_parameters."faithfulness/delete"',
            "Did you mean 'faithfulness/deletion_auc'?",
        ),
        ("evaluator.metric_parameters=[1]", "evaluator.metric_parameters", ""),
    ],
)
def test_errors_name_the_key(override, field, said):
    with pytest.raises(ConfigError) as caught:
        parse(override)
    assert caught.value.field == field
    assert said in caught.value.message


def test_a_path_has_quotes_where_toml_wants_them():
    assert key_path(["a", "b-c_1", "d/e", "f g"]) == 'a.b-c_1."d/e"."f g"'
