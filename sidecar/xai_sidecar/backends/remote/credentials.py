"""What a server is believed by, and what it is shown: authorities, a certificate of our own, a bearer token."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import grpc

from xai_sidecar.config.upstream import UpstreamAddress, UpstreamConfig
from xai_sidecar.errors import ConfigError

_LONGEST_TOKEN = 4096


class Token:
    """The bearer token of a file that has it as its only line. The file is read for every call: it may be replaced.

    Args:
        path: The file.

    Raises:
        ConfigError: It has none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = self._read()

    def __repr__(self) -> str:
        return f"Token({str(self._path)!r})"

    def header(self) -> str:
        """The value of the header or metadata entry `authorization`."""
        with contextlib.suppress(ConfigError):  # while it is being replaced; the server says if the last one is old
            self._text = self._read()
        return f"Bearer {self._text}"

    def _read(self) -> str:
        try:
            text = self._path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self._path} cannot be read: {error}. Correct it.", field=_TOKEN) from None
        if not text or not text.isprintable() or " " in text or len(text) > _LONGEST_TOKEN:
            raise ConfigError(
                f"{self._path} has no token: one line of ASCII without spaces. Write it there.", field=_TOKEN
            )
        return text


_TOKEN = "model.upstream.token"  # noqa: S105 - a key of the config


def token_of(address: UpstreamAddress, settings: UpstreamConfig) -> Token | None:
    """The token that a server is shown; None for none.

    Raises:
        ConfigError: The file has none, or the token would go where others could read it.
    """
    if settings.token is None:
        return None
    if not (address.secure or address.local):
        raise ConfigError(
            f"the token would go to {address.server} for everybody on the way to read. Use grpcs or https.",
            field=_TOKEN,
        )
    return Token(settings.token)


def tls_context(settings: UpstreamConfig) -> ssl.SSLContext:
    """What checks a server's certificate, and shows our own.

    Raises:
        ConfigError: A file cannot be read, or does not hold what it should.
    """
    try:
        context = ssl.create_default_context(cafile=None if settings.ca is None else str(settings.ca))
    except (OSError, ssl.SSLError) as error:
        message = f"{settings.ca} holds no certificates that can be read: {error}. Name a PEM file."
        raise ConfigError(message, field="model.upstream.ca") from error
    if settings.certificate is not None:
        try:
            # A password would be asked for on the terminal.
            context.load_cert_chain(settings.certificate, settings.key, password=lambda: b"")
        except (OSError, ssl.SSLError) as error:
            message = (
                f"{settings.certificate} and {settings.key} are no certificate and its key: {error}. Name PEM files, "
                "of a key without a password."
            )
            raise ConfigError(message, field="model.upstream.certificate") from error
    return context


def channel_credentials(settings: UpstreamConfig) -> grpc.ChannelCredentials:
    """The same for gRPC. Raises what `tls_context` does."""
    tls_context(settings)  # gRPC would say of a wrong file only that the server does not answer
    paths = (settings.ca, settings.key, settings.certificate)
    return grpc.ssl_channel_credentials(*(None if path is None else path.read_bytes() for path in paths))
