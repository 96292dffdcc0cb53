"""How many threads compute passes, where the config says so, and where it does not."""

import os

import pytest

from xai_sidecar.backends import loading
from xai_sidecar.config import parse_config
from xai_sidecar.errors import ConfigError


def parse(*overrides):
    return parse_config({"model": {"factory": "nets:small"}}, overrides)


def test_the_key():
    assert parse().model.threads is None
    assert parse("model.threads=3").model.threads == 3
    for wrong in ("0", "-1", "1.5", "'all'", "5000"):
        with pytest.raises(ConfigError) as caught:
            parse(f"model.threads={wrong}")
        assert caught.value.field == "model.threads"


@pytest.mark.parametrize(
    ("threads", "environment", "expected"),
    [
        (None, {}, "5"),
        (None, {"OMP_NUM_THREADS": "2"}, "2"),
        (3, {}, "3"),
        (3, {"OMP_NUM_THREADS": "2"}, "3"),  # the config is nearer
    ],
)
def test_threads_of_kernels(monkeypatch, threads, environment, expected):
    monkeypatch.setattr(loading, "usable_cpus", lambda: 5)
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # so that it is put back
    monkeypatch.delenv("OMP_NUM_THREADS")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    loading.limit_threads(threads)
    assert os.environ["OMP_NUM_THREADS"] == expected
