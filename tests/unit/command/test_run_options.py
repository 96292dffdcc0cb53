"""What the options of `xai-sidecar run` set in the config."""

import argparse

import pytest

from xai_sidecar.command.run import add_run, run_overrides
from xai_sidecar.config import RunConfig, parse_config
from xai_sidecar.errors import ConfigError
from xai_sidecar.runner.options import run_config

MODEL = {"factory": "none:none", "input": {"size": 32}}


def configured(*options, **section):
    commands = argparse.ArgumentParser().add_subparsers()
    parser = add_run(commands, lambda parser: None)
    overrides = run_overrides(parser.parse_args(["--data", "pictures", "--out", "run", *options]))
    return parse_config({"model": MODEL, "run": section}, overrides)


def test_without_options_the_section_counts():
    assert configured().run == RunConfig()
    section = {"targets": "both", "limit": 5, "keep_pictures": False, "fail_fast": True, "explainers": ["rise"]}
    assert configured(**section).run == RunConfig(**section)


def test_options_count_before_the_section():
    options = (
        "--explainers=gradcam, rise", "--metrics=robustness", "--targets=true", "--probable=0.25", "--limit=7",
        "--seed=3", "--no-pictures", "--fail-fast",
    )  # fmt: skip
    section = {"targets": "both", "limit": 5, "seed": 2, "explainers": ["occlusion"], "probable": 0.5}
    assert configured(*options, **section).run == RunConfig(
        explainers=["gradcam", "rise"], metrics=["robustness"], targets="true", probable=0.25, limit=7, seed=3,
        keep_pictures=False, fail_fast=True,
    )  # fmt: skip


def test_a_run_measures_what_its_section_names_and_else_what_the_evaluator_does():
    settings = {"model": MODEL, "evaluator": {"explainers": ["rise"], "metrics": ["robustness"]}}
    evaluator = run_config(parse_config(settings)).evaluator
    assert (evaluator.explainers, evaluator.metrics) == (["rise"], ["robustness"])
    named = {"explainers": ["gradcam"], "metrics": ["class_sensitivity"]}
    evaluator = run_config(parse_config({**settings, "run": named})).evaluator
    assert (evaluator.explainers, evaluator.metrics) == (["gradcam"], ["class_sensitivity"])


@pytest.mark.parametrize(
    ("option", "field"),
    [
        ("--probable=nan", "run.probable"),
        ("--limit=0", "run.limit"),
        ("--seed=-1", "run.seed"),
        ("--metrics=robustness,accuracy", "run.metrics"),
    ],
)
def test_a_value_that_cannot_be_is_named(option, field):
    with pytest.raises(ConfigError) as caught:
        configured(option)
    assert caught.value.field == field
