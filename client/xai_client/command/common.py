"""What the commands of `xai-client` have in common."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

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
    parser.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help=f"{timeout} (default: 30)",
    )
    parser.add_argument("--json", action="store_true", help=as_json)


def fail(error: Exception | str, status: int) -> int:
    """Prints what went wrong as one line on stderr, and returns the exit status."""
    print(f"xai-client: {' '.join(str(error).split())}", file=sys.stderr)
    return status
