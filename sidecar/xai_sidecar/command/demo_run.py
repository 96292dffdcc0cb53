"""The course of `xai-sidecar demo`: the console first, then the server, then what it is asked."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from xai_sidecar.command.demo import (
    ask,
    demo_addresses,
    demo_config,
    farewell,
    free_address,
    served_at,
    suggestions,
    with_ood,
)
from xai_sidecar.command.demo_console import console, send_pictures, tell_progress


def run_demo(arguments: argparse.Namespace, report: Callable[[str], None], serve: Callable[..., int]) -> int:
    """Runs the demo until it is ended, or with --once until it has its answer.

    Args:
        arguments: Of the command line.
        report: Called with a line before each step that takes time.
        serve: Serves a config; takes what to call when the server is ready, and `report`. Returns the exit status.

    Returns:
        The exit status.
    """
    started = time.monotonic()
    addresses = demo_addresses()
    with contextlib.ExitStack() as beside:
        address = ""
        if not arguments.once:
            address = beside.enter_context(console(served_at(addresses, arguments.set), free_address(8080)))
        if address:
            print(f"The web console: {address} (it shows the server as soon as that is ready)", flush=True)
        config = demo_config(arguments.set, report, addresses)
        asking = _Asking(arguments, started, address, report)
        status = serve(with_ood(config, report), asking.begin, report) or asking.status
    if arguments.once and status == 0:
        print(farewell())
    return status


class _Asking:
    """Asks the server once it is ready, in a thread of its own.

    Args:
        arguments: Of the command line.
        started: When the demo began.
        console: Where the web console is; empty where there is none.
        report: Called with a line for each thing that is there to be looked at.

    Attributes:
        status: 1 if the server's answer was wrong.
    """

    def __init__(
        self, arguments: argparse.Namespace, started: float, console: str, report: Callable[[str], None]
    ) -> None:
        self.status = 0
        self._arguments, self._started, self._console, self._report = arguments, started, console, report

    def begin(self, server: Any) -> None:
        """Begins, in the server's event loop."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._ask, args=(server, loop), name="demo", daemon=True).start()

    def _ask(self, server: Any, loop: asyncio.AbstractEventLoop) -> None:
        request_id = ""
        try:
            text, request_id = ask(server.grpc_address, self._arguments.out, time.monotonic() - self._started)
            print(text, flush=True)
        except Exception as error:
            print(f"xai-sidecar: the demo's own request failed: {error}", file=sys.stderr)
            self.status = 1
        if self._arguments.once or self.status:
            loop.call_soon_threadsafe(server.stop)
            return
        sampled = 0
        with contextlib.suppress(Exception):  # the server may be ended meanwhile
            if self._console:
                sampled = send_pictures(server.grpc_address, self._report)
        print(suggestions(server.grpc_address, server.http_address, request_id, self._console), flush=True)
        with contextlib.suppress(Exception):
            if sampled:
                tell_progress(server.grpc_address, sampled, self._report)
