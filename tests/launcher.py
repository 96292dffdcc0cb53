"""Starts processes of the product by forking one that has imported everything, which saves seconds for each.

`Popen` and `run` are those of `subprocess`, for command lines that begin with `PYTHON`. A process started so is one of
its own, a child of the caller with its own environment, folder and files; it differs from a fresh one in what it has
imported already. What a test says of imports and of the very start of a process takes `subprocess`.
"""

import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

PYTHON = sys.executable
CLI = (PYTHON, "-m", "xai_sidecar")
IMPORTED = (
    "xai_sidecar.command.demo",
    "xai_sidecar.command.server",
    "xai_sidecar.evaluator.store",
    "xai_sidecar.backends.mindspore.backend",
    "alembic.command",
    "numpy.random",
    "onnx",
)
"""Not ONNX Runtime, which starts a thread when it is imported: threads do not survive a fork."""

PR_SET_CHILD_SUBREAPER = 36


class Popen(subprocess.Popen):
    """A process that the launcher forks."""

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *others):
        _, _, _, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *rest = others
        assert args[0] == PYTHON, f"the launcher starts no other program than Python, and not {args[0]}"
        files = [given if given >= 0 else number for number, given in enumerate((p2cread, c2pwrite, errwrite))]
        whole = {"arguments": list(map(str, args[1:])), "cwd": os.fspath(cwd or Path.cwd()), "session": bool(rest[5])}
        self.pid = _Launcher.get().start({**whole, "environment": dict(os.environ if env is None else env)}, files)
        self._child_created = True
        pipes = ((p2cread, p2cwrite), (c2pwrite, c2pread), (errwrite, errread))
        for given in {theirs for theirs, ours in pipes if ours >= 0} | {getattr(self, "_devnull", -1)} - {-1}:
            os.close(given)


def run(command, *, timeout=None, capture_output=False, check=False, **options):
    """`subprocess.run`, forked."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(command, **options) as process:
        try:
            out, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, out, errors)
    if check:
        done.check_returncode()
    return done


class _Launcher:
    """The process that forks, and the way to it."""

    _only = None
    _lock = threading.Lock()

    @classmethod
    def get(cls):
        with cls._lock:
            if cls._only is None:
                cls._only = cls()
            return cls._only

    def __init__(self):
        # What it forks twice becomes a child of this process, which can wait for it as for any other.
        assert ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [PYTHON, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

    def start(self, wanted, files):
        """Has a process started; its id."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(wanted).encode()], files)
            answer = self._socket.recv(64)
        assert answer, "the launcher has ended"
        return int(answer)


def main(control):
    """Forks a process for each request until nobody can ask any more; returns in the processes, with the request."""
    importlib.import_module("xai_sidecar.command.environment").prepare_environment()
    for name in IMPORTED:
        importlib.import_module(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a thread would be missing in the processes"
    gc.freeze()
    while True:
        message, files, _, _ = socket.recv_fds(control, 1 << 20, 3)
        if not message:
            os._exit(0)
        reading, writing = os.pipe()
        if (between := os.fork()) == 0:
            if (process := os.fork()) == 0:
                control.close()
                os.close(reading)
                os.close(writing)
                return json.loads(message), files
            os.write(writing, b"%d" % process)
            os._exit(0)
        os.waitpid(between, 0)
        control.send(os.read(reading, 64))
        for each in (reading, writing, *files):
            os.close(each)


def become(wanted, files):
    """Makes this process what was asked for; returns the program and its arguments."""
    for number, given in enumerate(files):
        os.dup2(given, number)
    for given in set(files) - {0, 1, 2}:
        os.close(given)
    if wanted["session"]:
        os.setsid()
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.modules["numpy"].random.seed()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # MindSpore has one of its own
    return wanted["arguments"]


if __name__ == "__main__":
    asked, passed = main(socket.socket(fileno=int(sys.argv[1])))
    program, *rest = become(asked, passed)
    if program == "-m":
        name, *rest = rest
        sys.path[0] = str(Path.cwd())
        sys.argv = [name, *rest]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(program).resolve().parent)
        sys.argv = [program, *rest]
        runpy.run_path(program, run_name="__main__")
