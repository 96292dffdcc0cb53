"""Who may call, as the config says it."""

import certificates
import pytest

from xai_sidecar.config import parse_config
from xai_sidecar.config.listening import is_loopback
from xai_sidecar.errors import ConfigError

MODEL = {"factory": "module:build", "input": {"size": 32}}


def parsed(folder, *overrides, **server):
    return parse_config({"model": MODEL, "server": server}, overrides, folder).server


@pytest.fixture
def files(tmp_path):
    authority = certificates.Authority()
    certificate, key = certificates.write_pair(tmp_path, authority.issue("server"))
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "tokens.toml").touch()
    return {"certificate": certificate.name, "key": key.name}


@pytest.mark.parametrize("key", ["grpc", "http"])
@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.1.2.3", "example.com", "localhost.example.com"])
def test_strangers_are_kept_out_unless_the_config_says_so(tmp_path, files, key, host):
    address = {key: f"{host}:1234"}
    with pytest.raises(ConfigError) as caught:
        parsed(tmp_path, **address)
    assert caught.value.field == f"server.{key}"
    assert "there is no TLS and no tokens. Set server.tls.certificate" in caught.value.message
    assert "server.insecure = true" in caught.value.message
    with pytest.raises(ConfigError, match="there is no tokens"):
        parsed(tmp_path, tls=files, **address)
    with pytest.raises(ConfigError, match="there is no TLS\\."):
        parsed(tmp_path, auth={"tokens": "tokens.toml"}, **address)
    assert parsed(tmp_path, insecure=True, **address).insecure
    assert parsed(tmp_path, "server.tls.client_ca=ca.pem", tls=files, **address).is_guarded
    assert parsed(tmp_path, tls=files, auth={"tokens": "tokens.toml"}, **address).is_guarded


@pytest.mark.parametrize(
    ("address", "is_one"),
    [("127.0.0.1:1", True), ("127.8.9.1:1", True), ("[::1]:1", True), ("localhost:1", True), ("0.0.0.0:1", False),
     ("[::]:1", False), ("192.168.0.1:1", False), ("local:1", False)],
)  # fmt: skip
def test_what_the_loopback_is(address, is_one):
    assert is_loopback(address) == is_one


def test_paths_are_relative_to_the_file(tmp_path, files):
    server = parsed(tmp_path, tls={**files, "client_ca": "ca.pem"}, auth={"tokens": "tokens.toml"})
    assert server.tls.certificate == tmp_path / "server.pem"
    assert server.tls.client_ca == tmp_path / "ca.pem"
    assert server.auth.tokens == tmp_path / "tokens.toml"


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        (["server.tls.key=server.key"], "server.tls.certificate"),
        (["server.tls.certificate=server.pem"], "server.tls.key"),
        (["server.tls.client_ca=ca.pem"], "server.tls.client_ca"),
        (["server.auth.tokens=none.toml"], "server.auth.tokens"),
        (["server.tls.certificate=none.pem", "server.tls.key=server.key"], "server.tls.certificate"),
    ],
)
def test_what_does_not_go_together_is_named(tmp_path, files, overrides, field):
    with pytest.raises(ConfigError) as caught:
        parsed(tmp_path, *overrides)
    assert caught.value.field == field
