"""The keys of `[model.upstream]`, and the address of a model on another server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from xai_sidecar.config.listening import check_pair, is_loopback
from xai_sidecar.config.section import Section

_ADDRESS = re.compile(r"(grpcs?|https?)://(\[[0-9a-fA-F:]+\]|[^:/\s\[\]]+):(\d{1,5})/([^/\s?#]+)")
_SECURE = {"grpcs", "https"}


@dataclass(frozen=True)
class UpstreamAddress:
    """Where a model is on another server.

    Attributes:
        scheme: "grpc", "grpcs", "http" or "https".
        host: The host, an IPv6 address in brackets.
        port: The port.
        model: The model's name there.
    """

    scheme: str
    host: str
    port: int
    model: str

    @property
    def server(self) -> str:
        """The server, as in ``grpc://127.0.0.1:8001``."""
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def by_grpc(self) -> bool:
        """Whether it is spoken to by gRPC, and not by REST."""
        return self.scheme.startswith("grpc")

    @property
    def secure(self) -> bool:
        """Whether by TLS."""
        return self.scheme in _SECURE

    @property
    def local(self) -> bool:
        """Whether it is on this machine, so that nobody is on the way."""
        return is_loopback(f"{self.host}:{self.port}")

    def __str__(self) -> str:
        return f"{self.server}/{self.model}"


def upstream_address(text: str) -> UpstreamAddress:
    """Reads an address.

    Raises:
        ValueError: It is none.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise ValueError(
            "it is not of the form grpc://host:port/model, with grpc, grpcs, http or https and [host] for IPv6"
        )
    scheme, host, port, model = found.groups()
    if not 1 <= int(port) <= 65535:
        raise ValueError("the port is not between 1 and 65535")
    return UpstreamAddress(scheme, host, int(port), model)


def checked_address(text: str) -> str:
    """The same text, if it is an address; see `upstream_address`."""
    upstream_address(text)
    return text


class UpstreamConfig(Section):
    """The model on another server that `model.oip` names."""

    input: str | None = Field(
        default=None, min_length=1, description="Input of the model that takes the pictures. Default: its only one."
    )
    output: str | None = Field(
        default=None,
        min_length=1,
        description="Output of the model with the logits or the probabilities. Default: its only one besides "
        "model.upstream.features.",
    )
    features: str | None = Field(
        default=None,
        min_length=1,
        description="Output of the model with the inputs of its last dense layer, (n, features). With it there are OoD "
        "scores and rise_plus. Default: none.",
    )
    gives: Literal["auto", "logits", "probabilities"] = Field(
        default="auto",
        description="What that output is. Of probabilities, logarithms are taken in the place of logits. auto: "
        "probabilities where its values for made-up inputs are such.",
    )
    version: str | None = Field(
        default=None,
        min_length=1,
        description="Version of the model to ask for. Default: the one that the server takes by itself; when it takes "
        "another one later on, calls are refused until this server is started anew.",
    )
    concurrency: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Most batches that are in progress there at once: about two for each that it computes at a time.",
    )
    timeout_seconds: float = Field(
        default=10.0, gt=0, le=3600, description="How long the server may take for a batch; then the calls fail."
    )
    ca: Path | None = Field(
        default=None,
        description="PEM file of the authorities that the server's certificate is checked by, for grpcs and https. "
        "Default: those that the system trusts.",
    )
    certificate: Path | None = Field(
        default=None,
        description="PEM file of the certificate that the server is shown, for mutual TLS. Default: none.",
    )
    key: Path | None = Field(
        default=None, description="PEM file of the private key of that certificate, without a password."
    )
    token: Path | None = Field(
        default=None,
        description="File with the bearer token that the server is sent, as its only line; read anew when it changes. "
        "Only by TLS, or to this machine. Default: none.",
    )

    @model_validator(mode="after")
    def _whole(self) -> UpstreamConfig:
        check_pair("model.upstream", self.certificate, self.key)
        return self
