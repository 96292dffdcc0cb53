"""`xai-sidecar token`: makes a token, and the entry by which the server knows it."""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from xai_sidecar.errors import ConfigError

_ROLES = ("predict", "explain", "feedback", "read")
_BYTES = 32
_MARK = "xai_"
"""By which programs that look for secrets in repositories and logs find them."""


def add_token(commands: Any) -> argparse.ArgumentParser:
    """Adds the command; returns its parser."""
    token: argparse.ArgumentParser = commands.add_parser(
        "token",
        help="make a token for a caller",
        description="Make a token for a caller. It goes into a file that only you can read, for the caller alone; what "
        "is printed is the entry for the file of server.auth.tokens, which has no secret in it.",
        epilog="example:\n  xai-sidecar token --name shop --roles predict,explain >> tokens.toml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    token.add_argument("--name", required=True, metavar="NAME", help="who will call: what logs and limits go by")
    token.add_argument(
        "--roles", required=True, type=_roles, metavar="ROLE,…", help=f"what it may do: some of {', '.join(_ROLES)}"
    )
    token.add_argument("--out", type=Path, metavar="FILE", help="where the token goes (default: NAME.token)")
    return token


def make_token(arguments: argparse.Namespace) -> int:
    """Makes a token; returns the exit status."""
    from xai_sidecar.serving.access import valid_name

    name: str = arguments.name
    if not valid_name(name):
        raise ConfigError("it is not 1 to 128 letters, digits, spaces and any of .@:/_-", field="--name")
    out: Path = arguments.out or Path(f"{name.replace('/', '_')}.token")
    token = _MARK + secrets.token_urlsafe(_BYTES)
    _write(out, token)
    print(entry(name, token, arguments.roles))
    print(f"The token is in {out}: set XAI_TOKEN_FILE={out} where the caller runs.", file=sys.stderr)
    return 0


def entry(name: str, token: str, roles: list[str]) -> str:
    """The entry of a token in the file of server.auth.tokens."""
    listed = ", ".join(f'"{role}"' for role in roles)
    return f'[[tokens]]\nname = "{name}"\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\nroles = [{listed}]\n'


def _write(path: Path, token: str) -> None:
    try:
        # Never readable for others, not for a moment, and never over a token that somebody uses.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{token}\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}. Choose another file.", field="--out") from None


def _roles(text: str) -> list[str]:
    roles = [role.strip() for role in text.split(",")]
    if not set(roles) <= set(_ROLES):
        raise argparse.ArgumentTypeError(f"give some of {', '.join(_ROLES)}, with commas between them")
    return [role for role in _ROLES if role in roles]
