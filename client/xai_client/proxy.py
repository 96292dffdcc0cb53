"""Which HTTP proxy of the environment gRPC sends a call through, and which addresses need none."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Final
from urllib.parse import urlsplit

_VARIABLES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
_EXEMPTIONS: Final = ("no_grpc_proxy", "no_proxy")
"""The first that is set counts, of both. gRPC reads them in lower case only."""

_SCHEME = re.compile(r"(dns:(//[^/]*/)?|ipv[46]:(//[^/]*/)?)", re.IGNORECASE)
_UNIX = re.compile(r"(unix|unix-abstract|vsock):", re.IGNORECASE)


def is_local(address: str) -> bool:
    """Whether a target is on this machine: the loopback by number or name, or a socket in the file system."""
    return bool(_UNIX.match(address)) or all(_is_loopback(host) for host in _hosts(address))


def proxy_in_use(address: str) -> str:
    """The variable whose proxy gRPC puts between here and a target, and its value without password; empty if none.

    A channel argument that turns proxies off is not considered.
    """
    name = next((each for each in _VARIABLES if each in os.environ), "")
    value = os.environ.get(name, "")
    if not value or is_local(address) or all(_is_exempt(host) for host in _hosts(address)):
        return ""
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
    except ValueError:
        return ""
    return f"{name} ({parts.scheme}://{parts.netloc.rpartition('@')[2]})" if parts.scheme == "http" else ""


def _hosts(address: str) -> list[str]:
    """The hosts of a target: of "host:port", or of a list of them under a scheme such as ``ipv4:``."""
    return [_host(each) for each in _SCHEME.sub("", address, count=1).split(",")]


def _host(part: str) -> str:
    if part.startswith("["):
        return part[1:].partition("]")[0]
    return part if part.count(":") > 1 else part.partition(":")[0]


def _is_loopback(host: str) -> bool:
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    number = _number(host)
    return number is not None and (number.is_loopback or number.is_unspecified)


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = number.ipv4_mapped if isinstance(number, ipaddress.IPv6Address) else None
    return mapped or number


def _is_exempt(host: str) -> bool:
    name = next((each for each in _EXEMPTIONS if each in os.environ), "")
    entries = (each.strip() for each in os.environ.get(name, "").split(","))
    return any(_covers(entry, host) for entry in entries if entry)


def _covers(entry: str, host: str) -> bool:
    number = _number(host)
    if number is not None and "/" in entry:
        try:
            return number in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    wanted = entry.lower().lstrip(".")
    return host.lower() == wanted or host.lower().endswith(f".{wanted}")
