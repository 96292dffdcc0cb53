"""Locks that keep a store to one server: another one would mark the samples that wait there as lost."""

from __future__ import annotations

import fcntl
import os
import socket
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from sqlalchemy import Connection, text

from xai_sidecar.errors import ConfigError

_LOCK = 0x7861_695F  # any number that other programs are unlikely to use

_MINE = "SELECT pg_try_advisory_lock(:lock, hashtext(current_schema()))"
_NAMED = "SELECT set_config('application_name', :name, false)"
_OWNER = """
SELECT activity.application_name, activity.client_addr::text, activity.backend_start::text
FROM pg_locks locks JOIN pg_stat_activity activity USING (pid)
WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 2
  AND locks.classid::bigint = :lock
  AND locks.objid::bigint = (hashtext(current_schema())::bigint & 4294967295)
  AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def lock_file(path: Path) -> IO[str]:
    """Locks a file until it is closed, or the process ends, and writes the owner into it.

    Raises:
        ConfigError: Another process has locked it.
        OSError: It cannot be opened.
    """
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(f"{_name()}, since {datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S} UTC")
        file.flush()
    except BlockingIOError:
        with file:
            file.seek(0)
            raise _in_use(file.read(300)) from None
    except BaseException:
        file.close()
        raise
    return file


def lock_schema(connection: Connection) -> None:
    """Locks the first schema of a PostgreSQL connection's search path until the connection ends.

    Raises:
        ConfigError: Another process has locked it.
    """
    mine = connection.scalar(text(_MINE), {"lock": _LOCK})
    if mine is False:  # None: there is no such schema
        owner = connection.execute(text(_OWNER), {"lock": _LOCK}).first()
        raise _in_use("" if owner is None else f"{owner[0]} from {owner[1] or 'there'}, since {owner[2]}")
    connection.execute(text(_NAMED), {"name": f"xai-sidecar, {_name()}"})


def _name() -> str:
    return f"process {os.getpid()} on {socket.gethostname()[:30]}"


def _in_use(owner: str) -> ConfigError:
    shown = " ".join(owner.split())
    return ConfigError(
        f"Another server uses this store{shown and f': {shown}'}. End that one, or give each a store of its own, by "
        "evaluator.store.",
        field="evaluator.store",
    )
