"""A server process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(config: Path) -> Iterator[tuple[str, float, int]]:
    """Serves a config file in a process of its own.

    Yields the address, the seconds that it took to be ready, and the process id.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "xai_sidecar", "serve", "--config", str(config), "--set", "server.log_format=json"],
        stderr=subprocess.PIPE,
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
