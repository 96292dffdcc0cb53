"""What the command line decides."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from xai_client import Tls


@dataclass(frozen=True)
class Settings:
    """How the console runs.

    Attributes:
        server: Address of the server to show, "host:port".
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.
        public_hosts: Names, besides the loopback's, that browsers may call the console by.
        tls: How calls to the server are encrypted; None for what the environment says.
        token_file: Has the bearer token that is sent with each call; None for what the environment says.
        timeout: Seconds that a call to the server may take.
        run: Folder of the offline run that is shown there; empty for a server.
    """

    server: str
    host: str = "127.0.0.1"
    port: int = 8080
    public_hosts: tuple[str, ...] = ()
    tls: Tls | None = None
    token_file: Path | None = None
    timeout: float = 30.0
    run: str = ""

    @property
    def name(self) -> str:
        """What is shown, for people."""
        return self.run or self.server


def is_loopback(host: str) -> bool:
    """Whether nothing but this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port", "[::1]:port" or ":port", which is the loopback.

    Raises:
        ValueError: It is none of these; the message says so.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"an address is HOST:PORT, such as 127.0.0.1:8080, not {address!r}")
    return host, int(port)
