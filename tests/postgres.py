"""A real PostgreSQL on a free loopback port, with data of its own, for as long as the tests need it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path

import psycopg

USER = "evaluator"
PASSWORD = "not-to-be-shown"


def binary(name):
    """The path of one of the server's programs, which Debian does not put on the PATH."""
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    path = str(newest[-1]) if newest else shutil.which(name)
    assert path, f"PostgreSQL's {name} is missing; on Debian: apt install postgresql"
    return path


class Postgres:
    """A server.

    Args:
        folder: Of its data, which belongs to `owner`.
        owner: Options of `Popen`: it refuses to run as root.
    """

    def __init__(self, folder, owner):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._folder = folder
        self._owner = owner
        self._process = None
        self._numbers = count()

    def url(self, database, password=PASSWORD):
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def sql(self, statement, database="postgres"):
        """Runs a statement; returns the rows, if there are any."""
        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def database(self):
        """The name of a new, empty database."""
        name = f"test_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name}")
        yield name
        self.sql(f"DROP DATABASE {name} WITH (FORCE)")

    def start(self):
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._folder,
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "40",
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [binary("postgres"), "-D", self._folder / "data", "-p", str(self.port), *settings],
                stdout=log, stderr=log, cwd=self._folder, **self._owner,
            )  # fmt: skip
        end = time.monotonic() + 30
        while True:
            try:
                self.sql("SELECT 1")
                return
            except psycopg.OperationalError:
                ended = self._process.poll() is not None
                assert not ended and time.monotonic() < end, (self._folder / "log").read_text()
                time.sleep(0.05)

    def stop(self):
        """Ends it, connections or not."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


@contextlib.contextmanager
def running():
    """A server that has just been set up."""
    owner = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    # Not below pytest's folder, which another user may not enter.
    folder = Path(tempfile.mkdtemp(prefix="xai-postgres-"))
    try:
        (folder / "password").write_text(PASSWORD)
        if owner:
            for path in (folder, folder / "password"):
                shutil.chown(path, owner["user"], owner["group"])
        made = subprocess.run(
            [binary("initdb"), "-D", folder / "data", "-U", USER, "--pwfile", folder / "password",
             "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"],
            capture_output=True, text=True, cwd=folder, **owner,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        server = Postgres(folder, owner)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
