"""The files of TLS: read together, and only taken where they fit together."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from xai_sidecar.config.listening import TlsConfig
from xai_sidecar.errors import ConfigError
from xai_sidecar.serving.fresh_files import FreshFiles


@dataclass(frozen=True)
class TlsIdentity:
    """What the server shows, and whom it believes.

    Attributes:
        certificate: PEM, with those between it and its CA.
        key: PEM.
        client_ca: PEM of the CAs of callers' certificates; None where callers need none.
        context: The same for Python's ssl module.
    """

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext


class TlsFiles:
    """The files of TLS, read anew when they change; any thread may ask.

    Args:
        config: Names them; certificate and key have to be set.

    Raises:
        ConfigError: They cannot be read, or do not fit together.
    """

    def __init__(self, config: TlsConfig) -> None:
        if config.certificate is None or config.key is None:
            raise ValueError("TLS is not configured")
        certificate, key, client_ca = config.certificate, config.key, config.client_ca
        paths = [certificate, key, *([] if client_ca is None else [client_ca])]
        self.asks_callers = client_ca is not None
        self._files = FreshFiles("server.tls.certificate", paths, lambda: read_identity(certificate, key, client_ca))

    def current(self) -> TlsIdentity:
        """What is to be shown now."""
        return self._files.current()


def read_identity(certificate: Path, key: Path, client_ca: Path | None) -> TlsIdentity:
    """Reads the files of TLS.

    Raises:
        ConfigError: One cannot be read, or is none, or certificate and key are of two pairs.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    shown, secret = _pem(certificate, "certificate"), _pem(key, "key")
    try:
        # An encrypted key would have it ask at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigError(
            f"{certificate} and {key} are no certificate and its key: {_why(error)}. Give both as PEM, the key "
            "without a password.",
            field="server.tls.certificate",
        ) from None
    believed = None
    if client_ca is not None:
        believed = _pem(client_ca, "client_ca")
        try:
            context.load_verify_locations(cadata=believed.decode("ascii", errors="ignore"))
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"{client_ca} has no certificates: {_why(error)}. Give those of the CAs as PEM.",
                field="server.tls.client_ca",
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    if (_pem(certificate, "certificate"), _pem(key, "key")) != (shown, secret):
        raise ConfigError("the files change while they are read.", field="server.tls.certificate")
    return TlsIdentity(shown, secret, believed, context)


def _pem(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}. Correct the path, or let the server's user read it.",
            field=f"server.tls.{key}",
        ) from None


def _why(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error) or type(error).__name__
