"""The command line `xai-console`: shows a server's predictions and explanations in a browser.

Exit status: 0 when it was ended, 1 when it could not listen, 2 when the command was wrong or a package is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from xai_client import ArgumentError
from xai_client.command.common import add_credentials, credentials_of
from xai_client.credentials import channel_credentials, token_of
from xai_console.run_server import RunError, run_server
from xai_console.settings import Settings, is_loopback, split_address

_SERVER: Final = "127.0.0.1:50051"
_LISTEN: Final = "127.0.0.1:8080"

_EPILOG: Final = """\
Where the server asks for credentials, viewers sign in with a token of their own, or a proxy sends it
for them. All others see what the console's own credentials may see, and ask with its rights: give it
a token that may only read. It listens on this machine alone; to offer it to others, put a proxy with
TLS before it, and name the host that browsers use with --public-host.

examples:
  xai-console --server 127.0.0.1:50051
  xai-console --run RUN
  xai-console --server models.example:443 --tls --token-file viewer.token --listen 127.0.0.1:9000
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status. Failures are one line on stderr.

    Args:
        argv: The arguments; None for those of the process.
    """
    parser = _parser()
    try:
        settings = _settings(parser, parser.parse_args(argv))
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0
    if importlib.util.find_spec("nicegui") is None:
        return _fail("the console needs packages of its own: pip install 'xai-sidecar[console]'", 2)
    from xai_console.server import serve

    try:
        with contextlib.ExitStack() as beside:
            if settings.run:
                settings = replace(settings, server=beside.enter_context(run_server(Path(settings.run))))
            serve(settings, lambda address: print(f"The console is at {address}", flush=True))
    except RunError as error:
        return _fail(str(error), error.status)
    except OSError as error:
        return _fail(f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        pass
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xai-console",
        description="Shows in a browser what a model predicts, where it looks, and how far that can be trusted.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--server", metavar="HOST:PORT", help=f"the server to show (default: $XAI_SERVER, else {_SERVER})"
    )
    shown.add_argument(
        "--run",
        type=Path,
        metavar="RUN",
        help="show the folder of an offline run, also of one that goes on; needs the server's packages, but no model",
    )
    parser.add_argument(
        "--listen", default=_LISTEN, metavar="HOST:PORT", help=f"where to serve pages (default: {_LISTEN})"
    )
    parser.add_argument(
        "--public-host",
        action="append",
        default=[],
        metavar="HOST",
        help="a name that browsers reach the console by; needed to listen beyond this machine; repeatable",
    )
    add_credentials(parser)
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="longest time for a call (default: 30)"
    )
    return parser


def _settings(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Settings:
    """The settings; ends the program where the arguments do not go together."""
    try:
        host, port = split_address(arguments.listen)
    except ValueError as error:
        parser.error(str(error))
    if not is_loopback(host) and not arguments.public_host:
        parser.error(
            f"{host} can be reached from other machines, and the console has no TLS: put a proxy with it, and a log-in"
            " where the server has none, before it, and name the host that browsers use with --public-host"
        )
    if arguments.run is not None and not arguments.run.is_dir():
        parser.error(f"there is no folder {arguments.run}")
    if not arguments.timeout > 0:
        parser.error("--timeout is a number of seconds above 0")
    server = arguments.server or os.environ.get("XAI_SERVER") or _SERVER
    credentials = _credentials(parser, arguments, server)
    return Settings(
        server=server,
        host=host,
        port=port,
        public_hosts=tuple(arguments.public_host),
        tls=credentials["tls"],
        token_file=credentials["token"],
        timeout=arguments.timeout,
        run="" if arguments.run is None else str(arguments.run),
    )


def _credentials(parser: argparse.ArgumentParser, arguments: argparse.Namespace, server: str) -> dict[str, Any]:
    """What the server is shown, tried once, since the console makes its client much later."""
    if arguments.run is not None:
        if any((arguments.tls, arguments.ca, arguments.certificate, arguments.key, arguments.token_file)):
            parser.error("--run is read on this machine: --tls, --token-file and the like go with --server")
        return {"tls": None, "token": None}
    try:
        credentials = credentials_of(arguments)
        channel_credentials(server, token_of(credentials["token"]), credentials["tls"], None)
    except (ArgumentError, OSError) as error:
        parser.error(str(error))
    return credentials


def _fail(message: str, status: int) -> int:
    print(f"xai-console: {message}", file=sys.stderr)
    return status
