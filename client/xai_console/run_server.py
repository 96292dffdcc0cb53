"""An offline run shown by the server's own program, which reads its folder: started with the console, ended with it."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_PROGRAM: Final = "xai_sidecar"
_ENDING_SECONDS: Final = 10.0
_MISSING: Final = (
    "--run needs the server's packages, which read the folder of a run: pip install 'xai-sidecar[console,onnx]'. Or "
    "start xai-sidecar browse RUN where they are, and name its address by --server."
)


class RunError(Exception):
    """A run cannot be shown.

    Attributes:
        status: The exit status to end with.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def run_server(run: Path) -> Iterator[str]:
    """Shows a run while the console does.

    The program listens on a socket in a folder that is this user's alone. It ends when its stdin does, and removes the
    folder: also where this process is killed.

    Args:
        run: The folder of the run.

    Yields:
        The address for the SDK.

    Raises:
        RunError: It cannot be shown. What the program said of it is on stderr.
    """
    if importlib.util.find_spec(_PROGRAM) is None:
        raise RunError(_MISSING, 2)
    with _tidied(), tempfile.TemporaryDirectory(prefix="xai-console-", ignore_cleanup_errors=True) as folder:
        address = f"unix:{folder}/run.sock"
        command = [sys.executable, "-m", _PROGRAM, "browse", str(run), "--listen", address, "--until-eof"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603
            try:
                if process.stdout is None or not process.stdout.readline():
                    raise RunError(f"the run {run} cannot be shown", process.wait() or 1)
                yield address
            finally:
                _end(process)


@contextmanager
def _tidied() -> Iterator[None]:
    """Has SIGTERM end the process like Ctrl-C, so that nothing is left behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    try:
        process.wait(_ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
