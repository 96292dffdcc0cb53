"""Migration of a database to the newest version of the tables.

A new version is a file in `migrations/versions`, `v` and its number, and the change of `tables.py`; tests compare the
two, and the number with Alembic's. An empty database gets the newest tables at once. Alembic is imported only to
migrate: that takes a tenth of a start.
"""

from __future__ import annotations

import secrets
import threading
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select

from xai_sidecar.errors import ConfigError
from xai_sidecar.evaluator.store.tables import METADATA, store_secrets

MIGRATIONS = Path(__file__).parent / "migrations"

VERSION_TABLE = "xai_schema_version"
"""Not Alembic's usual name, which another program in the same database may use."""

# As Alembic makes it.
_VERSIONS = Table(
    VERSION_TABLE,
    MetaData(naming_convention={"pk": "%(table_name)s_pkc"}),
    Column("version_num", String(32), primary_key=True),
)

_SALT_BYTES = 16

_one_at_a_time = threading.Lock()
"""Alembic's `context` and `op` are global to the process."""


def check(connection: Connection, *, alone: bool) -> bool:
    """Whether there are migrations to run; changes nothing.

    Args:
        connection: In a transaction.
        alone: Whether tables of other programs are refused.

    Raises:
        ConfigError: The tables are of a newer version, or another program's.
    """
    present = set(inspect(connection).get_table_names())
    if VERSION_TABLE not in present:
        foreign = present if alone else present & set(METADATA.tables)
        if foreign:
            raise ConfigError(
                f"The database has a table {min(foreign)!r} that is not the sidecar's. "
                "Name a database of its own, which may be empty or not exist yet."
                if alone
                else f"The database has a table {min(foreign)!r} that is not the sidecar's. "
                "Name a database or, with ?options=-csearch_path%3Dname, a schema of its own.",
            )
        return True
    known = known_versions()
    versions = set(connection.scalars(select(_VERSIONS.c.version_num)))
    if versions - known:
        raise ConfigError(
            f"The database is of version {', '.join(sorted(versions))}, written by a newer xai-sidecar; "
            f"this one knows {max(known)}. Install the newer one again, or name another database.",
        )
    return versions != {max(known)}


def known_versions() -> set[str]:
    """The versions of the tables that there are, such as "0004"; the newest is the largest."""
    return {path.stem.removeprefix("v") for path in (MIGRATIONS / "versions").glob("v*.py")}


def migrate(connection: Connection) -> None:
    """Migrates to the newest version, as part of the connection's transaction."""
    if inspect(connection).has_table(VERSION_TABLE):
        upgrade(connection)
        return
    METADATA.create_all(connection, checkfirst=False)
    _VERSIONS.create(connection, checkfirst=False)
    connection.execute(insert(_VERSIONS).values(version_num=max(known_versions())))
    connection.execute(insert(store_secrets).values(name="sampling", value=secrets.token_bytes(_SALT_BYTES)))


def upgrade(connection: Connection) -> None:
    """Runs the migrations that a database lacks, which may be all."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    with _one_at_a_time:
        command.upgrade(config, "head")
