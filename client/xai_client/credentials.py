"""What a client shows a server, and whom it believes: TLS, and a bearer token.

What a program does not say, the environment may: XAI_TLS=1, XAI_TLS_CA, XAI_TLS_CERTIFICATE, XAI_TLS_KEY and
XAI_TOKEN_FILE, the last four with paths. There is none for a token itself: what is in a variable, every child has.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Union

import grpc

from xai_client.errors import ArgumentError
from xai_client.proxy import is_local

TOKEN_FILE: Final = "XAI_TOKEN_FILE"  # noqa: S105 - the name of a variable
_YES: Final = ("1", "true", "yes", "on")
_LONGEST_TOKEN: Final = 4096

TokenLike = Union[str, "os.PathLike[str]", None]


@dataclass(frozen=True)
class Tls:
    """Whom a client believes, and what it shows of itself. All files are PEM, read when the client is made.

    Attributes:
        ca: Certificates to believe instead of the system's.
        certificate: The client's own, where the server asks for one (mutual TLS), with those between it and its CA.
        key: The private key of that, without a password.
    """

    ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ArgumentError("a certificate and its key go together: give both", field="tls")

    def credentials(self) -> grpc.ChannelCredentials:
        """The same for gRPC.

        Raises:
            OSError: A file cannot be read.
        """
        ca, certificate, key = (None if path is None else Path(path).read_bytes() for path in self._paths())
        return grpc.ssl_channel_credentials(ca, key, certificate)

    def _paths(self) -> tuple[str | os.PathLike[str] | None, ...]:
        return self.ca, self.certificate, self.key


TlsLike = Union[bool, str, "os.PathLike[str]", Tls, None]


class Token:
    """A bearer token; its text shows in no `repr`.

    Args:
        given: The token itself as a text, or the path of a file that has it as its only line. Files are read anew when
            they change.

    Raises:
        ArgumentError: It is no token.
        OSError: The file cannot be read.
    """

    def __init__(self, given: str | os.PathLike[str]) -> None:
        self._path = None if isinstance(given, str) else Path(given)
        self._state: Any = None
        self._text = "" if self._path else _checked(str(given), "the token")
        self._read()

    def __repr__(self) -> str:
        return f"Token({str(self._path)!r})" if self._path else "Token(...)"

    def metadata(self) -> tuple[str, str]:
        """The metadata entry that shows it."""
        with contextlib.suppress(OSError, ArgumentError):
            self._read()  # while it is being replaced, the last one is good until the server says otherwise
        return ("authorization", f"Bearer {self._text}")

    def _read(self) -> None:
        if self._path is None:
            return
        found = self._path.stat()
        state = (found.st_ino, found.st_size, found.st_mtime_ns)
        if state != self._state:
            text = self._path.read_text(encoding="utf-8", errors="replace").strip()
            self._text, self._state = _checked(text, str(self._path)), state


def tls_of(tls: TlsLike, environment: Mapping[str, str] = os.environ) -> Tls | None:
    """The TLS that an argument, or else the environment, asks for; None for no encryption.

    Raises:
        ArgumentError: It is none of what is taken.
    """
    if tls is None:
        paths = {name: environment.get(f"XAI_TLS_{name.upper()}") or None for name in ("ca", "certificate", "key")}
        wanted = environment.get("XAI_TLS", "").lower() in _YES or any(paths.values())
        return Tls(**paths) if wanted else None
    if isinstance(tls, bool):
        return Tls() if tls else None
    if isinstance(tls, (str, os.PathLike)):
        return Tls(ca=tls)
    if not isinstance(tls, Tls):
        raise ArgumentError(f"tls is True, a file of certificates to believe, or a Tls, not {type(tls)}", field="tls")
    return tls


def token_of(
    token: TokenLike, metadata: Iterable[tuple[str, Any]] = (), environment: Mapping[str, str] = os.environ
) -> Token | None:
    """The token that an argument, or else the environment, gives; None for none.

    Args:
        token: The argument.
        metadata: What is sent besides: with an authorization of its own, the environment is not asked.
        environment: Variables.

    Raises:
        ArgumentError: It is no token.
        OSError: The file cannot be read.
    """
    if token is None:
        own = any(len(pair) == 2 and pair[0] == "authorization" for pair in metadata)
        path = None if own else environment.get(TOKEN_FILE)
        return Token(Path(path)) if path else None
    if not isinstance(token, (str, os.PathLike)):
        raise ArgumentError(f"token is a text, or the path of a file, not {type(token)}", field="token")
    return Token(token) if token != "" else None


def channel_credentials(
    address: str, token: Token | None, tls: TlsLike, credentials: grpc.ChannelCredentials | None
) -> grpc.ChannelCredentials | None:
    """GRPC's credentials of a client; None for no encryption.

    Args:
        address: Where it calls.
        token: What it sends.
        tls: The argument.
        credentials: gRPC's own, instead of it.

    Raises:
        ArgumentError: Both are given, or a token would go where others could read it.
        OSError: A file cannot be read.
    """
    if credentials is not None:
        if tls is not None:
            raise ArgumentError("tls and credentials are two words for the same: give one of them", field="tls")
        return credentials
    wanted = tls_of(tls)
    if wanted is not None:
        return wanted.credentials()
    if token is not None and not is_local(address):
        raise ArgumentError(
            f"the token would go to {address} for everybody on the way to read. Give tls=, or, where something else"
            ' encrypts the way, metadata=[("authorization", "Bearer …")]',
            field="token",
        )
    return None


def _checked(token: str, what: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token or len(token) > _LONGEST_TOKEN:
        raise ArgumentError(f"{what} is no token: one line of ASCII without spaces", field="token")
    return token
