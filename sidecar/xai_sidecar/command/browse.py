"""`xai-sidecar browse`: shows the folder of a run by the same services as a server, for the console and the SDK."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing it takes a while, and the command line has to answer at once
    from xai_sidecar.runner.browsing import BrowsedRun

_UNIX = "unix:"
_STOP_SECONDS = 0.5


def add_browse(commands: Any) -> argparse.ArgumentParser:
    """Adds the command; returns its parser."""
    browse: argparse.ArgumentParser = commands.add_parser(
        "browse",
        help="show a run to the console and the SDK",
        description="Show the folder of a run, also of one that goes on, by the services of a server, but that nothing "
        "is predicted or changed: ListSamples, GetQuality and so on. xai-console --run RUN starts it by itself.",
    )
    browse.add_argument("run_folder", type=Path, metavar="RUN", help="the folder of the run")
    browse.add_argument(
        "--listen",
        default="127.0.0.1:0",
        metavar="HOST:PORT",
        help="where to serve gRPC, without a log-in; also unix:PATH (default: a free port of this machine alone)",
    )
    browse.add_argument(
        "--until-eof",
        action="store_true",
        help="end once stdin is closed, as by whoever started it, and remove the folder of a unix:PATH if it is empty",
    )
    return browse


def browse(arguments: argparse.Namespace) -> int:
    """Shows a run until it is ended; returns the exit status."""
    from xai_sidecar.errors import ConfigError, StoreError
    from xai_sidecar.runner.browsing import BrowsedRun
    from xai_sidecar.runner.folder import RunFolder

    try:
        run = BrowsedRun(RunFolder(arguments.run_folder))
    except StoreError as error:
        raise ConfigError(error.message, field="run") from error
    try:
        asyncio.run(_serve(run, arguments))
    finally:
        run.close()
    return 0


async def _serve(run: BrowsedRun, arguments: argparse.Namespace) -> None:
    import grpc
    from prometheus_client import CollectorRegistry

    from xai_proto import explanation_pb2_grpc as pb_grpc
    from xai_proto import quality_pb2_grpc as qpb_grpc
    from xai_sidecar.explainers.discovery import installed_explainers
    from xai_sidecar.rpc.channel import server_options
    from xai_sidecar.rpc.interceptors import CallInterceptor
    from xai_sidecar.rpc.quality_servicer import QualityServicer
    from xai_sidecar.rpc.run_servicer import RunServicer
    from xai_sidecar.serving.call_records import CallRecords
    from xai_sidecar.serving.quality import Quality
    from xai_sidecar.telemetry import Telemetry

    limits, name = run.limits, arguments.run_folder.resolve().name
    calls = CallRecords(Telemetry(CollectorRegistry(), installed_explainers()), limits)
    server = grpc.aio.server(
        interceptors=[CallInterceptor(calls)], options=server_options(limits.max_message_bytes, limits.max_calls)
    )
    quality = Quality(run)
    pb_grpc.add_ExplanationServiceServicer_to_server(RunServicer(run, name), server)  # type: ignore[no-untyped-call]
    qpb_grpc.add_QualityServiceServicer_to_server(QualityServicer(quality), server)  # type: ignore[no-untyped-call]
    ended = asyncio.Event()
    _end_with(ended.set, until_eof=arguments.until_eof)
    address = _listen(server, arguments.listen)
    await server.start()
    print(f"{name} is shown at {address}", flush=True)
    await ended.wait()
    quality.end_watching()
    await server.stop(_STOP_SECONDS)
    quality.close()
    if arguments.until_eof and address.startswith(_UNIX):
        with suppress(OSError):  # who started it may do that, too, unless it was killed
            Path(address.removeprefix(_UNIX)).parent.rmdir()


def _listen(server: Any, address: str) -> str:
    """Has the server listen; returns where.

    Raises:
        ConfigError: It cannot, or others could read the run there; field "listen".
    """
    from xai_sidecar.command.addresses import joined, split
    from xai_sidecar.command.listening import listen_grpc
    from xai_sidecar.config.listening import is_loopback
    from xai_sidecar.errors import ConfigError

    unix = address.startswith(_UNIX)
    if not unix and not is_loopback(address):
        raise ConfigError(
            f"{address} is not this machine's alone, and there is no log-in. Listen on 127.0.0.1:PORT or unix:PATH, "
            "and forward that.",
            field="listen",
        )
    try:
        if unix:
            server.add_insecure_port(address)
            return address
        return joined(split(address)[0], listen_grpc(server, address))
    except (ConfigError, RuntimeError, ValueError) as error:
        cure = "Name another port or path."
        raise ConfigError(f"it is not possible to listen on {address}. {cure}", field="listen") from error


def _end_with(end: Callable[[], None], *, until_eof: bool) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if until_eof:
        # Not by the loop, which cannot wait for a file, such as /dev/null.
        threading.Thread(target=_await_eof, args=(loop, end), name="stdin", daemon=True).start()


def _await_eof(loop: asyncio.AbstractEventLoop, end: Callable[[], None]) -> None:
    descriptor = sys.stdin.fileno()
    while os.read(descriptor, 1024):
        pass
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(end)
