"""A server process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(config: Path, checkout: str | None = None) -> Iterator[tuple[str, float, int]]:
    """Serves a config file in a process of its own, by the code of another checkout if one is named.

    Yields the address, the seconds that it took to be ready, and the process id.
    """
    environment = dict(os.environ)
    if checkout:
        environment["PYTHONPATH"] = os.pathsep.join(f"{checkout}/{room}" for room in ("proto", "client", "sidecar"))
    module = "xai_sidecar.cli" if checkout else "xai_sidecar"  # which all versions have
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", module, "serve", "--config", str(config), "--set", "server.log_format=json"],
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    try:
        for line in process.stderr or ():
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("event") == "ready":
                break
        else:
            raise RuntimeError("the server did not start")
        seconds = time.monotonic() - started
        # The log of single requests is not wanted, but must be read so that the server does not block on the pipe.
        drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        try:
            yield entry["grpc"], seconds, process.pid
        finally:
            process.terminate()
            process.wait(60)
            drain.wait(60)
    finally:
        process.kill()
