"""The files of TLS: taken together, or not at all."""

import certificates
import pytest
from structlog.testing import capture_logs

from xai_sidecar.config.listening import TlsConfig
from xai_sidecar.errors import ConfigError
from xai_sidecar.serving import fresh_files
from xai_sidecar.serving.tls_files import TlsFiles


@pytest.fixture(scope="module")
def authority():
    return certificates.Authority()


@pytest.fixture
def files(tmp_path, authority, monkeypatch):
    monkeypatch.setattr(fresh_files, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(fresh_files, "_SETTLED_SECONDS", -10.0)
    certificate, key = certificates.write_pair(tmp_path, authority.issue("first"))
    client_ca = tmp_path / "ca.pem"
    client_ca.write_bytes(authority.pem)
    return TlsConfig(certificate=certificate, key=key, client_ca=client_ca)


def test_a_half_replaced_pair_is_not_taken(files, authority):
    tls = TlsFiles(files)
    first, (certificate, key) = tls.current(), authority.issue("second")
    files.certificate.write_bytes(certificate)
    with capture_logs() as logs:
        assert tls.current() is first
        assert tls.current() is first
    assert [(entry["event"], "KEY_VALUES_MISMATCH" in entry["message"]) for entry in logs] == [
        ("files_not_taken", True)
    ]
    files.key.write_bytes(key)
    assert (tls.current().certificate, tls.current().key) == (certificate, key)


@pytest.mark.parametrize("key", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\nnonsense\n", b"\xff\xfe", None])
def test_wrong_files_are_named(files, key, content):
    path = getattr(files, key)
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ConfigError, match=path.name) as caught:
        TlsFiles(files)
    assert "server.tls." in str(caught.value)


def test_a_key_with_a_password_is_refused_without_asking(files):
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"password")
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    with pytest.raises(ConfigError, match="without a password"):
        TlsFiles(files)
