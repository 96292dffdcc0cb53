"""The keys of `[server]` that say where it listens, and to whom: TLS, tokens, and how much each caller gets."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from xai_sidecar.config.section import Section
from xai_sidecar.errors import ConfigError


def must_match(value: str, pattern: str, what: str) -> str:
    """Checks a text of a form that is better described in words than by its pattern."""
    if not re.fullmatch(pattern, value):
        raise ValueError(f"it is not {what}")
    return value


def _address(value: str) -> str:
    pattern = r"(\[[0-9a-fA-F:]+\]|[^:\s\[\]]+):\d{1,5}"
    must_match(value, pattern, "of the form host:port, or [host]:port for IPv6")
    if int(value.rpartition(":")[2]) > 65535:
        raise ValueError("the port is above 65535")
    return value


Address = Annotated[str, AfterValidator(_address)]


def check_pair(section: str, certificate: Path | None, key: Path | None) -> None:
    """Checks that a certificate and its key are both set, or neither.

    Raises:
        ConfigError: One of them is missing.
    """
    if (certificate is None) != (key is None):
        missing = "key" if key is None else "certificate"
        raise ConfigError("a certificate and its key go together. Set both.", field=f"{section}.{missing}")


class TlsConfig(Section):
    """Encryption of gRPC and HTTP. The files are read anew when they change."""

    certificate: Path | None = Field(
        default=None, description="The server's certificate, with those between it and its CA: PEM. Default: no TLS."
    )
    key: Path | None = Field(default=None, description="The private key of the certificate: PEM, without a password.")
    client_ca: Path | None = Field(
        default=None,
        description="Certificates of the CAs of the callers' certificates: PEM. With it, whoever has none of them is "
        "refused (mutual TLS).",
    )

    @model_validator(mode="after")
    def _whole(self) -> TlsConfig:
        check_pair("server.tls", self.certificate, self.key)
        if self.client_ca is not None and self.certificate is None:
            raise ConfigError(
                "the callers' certificates can only be asked for with TLS. Set server.tls.certificate and "
                "server.tls.key, too.",
                field="server.tls.client_ca",
            )
        return self


class AuthConfig(Section):
    """Who may do what."""

    tokens: Path | None = Field(
        default=None,
        description="TOML file of those who may call: names, SHA-256 digests of their tokens, and roles (predict, "
        "explain, feedback, read), as `xai-sidecar token` prints them. Read anew when it changes. Default: whoever "
        "reaches the server may do everything.",
    )


class CallersConfig(Section):
    """What each caller may have at a time: the name of its token or certificate, else its address, is one caller."""

    max_calls: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Most calls of a caller in progress; what comes beyond is refused. Default: server.max_calls.",
    )
    max_explanations: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Most explanations of a caller in progress, one for each picture; requests beyond that are "
        "refused, with a retry hint. Default: server.queue_capacity.",
    )


class ListeningConfig(Section):
    """Where a server listens, and to whom."""

    grpc: Address = Field(default="127.0.0.1:50051", description="Where gRPC is served; port 0 takes a free one.")
    http: Address = Field(
        default="127.0.0.1:9090",
        description="Where HTTP is served: /metrics, which takes the role read where there are tokens, /healthz and "
        "/readyz, and predictions under /v1 and /v2, see docs/protocols.md.",
    )
    probes: Address | None = Field(
        default=None,
        description="Where /metrics, /healthz and /readyz are served, too, on a port of their own: to anybody who "
        "reaches it, so that Kubernetes and Prometheus need neither TLS nor a token. Default: only with server.http.",
    )
    probes_guarded: bool = Field(
        default=False, description="Whether the port of server.probes asks for TLS and tokens like the others."
    )
    tls: TlsConfig = Field(default_factory=TlsConfig, description="Encryption.")
    auth: AuthConfig = Field(default_factory=AuthConfig, description="Who may do what.")
    callers: CallersConfig = Field(default_factory=CallersConfig, description="What each caller may have.")
    insecure: bool = Field(
        default=False,
        description="Whether to listen on other addresses than this machine's loopback without TLS, or without "
        "knowing the callers by tokens or certificates: where a mesh or a firewall takes care of both.",
    )
    reflection: bool = Field(
        default=True, description="Whether gRPC's server reflection describes the services to those who may call."
    )

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> ListeningConfig:
        self.check_address("server.grpc", self.grpc)
        self.check_address("server.http", self.http)
        if self.probes is not None and self.probes_guarded:
            self.check_address("server.probes", self.probes)
        return self

    @property
    def is_guarded(self) -> bool:
        """Whether calls are encrypted, and callers known."""
        return self.tls.certificate is not None and (self.tls.client_ca is not None or self.auth.tokens is not None)

    def check_address(self, key: str, address: str) -> None:
        """Refuses to listen where strangers may come from, if anybody could call.

        Raises:
            ConfigError: The address is not on the loopback, and neither is the server guarded nor `insecure` set.
        """
        if self.is_guarded or self.insecure or is_loopback(address):
            return
        missing = ("TLS" if self.tls.certificate is None else "") + (
            " and " if self.tls.certificate is None and self.auth.tokens is None else ""
        )
        missing += "tokens" if self.auth.tokens is None else ""
        raise ConfigError(
            f"{address} can be reached from other machines, and there is no {missing.replace(' and ', ' and no ')}. "
            "Set server.tls.certificate, server.tls.key and either server.auth.tokens or server.tls.client_ca; or "
            "server.insecure = true, where something else keeps strangers out; or listen on 127.0.0.1.",
            field=key,
        )


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address, host:port."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
