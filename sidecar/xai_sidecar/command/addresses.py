"""Addresses that the server listens on."""

from __future__ import annotations

import os

from xai_sidecar.errors import ConfigError


def split(address: str) -> tuple[str, int]:
    """Host and port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def joined(host: str, port: int) -> str:
    """The reverse of `split`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def cannot_listen(key: str, address: str, error: Exception) -> ConfigError:
    """The error of an address that nothing can listen on, by the key that names it."""
    number = getattr(error, "errno", None)  # its text may repeat the address
    why = os.strerror(number) if number else "the address is in use or not this machine's"
    return ConfigError(f"cannot listen on {address}: {why}. Choose another one with --set {key}=HOST:PORT.", field=key)
