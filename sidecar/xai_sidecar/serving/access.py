"""The file of those who may call, and who a token or a certificate belongs to.

    [[tokens]]
    name = "shop"
    sha256 = "…"                        # of the token, as `xai-sidecar token` prints it
    roles = ["predict", "explain"]

    [[certificates]]                    # for callers that cannot send a token, with server.tls.client_ca
    name = "prometheus"                 # the certificate's common name, or one of its alternative names
    roles = ["read"]

Several entries of a name are one caller: a new token can be given out before the old one is taken back.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xai_sidecar.errors import ConfigError, UnauthenticatedError, quoted
from xai_sidecar.serving.callers import ALL_ROLES, Caller, Role
from xai_sidecar.serving.fresh_files import FreshFiles

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_KEY = "server.auth.tokens"
_LONGEST_TOKEN = 4096
_NAME = re.compile(r"[\w.@:/ -]{1,128}")
_CURE = "Make its entry with xai-sidecar token --name NAME --roles predict,explain."


@dataclass(frozen=True)
class KnownCallers:
    """Those who may call.

    Attributes:
        tokens: Digests of tokens, each with whom it belongs to.
        certificates: Names in certificates, each with whom it belongs to.
    """

    tokens: tuple[tuple[bytes, Caller], ...] = ()
    certificates: Mapping[str, Caller] | None = None

    def by_token(self, token: bytes) -> Caller | None:
        """Whom a token belongs to; takes as long whichever it is. None: nobody."""
        if len(token) > _LONGEST_TOKEN:
            return None
        digest = hashlib.sha256(token).digest()
        found = None
        for known, caller in self.tokens:
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    def by_certificate(self, names: Iterable[str]) -> Caller | None:
        """Whom a certificate belongs to, by its names; None: nobody."""
        known = self.certificates or {}
        return next((known[name] for name in names if name in known), None)


def valid_name(name: str) -> bool:
    """Whether a caller can be called so: what logs, and the file, can carry as it is."""
    return _NAME.fullmatch(name) is not None


class Access:
    """Knows callers by what they show.

    Args:
        tokens: The file of those who may call; None where whoever reaches the server may do everything.

    Raises:
        ConfigError: The file is wrong.
    """

    def __init__(self, tokens: Path | None = None) -> None:
        self._known = None if tokens is None else FreshFiles(_KEY, [tokens], lambda: read_callers(tokens))

    @property
    def is_open(self) -> bool:
        """Whether whoever reaches the server may do everything."""
        return self._known is None

    @property
    def takes_certificates(self) -> bool:
        """Whether a caller without a token may be known by its certificate."""
        return self._known is not None and bool(self._known.current().certificates)

    def by_token(self, authorization: str | bytes) -> Caller:
        """The caller with this authorization, "Bearer TOKEN".

        Raises:
            UnauthenticatedError: Nobody has it.
        """
        given = authorization.encode(errors="replace") if isinstance(authorization, str) else authorization
        scheme, _, token = given.strip().partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise UnauthenticatedError(
                "The authorization is of another scheme than the server's. Send authorization: Bearer TOKEN."
            )
        caller = None if self._known is None else self._known.current().by_token(token.strip())
        if caller is None:
            raise UnauthenticatedError(
                "The server does not know this token: it was taken back, or is another server's. Ask for a new one."
            )
        return caller

    def caller(self, authorization: str | bytes | None, certificate: Iterable[str], address: str) -> Caller:
        """Who calls.

        Args:
            authorization: "Bearer TOKEN"; None where nothing was sent.
            certificate: The names in the caller's certificate, which TLS has verified; empty without one.
            address: Where the call comes from.

        Raises:
            UnauthenticatedError: Nobody whom the server knows.
        """
        names = tuple(certificate)
        if self._known is None:
            return Caller(names[0], ALL_ROLES, "certificate") if names else Caller(address)
        if authorization is not None:
            return self.by_token(authorization)
        found = self._known.current().by_certificate(names)
        if found is None:
            raise no_credentials(names)
        return found


def no_credentials(names: Iterable[str] = ()) -> UnauthenticatedError:
    """The error of a call without a token, from a certificate of these names."""
    shown = next(iter(names), "")
    also = f", and the certificate {quoted(shown)} is in no entry of the server's file" if shown else ""
    return UnauthenticatedError(
        f"The call has no token{also}. Send authorization: Bearer TOKEN; the SDK takes token= or XAI_TOKEN_FILE."
    )


def read_callers(path: Path) -> KnownCallers:
    """Reads the file of those who may call. Errors repeat no value of it: somebody may have put a token there.

    Raises:
        ConfigError: It cannot be read, or something in it is wrong.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, f"cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from None
    except tomllib.TOMLDecodeError:
        raise _wrong(path, "is not valid TOML") from None
    if unknown := set(data) - {"tokens", "certificates"}:
        raise _wrong(path, f"has {len(unknown)} keys besides [[tokens]] and [[certificates]]")
    tokens = [_token(path, entry, f"[[tokens]] {number}") for number, entry in _entries(path, data, "tokens")]
    if len({digest for digest, _ in tokens}) < len(tokens):
        raise _wrong(path, "has a digest twice")
    certificates = {}
    for number, entry in _entries(path, data, "certificates"):
        where = f"[[certificates]] {number}"
        _check_keys(path, entry, where, {"name", "roles"})
        caller = Caller(_name(path, entry, where), _roles(path, entry, where), "certificate", listed=True)
        certificates[caller.name] = caller
    return KnownCallers(tuple(tokens), certificates)


def _entries(path: Path, data: Mapping[str, Any], key: str) -> Iterable[tuple[int, Mapping[str, Any]]]:
    entries = data.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _wrong(path, f"has {key} that are no list of tables: write [[{key}]]")
    return enumerate(entries, 1)


def _token(path: Path, entry: Mapping[str, Any], where: str) -> tuple[bytes, Caller]:
    _check_keys(path, entry, where, {"name", "sha256", "roles"})
    digest = entry["sha256"]
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        raise _wrong(path, f"has in {where} a sha256 that is not 64 hexadecimal digits")
    caller = Caller(_name(path, entry, where), _roles(path, entry, where), "token", listed=True)
    return bytes.fromhex(digest), caller


def _check_keys(path: Path, entry: Mapping[str, Any], where: str, keys: set[str]) -> None:
    if set(entry) != keys:
        raise _wrong(path, f"has in {where} not exactly the keys {', '.join(sorted(keys))}")


def _name(path: Path, entry: Mapping[str, Any], where: str) -> str:
    name = entry["name"]
    if not isinstance(name, str) or not valid_name(name):
        raise _wrong(path, f"has in {where} a name that is not 1 to 128 letters, digits, spaces and any of .@:/_-")
    return name


def _roles(path: Path, entry: Mapping[str, Any], where: str) -> frozenset[Role]:
    try:
        roles = frozenset(Role(role) for role in entry["roles"])
    except (TypeError, ValueError):
        roles = frozenset()
    if not roles or not isinstance(entry["roles"], list):
        known = ", ".join(role.value for role in Role)
        raise _wrong(path, f"has in {where} roles that are not a list of some of {known}")
    return roles


def _wrong(path: Path, what: str) -> ConfigError:
    return ConfigError(f"{path} {what}. {_CURE}", field=_KEY)
