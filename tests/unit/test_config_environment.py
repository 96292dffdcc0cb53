"""Keys of the config from environment variables."""

import pytest

from xai_sidecar.config import load_config, parse_config
from xai_sidecar.config.environment import overrides_in
from xai_sidecar.errors import ConfigError

MODEL = {"model": {"factory": "nets:small"}}


def parse(*overrides, **environment):
    return parse_config(MODEL, overrides, environment=environment)


def test_a_variable_names_a_key_by_section_and_key():
    config = parse(XAI_EVALUATOR__SAMPLE_RATE="0.1", XAI_MODEL__INPUT__SIZE="[32, 48]", xai_other="1")
    assert config.evaluator.sample_rate == 0.1
    assert (config.model.input.spec().height, config.model.input.spec().width) == (32, 48)


def test_a_value_that_is_no_toml_is_a_text():
    url = "postgresql://xai:pass#word@db/xai"
    assert parse(XAI_EVALUATOR__STORE=url).evaluator.store == url


@pytest.mark.parametrize("name", ["XAI_KILLS", "XAI", "AXAI_SERVER__GRPC", "xai_server__grpc"])
def test_other_variables_are_not_ours(name):
    assert overrides_in({name: "1"}) == {}


def test_an_empty_variable_counts_as_not_set():
    assert parse(XAI_MODEL__DEVICE="").model.device == "cpu"


def test_file_then_environment_then_command_line(tmp_path):
    path = tmp_path / "sidecar.toml"
    path.write_text('[model]\nfactory = "a:b"\nname = "file"\ndevice = "gpu"\n[server]\nmax_images = 3\n')
    environment = {"XAI_MODEL__NAME": "environment", "XAI_MODEL__DEVICE": "ascend"}
    config = load_config(path, ["model.name=line"], environment=environment)
    assert (config.model.name, config.model.device, config.server.max_images) == ("line", "ascend", 3)


def test_the_process_own_environment_counts(tmp_path, monkeypatch):
    path = tmp_path / "sidecar.toml"
    path.write_text('[model]\nfactory = "a:b"\n')
    monkeypatch.setenv("XAI_SERVER__MAX_IMAGES", "7")
    assert load_config(path).server.max_images == 7


def test_an_error_names_key_and_variable():
    with pytest.raises(ConfigError, match=r"XAI_MODEL__THREADS sets it") as caught:
        parse(XAI_MODEL__THREADS="many")
    assert caught.value.field == "model.threads"


def test_a_variable_that_names_no_key_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"Did you mean 'sample_rate'\?.*XAI_EVALUATOR__SAMPLE_RAT ") as caught:
        parse(XAI_EVALUATOR__SAMPLE_RAT="1")
    assert caught.value.field == "evaluator.sample_rat"


def test_a_variable_into_a_value_is_refused_by_name():
    with pytest.raises(ConfigError, match="XAI_MODEL__NAME__X: 'name' is a value"):
        parse_config({"model": {"factory": "a:b", "name": "n"}}, environment={"XAI_MODEL__NAME__X": "1"})


def test_what_the_command_line_sets_is_not_blamed_on_the_environment():
    with pytest.raises(ConfigError) as caught:
        parse("model.threads=many", XAI_MODEL__THREADS="2")
    assert "XAI_" not in str(caught.value)
