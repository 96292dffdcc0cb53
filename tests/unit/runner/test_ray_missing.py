"""`--ray` where there is no Ray, or no cluster: what is said, and how soon."""

import socket
import sys

import pytest

from xai_sidecar.command import main as cli
from xai_sidecar.errors import ConfigError
from xai_sidecar.runner.spread.ray_cluster import connected


def test_without_the_extra_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r"Run pip install 'xai-sidecar\[ray\]'\.") as caught, connected("local"):
        pass
    assert caught.value.field == "ray"


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_listens_is_refused_at_once(monkeypatch, scheme):
    monkeypatch.setitem(sys.modules, "ray", object())
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
    with (
        pytest.raises(ConfigError, match=f"no Ray cluster can be reached at '{address}': .*refused"),
        connected(address),
    ):
        pass


@pytest.mark.parametrize("options", [("--actors", "2"), ("--ray", "local", "--actors", "0")])
def test_a_number_of_actors_that_means_nothing(tmp_path, capsys, options):
    config = tmp_path / "sidecar.toml"
    config.write_text('[model]\nfactory = "none:none"\ninput.size = 32\n')
    command = ["run", "--config", str(config), "--data", "pictures", "--out", str(tmp_path / "out"), *options]
    assert cli.main(command) == 2
    assert "actors: it is a number of at least 1, and goes with --ray" in capsys.readouterr().err
