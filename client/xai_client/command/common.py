"""What the commands of `xai-client` have in common."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Final

from xai_client.client import Client
from xai_client.credentials import TOKEN_FILE, Tls, tls_of

DEFAULT_SERVER: Final = "127.0.0.1:50051"


def default_server() -> str:
    """Where calls go unless --server says otherwise."""
    return os.environ.get("XAI_SERVER") or DEFAULT_SERVER


def add_common(
    parser: argparse.ArgumentParser, timeout: str = "longest time for the call", as_json: str = "print JSON"
) -> None:
    """Adds the options that every command has.

    Args:
        parser: Of the command.
        timeout: What --timeout is, without its default.
        as_json: What --json does.
    """
    parser.add_argument(
        "--server",
        default=default_server(),
        metavar="HOST:PORT",
        help=f"address of the server (default: $XAI_SERVER, else {DEFAULT_SERVER})",
    )
    add_credentials(parser)
    parser.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help=f"{timeout} (default: 30)",
    )
    parser.add_argument("--json", action="store_true", help=as_json)


class _Shown(argparse.Action):
    """Refuses a token that is given as an option."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Ends the program."""
        parser.error("a token on a command line is there for all to see: put it into a file, and give --token-file")


def add_credentials(parser: argparse.ArgumentParser) -> None:
    """Adds the options of TLS and of the token; there is none that takes a token itself, which `ps` would show."""
    group = parser.add_argument_group("credentials", "What is left out, the variables in brackets say.")
    group.add_argument("--tls", action="store_true", help="encrypt calls [XAI_TLS=1]")
    group.add_argument("--ca", type=Path, metavar="FILE", help="certificates (PEM) to believe [XAI_TLS_CA]")
    group.add_argument(
        "--certificate", type=Path, metavar="FILE", help="certificate (PEM) of one's own [XAI_TLS_CERTIFICATE]"
    )
    group.add_argument("--key", type=Path, metavar="FILE", help="private key (PEM) of that [XAI_TLS_KEY]")
    # Otherwise it would be taken for --token-file, and shown as a file that is not there.
    group.add_argument("--token", action=_Shown, help=argparse.SUPPRESS)
    group.add_argument("--token-file", type=Path, metavar="FILE", help=f"file of a bearer token [{TOKEN_FILE}]")


def credentials_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of a client that the options stand for; an option wins over its variable.

    Raises:
        ArgumentError: They do not go together.
    """
    given = {name: value for name in ("ca", "certificate", "key") if (value := getattr(arguments, name)) is not None}
    tls: Tls | None = None
    if arguments.tls or given:
        known = tls_of(None) or Tls()
        tls = Tls(**{"ca": known.ca, "certificate": known.certificate, "key": known.key, **given})
    return {"tls": tls, "token": arguments.token_file}


def open_client(arguments: argparse.Namespace) -> Client:
    """The client that the options of a command describe.

    Raises:
        ArgumentError: They cannot be used.
        OSError: A file cannot be read.
    """
    return Client(arguments.server, timeout=arguments.timeout, **credentials_of(arguments))


def fail(error: Exception | str, status: int) -> int:
    """Prints what went wrong as one line on stderr, and returns the exit status."""
    print(f"xai-client: {' '.join(str(error).split())}", file=sys.stderr)
    return status
