"""The README names every key of the config, and its example is one that loads."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from xai_sidecar.config import Config, parse_config
from xai_sidecar.config.reading import tomllib

README = (Path(__file__).parents[2] / "README.md").read_text()


def keys(model, prefix=""):
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field.description


@pytest.mark.parametrize(("key", "description"), list(keys(Config)))
def test_every_key_is_in_the_reference(key, description):
    row = next((line for line in README.splitlines() if line.startswith(f"| `{key}` |")), None)
    assert row, f"{key} is missing"
    assert row.endswith(f"| {description} |")


def test_the_reference_has_no_key_that_is_gone():
    listed = re.findall(r"^\| `([a-z_]+\.[a-z_.]+)` \|", README, re.MULTILINE)
    assert set(listed) == {key for key, _ in keys(Config)}


def test_the_example_loads(tmp_path):
    (tmp_path / "resnet50.ckpt").touch()
    (tmp_path / "labels.txt").touch()
    example = re.search(r"```toml\n(.*?)```", README, re.DOTALL).group(1)
    config = parse_config(tomllib.loads(example), folder=tmp_path)
    assert config.model.arguments == {"num_classes": 20}
    assert config.explainers.gradcam.layer == "layer4"
