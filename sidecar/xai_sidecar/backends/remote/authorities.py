"""The authorities that a server's certificate is checked by."""

from __future__ import annotations

import ssl

from xai_sidecar.config.upstream import UpstreamConfig
from xai_sidecar.errors import ConfigError


def trusting(settings: UpstreamConfig) -> ssl.SSLContext:
    """What checks certificates by the configured authorities, or else by those of the system.

    Raises:
        ConfigError: The file cannot be read, or holds no certificates.
    """
    try:
        return ssl.create_default_context(cafile=None if settings.ca is None else str(settings.ca))
    except (OSError, ssl.SSLError) as error:
        message = f"{settings.ca} holds no certificates that can be read: {error}. Name a PEM file."
        raise ConfigError(message, field="model.upstream.ca") from error


def authorities(settings: UpstreamConfig) -> bytes | None:
    """The configured authorities as PEM; None for those of the system. Raises what `trusting` does."""
    if settings.ca is None:
        return None
    trusting(settings)  # gRPC would say of no certificates only that the server does not answer
    return settings.ca.read_bytes()
