"""The databases of the store, SQLite and PostgreSQL: transactions, size, and freeing room."""

from __future__ import annotations

import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, Engine, event, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from xai_sidecar.errors import ConfigError, StoreBlockedError, StoreError
from xai_sidecar.evaluator.store.claims import lock_file, lock_schema
from xai_sidecar.evaluator.store.migrating import check, migrate
from xai_sidecar.evaluator.store.tables import METADATA, samples

DATABASE_ERRORS = (SQLAlchemyError, sqlite3.Error)
"""Errors that are wrapped as StoreError; SQLite's own come from statements that bypass SQLAlchemy."""

_JOURNAL_BYTES = 16 << 20
MOST_JOURNAL_BYTES = 64 << 20
"""Largest size of SQLite's write-ahead log while another program keeps it from being emptied."""

_SHORTENING_SECONDS = 1.0
"""Least time between two attempts to shorten the journal."""

_VACUUMED_BYTES = 4 << 20
"""Bytes freed in one transaction, for which other writers wait; fewer are not worth it."""

_BUSY_SECONDS = 20
_AGAIN_SECONDS = 0.02
_MIGRATION_LOCK = 0x7861_695F_7363  # any number that other programs are unlikely to use


class Database(ABC):
    """A database. It may be used from several threads at once.

    Args:
        engine: Its connections.
        reading: Execution options of connections that read.
        writing: Execution options of connections that write.
        secret: Password, which no error message may show; may be empty.
    """

    def __init__(self, engine: Engine, reading: dict[str, Any], writing: dict[str, Any], secret: str = "") -> None:
        self.engine = engine
        self._reading = engine.execution_options(**reading)
        self._writing = engine.execution_options(**writing)
        self._secret = secret
        self._closed = False

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that reads a snapshot: everything as of one moment.

        Raises:
            StoreError: The database failed.
        """
        with self._wrapping_errors(), self._reading.begin() as connection:
            yield connection

    @contextmanager
    def write(self, *, growing: bool = False) -> Iterator[Connection]:
        """A transaction that writes: done as a whole or, after any error, not at all. Once ended it outlasts a crash.

        Args:
            growing: Whether it adds data that may be large.

        Raises:
            StoreBlockedError: It would grow, and there is no room until other programs let go of it.
            StoreError: The database failed.
        """
        with self._wrapping_errors(), self._writing.begin() as connection:
            yield connection

    def close(self) -> None:
        """Closes the connections; nothing can be read or written any more."""
        self._closed = True
        self.engine.dispose()

    @abstractmethod
    def prepare(self) -> None:
        """Migrates the tables to the newest version.

        Raises:
            ConfigError: It is not the sidecar's, or of a newer version; it is left unchanged.
        """

    @abstractmethod
    def claim(self) -> None:
        """Locks it for this process until it is closed, or the process ends. A second call changes nothing.

        Raises:
            ConfigError: Another process has locked it.
        """

    def journal_bytes(self) -> int:
        """Size of the write-ahead log, of changes that are not in the database file yet."""
        return 0

    @property
    def blocked(self) -> bool:
        """Whether transactions that are `growing` are refused at the moment."""
        return self.journal_bytes() > MOST_JOURNAL_BYTES

    @abstractmethod
    def used_bytes(self, connection: Connection) -> int:
        """The size that `max_bytes` limits, as of this transaction."""

    @abstractmethod
    def reclaim(self, max_bytes: int) -> None:
        """Frees the room of removed rows, as far as needed to stay within `max_bytes`."""

    def explain(self, error: BaseException) -> str:
        """The driver's message of an error, in one line and without the password."""
        cause = getattr(error, "orig", None) or error
        line = " ".join(str(cause).split()).rstrip(".") or type(cause).__name__
        return line.replace(self._secret, "***") if self._secret else line

    @contextmanager
    def _wrapping_errors(self) -> Iterator[None]:
        if self._closed:
            raise StoreError("The evaluator's store is closed: the server is ending.")
        try:
            yield
        except DATABASE_ERRORS as error:
            raise StoreError(f"The evaluator's store failed: {self.explain(error)}. Try again.") from error


class SqliteDatabase(Database):
    """A file, or memory. One thread writes at a time; meanwhile others read the state before.

    Args:
        engine: Its connections.
        in_memory: Whether there is no file.
    """

    def __init__(self, engine: Engine, in_memory: bool) -> None:
        # A transaction that begins by reading could not write after another one has written.
        super().__init__(engine, reading={"begin": "BEGIN"}, writing={"begin": "BEGIN IMMEDIATE"})
        self._in_memory = in_memory
        self._claim: IO[str] | None = None
        self._next_shortening = 0.0
        # Waiting for SQLite's own lock is polling, in which a thread may be overtaken for long.
        self._write_lock = threading.Lock()
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "begin", self._begun)

    @contextmanager
    def write(self, *, growing: bool = False) -> Iterator[Connection]:
        """See `Database.write`. While another program reads, the journal cannot be made shorter, only longer."""
        with self._write_lock:
            if growing and self.blocked:
                self._shorten_journal()
                if self.blocked:
                    raise StoreBlockedError(
                        f"Another program reads the evaluator's store for so long that its journal has grown to "
                        f"{self.journal_bytes() >> 20} MiB. Nothing more is kept until that program lets go of it."
                    )
            with super().write() as connection:
                yield connection

    def journal_bytes(self) -> int:
        """See `Database.journal_bytes`: the size of the write-ahead log."""
        try:
            return 0 if self._in_memory else Path(f"{self.engine.url.database}-wal").stat().st_size
        except OSError:
            return 0

    def _shorten_journal(self) -> None:
        """Checkpoints the journal as far as readers allow, and truncates it if they allow all."""
        now = time.monotonic()
        if now < self._next_shortening:
            return
        self._next_shortening = now + _SHORTENING_SECONDS
        with self._wrapping_errors(), self._reading.connect() as connection:
            self._pragma(connection, "busy_timeout = 100")
            try:
                self._pragma(connection, "wal_checkpoint(TRUNCATE)")
            finally:
                self._pragma(connection, f"busy_timeout = {_BUSY_SECONDS * 1000}")

    def prepare(self) -> None:
        """See `Database.prepare`."""
        # Checked before anything, even the journal, is changed.
        with self._reading.begin() as connection:
            wanting = check(connection, alone=True)
        with self._writing.connect() as connection:
            if wanting:
                self._pragma(connection, "auto_vacuum = INCREMENTAL")
            mode = self._journal_mode(connection)
            if mode != ("memory" if self._in_memory else "wal"):
                raise ConfigError("SQLite cannot keep a write-ahead log there. Name a file on a local disk.")
            # A migration may have to make a table anew; its rows' children must not go with the old one.
            self._pragma(connection, "foreign_keys = OFF")
            try:
                with connection.begin():
                    if check(connection, alone=True):
                        migrate(connection)
                        orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                        if orphans:
                            raise ConfigError(f"The database is damaged: {len(orphans)} rows belong to nothing.")
            finally:
                self._pragma(connection, "foreign_keys = ON")

    def _journal_mode(self, connection: Connection) -> str:
        """Sets the mode of the journal, and says which one it is then.

        SQLite does not wait for others who have the database open, as it does elsewhere, before it changes that.
        """
        until = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                ((mode,),) = self._pragma(connection, "journal_mode = WAL")
                return str(mode)
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() >= until:
                    raise
                time.sleep(_AGAIN_SECONDS)

    def claim(self) -> None:
        """See `Database.claim`. The lock is on a file beside it: SQLite has locks of its own on the file itself."""
        path = self.engine.url.database
        if not self._in_memory and path is not None and self._claim is None:
            self._claim = lock_file(Path(f"{path}.lock"))

    def close(self) -> None:
        """See `Database.close`."""
        super().close()
        if self._claim is not None:
            self._claim.close()

    def used_bytes(self, connection: Connection) -> int:
        """The pages in use; see `Database.used_bytes`."""
        pages = self._number(connection, "page_count") - self._number(connection, "freelist_count")
        return pages * self._number(connection, "page_size")

    def reclaim(self, max_bytes: int) -> None:
        """Shrinks the file to `max_bytes`; below that, empty pages are kept for new rows."""
        if self._in_memory:
            return
        shrunk = False
        while True:
            with self.write() as connection:
                page_bytes = self._number(connection, "page_size")
                excess = self._number(connection, "page_count") - max_bytes // page_bytes
                count = min(excess, self._number(connection, "freelist_count"), _VACUUMED_BYTES // page_bytes)
                if count <= 0:
                    break
                self._pragma(connection, f"incremental_vacuum({count})")
                shrunk = True
        if self.journal_bytes() > _JOURNAL_BYTES:
            with self._write_lock:
                self._shorten_journal()
        elif shrunk:
            # The file itself is made shorter when the journal is written to it.
            with self._wrapping_errors(), self._reading.connect() as connection:
                self._pragma(connection, "wal_checkpoint(PASSIVE)")

    @staticmethod
    def _number(connection: Connection, name: str) -> int:
        return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())

    @staticmethod
    def _pragma(connection: Connection, pragma: str) -> list[Any]:
        """A pragma, outside of a transaction unless one has begun; SQLAlchemy would begin one."""
        cursor = connection.connection.cursor()
        try:
            cursor.execute(f"PRAGMA {pragma}")
            # Rows even where there are no columns: each row is a step of its work.
            return list(cursor.fetchall())
        finally:
            cursor.close()

    @staticmethod
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins no transactions of its own; see `_begun`
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA secure_delete = ON")  # pictures that go are gone
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
        cursor.close()

    @staticmethod
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


class PostgresDatabase(Database):
    """Tables in the first schema of the search path of a PostgreSQL server.

    Args:
        engine: Its connections.
        secret: The password.
    """

    def __init__(self, engine: Engine, secret: str) -> None:
        # Several statements make up what is read; by default each would see another moment.
        reading = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        super().__init__(engine, reading, {}, secret)
        self._claim: Connection | None = None

    def prepare(self) -> None:
        """See `Database.prepare`."""
        with self._writing.begin() as connection:
            # Several servers may start at once.
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            if check(connection, alone=False):
                migrate(connection)

    def claim(self) -> None:
        """See `Database.claim`. The connection that holds it may break; then it is as if it had not been claimed."""
        if self._claim is None:
            self._claim = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            lock_schema(self._claim)

    def close(self) -> None:
        """See `Database.close`."""
        if self._claim is not None:
            self._claim.invalidate()
            self._claim = None
        super().close()

    def used_bytes(self, connection: Connection) -> int:
        """The size of the rows, estimated: PostgreSQL does not report used and free room apart."""
        return int(connection.scalar(select(func.coalesce(func.sum(samples.c.byte_count), 0))) or 0)

    def reclaim(self, max_bytes: int) -> None:
        """Vacuums where the tables take over a fifth more than the rows."""
        with self.read() as connection:
            sizes = [func.pg_total_relation_size(func.to_regclass(name)) for name in METADATA.tables]
            size = sum(connection.execute(select(*sizes)).one())
            if size <= self.used_bytes(connection) * 1.2 + _VACUUMED_BYTES:
                return
        with (
            self._wrapping_errors(),
            self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        ):
            connection.execute(text(f"VACUUM {', '.join(METADATA.tables)}"))
