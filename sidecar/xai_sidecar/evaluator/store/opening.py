"""Opening the database that the config names by a URL."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from xai_sidecar.errors import ConfigError
from xai_sidecar.evaluator.store.database import DATABASE_ERRORS, Database, PostgresDatabase, SqliteDatabase

FIELD = "evaluator.store"

_SQLITE = ("sqlite", "sqlite+pysqlite")
_POSTGRES = ("postgresql", "postgresql+psycopg", "postgres")
_EXAMPLES = "Use sqlite:///folder/file.db or postgresql://user:password@host/database."

# Bounds on waiting for a server that does not answer, or whose connection broke silently.
_POSTGRES_DEFAULTS = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "xai-sidecar",
}


def open_database(url: str, *, claim: bool = False) -> Database:
    """Opens a database, or creates it, and brings it to the newest version of the tables.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``sqlite://`` for memory, or
            ``postgresql://user:password@host/database``.
        claim: Whether to take it for this process alone.

    Raises:
        ConfigError: It cannot be used, or another process has taken it, and is as it was.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Without the error, which may quote the password.
        raise ConfigError(f"This is no database's URL. {_EXAMPLES}", field=FIELD) from None
    database: Database
    if parsed.drivername in _SQLITE:
        database, shown = _sqlite(parsed), parsed.database or "memory"
        cure = "Name a file in a folder that the server may write."
    elif parsed.drivername in _POSTGRES:
        database, shown = _postgres(parsed), parsed.set(query={}).render_as_string(hide_password=True)
        cure = "Check that the server runs, and the user's rights."
    else:
        raise ConfigError(f"There is no store of the kind {parsed.drivername!r}. {_EXAMPLES}", field=FIELD)
    try:
        if claim:  # before anything that another server's transactions may delay
            database.claim()
        database.prepare()
    except ConfigError as error:
        database.close()
        raise ConfigError(f"{shown} cannot be used. {error.message}", field=FIELD) from error
    except (*DATABASE_ERRORS, OSError) as error:
        database.close()
        cause = database.explain(error)
        if "not a database" in cause:
            cure = "Name another file, or one that does not exist yet."
        raise ConfigError(f"{shown} cannot be opened: {cause}. {cure}", field=FIELD) from error
    return database


def _sqlite(url: URL) -> SqliteDatabase:
    if url.query or url.host:
        raise ConfigError(
            "An SQLite URL has three slashes before a relative path, four before an absolute one, and no options. "
            + _EXAMPLES,
            field=FIELD,
        )
    in_memory = url.database in (None, "", ":memory:")
    if not in_memory:
        folder = Path(str(url.database)).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"The folder {folder} cannot be made: {error.strerror}. Name one that the server may write.",
                field=FIELD,
            ) from error
    engine = create_engine(
        url.set(drivername="sqlite+pysqlite"),
        poolclass=QueuePool,
        # Each connection to memory would have a database of its own.
        pool_size=1 if in_memory else 5,
        max_overflow=0 if in_memory else 10,
        connect_args={"check_same_thread": False},
        hide_parameters=True,
    )
    return SqliteDatabase(engine, in_memory)


def _postgres(url: URL) -> PostgresDatabase:
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,  # or else the first call after the server was restarted would fail
            connect_args={name: value for name, value in _POSTGRES_DEFAULTS.items() if name not in url.query},
            hide_parameters=True,
        )
    except ImportError as error:
        raise ConfigError(
            "PostgreSQL needs psycopg, which is not there. Run: pip install 'xai-sidecar[postgres]'", field=FIELD
        ) from error
    secret = url.password or url.query.get("password") or ""
    return PostgresDatabase(engine, str(secret))
