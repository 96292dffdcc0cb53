"""Who may call, and what the log says of it."""

import certificates
import pytest
from structlog.testing import capture_logs

from xai_sidecar.command.listening import Guards
from xai_sidecar.config import ServerConfig
from xai_sidecar.errors import ConfigError


@pytest.fixture
def files(tmp_path):
    certificate, key = certificates.write_pair(tmp_path, certificates.Authority().issue("server"))
    tokens = tmp_path / "tokens.toml"
    tokens.touch()
    return {"tls": {"certificate": certificate, "key": key}}, {"auth": {"tokens": tokens}}


def events(**config):
    with capture_logs() as logs:
        Guards.of(ServerConfig(**config))
    return [entry["event"] for entry in logs]


def test_the_log_says_where_strangers_may_call(files):
    tls, tokens = files
    open_to_all = {"grpc": "0.0.0.0:1", "insecure": True}
    assert events(**open_to_all) == ["anybody_may_call"]
    assert events(**open_to_all, **tls) == ["anybody_may_call"]
    assert events(**open_to_all, **tokens) == ["tokens_are_not_encrypted"]
    assert events(grpc="0.0.0.0:1", **tls, **tokens) == []
    assert events() == []


def test_wrong_files_are_found_before_anything_is_loaded(files):
    tls, tokens = files
    tokens["auth"]["tokens"].write_text("[[tokens]]")
    with pytest.raises(ConfigError, match="not exactly the keys"):
        Guards.of(ServerConfig(**tokens))
    tls["tls"]["key"].write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match="no certificate and its key"):
        Guards.of(ServerConfig(**tls))
