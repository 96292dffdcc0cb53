"""The part of the store that keeps what is shown of samples besides maps and scores, and says how large it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from xai_sidecar.evaluator.records import SampleKey, ScoreRecord
from xai_sidecar.evaluator.store import details
from xai_sidecar.evaluator.store.changes import Change, Changes
from xai_sidecar.evaluator.store.database import Database
from xai_sidecar.evaluator.store.queries import locked, put_scores, recount
from xai_sidecar.evaluator.store.tables import store_secrets
from xai_sidecar.explainers.base import MapStatus


@dataclass(frozen=True)
class DetailBounds:
    """Bounds of what goes before its sample does; see `DetailStore.prune_details`.

    Attributes:
        map_bytes: Most bytes of maps, as they are kept.
        picture_bytes: Most bytes of thumbnails and model inputs together.
        picture_seconds: How long these are kept.
    """

    map_bytes: int = 1 << 50
    picture_bytes: int = 1 << 50
    picture_seconds: float = math.inf


class DetailStore:
    """See `Store`, of which this is a part.

    Args:
        database: A prepared database.
        bounds: Bounds of maps and pictures.

    Attributes:
        changes: Tells of changes.
    """

    def __init__(self, database: Database, bounds: DetailBounds) -> None:
        self._database = database
        self.changes = Changes()
        self._bounds = bounds

    @property
    def database(self) -> Database:
        """The database, for those who read."""
        return self._database

    def claim(self) -> None:
        """Locks the database for this process: another server would mark its pending samples as lost.

        Raises:
            ConfigError: Another process has locked it.
        """
        self._database.claim()

    def sampling_salt(self) -> bytes:
        """A secret that the store was created with, different in each store."""
        with self._database.read() as connection:
            found = select(store_secrets.c.value).where(store_secrets.c.name == "sampling")
            return bytes(connection.execute(found).scalar_one())

    def close(self) -> None:
        """Closes the database: later calls raise `StoreError`."""
        self._database.close()

    def put_withheld(
        self,
        key: SampleKey,
        explainer: str,
        target: int,
        status: MapStatus,
        pass_count: int,
        measured: Sequence[ScoreRecord] = (),
    ) -> None:
        """As `Store.add_map`, of a map that was made and must not be shown."""
        with self._database.write() as connection:
            if (sample_id := locked(connection, key)) is not None:
                row = details.explained_row(explainer, target, status, pass_count)
                details.put_explained(connection, sample_id, row)
                put_scores(connection, sample_id, measured)
                details.recount_explained(connection, sample_id)

    def put_picture(self, key: SampleKey, thumbnail: bytes, png: bytes) -> None:
        """Stores a sample's thumbnail and what the model saw, as JPEG and PNG files; of either there may be none."""
        with self._database.write(growing=True) as connection:
            sample_id = locked(connection, key)
            if sample_id is None:
                return
            details.put_picture(connection, sample_id, thumbnail, png)
            recount(connection, sample_id)
        self.changes.put(key, Change.NEW)  # to those who were told of it before there was a thumbnail

    def prune_details(self, now: float) -> None:
        """Removes the oldest maps and pictures beyond their bounds; their samples and scores stay.

        Args:
            now: Unix time in seconds.
        """
        horizon = now - self._bounds.picture_seconds
        self._prune(details.PICTURES, horizon, self._bounds.picture_bytes)
        self._prune(details.MAPS, -math.inf, self._bounds.map_bytes)

    def _prune(self, columns: details.Columns, horizon: float, most: int) -> None:
        while True:
            with self._database.read() as connection:  # what takes long, for which no writer has to wait so
                ids = details.oldest_of(connection, columns, horizon, most)
            if not ids:
                return
            with self._database.write() as connection:
                details.remove_of(connection, columns, ids)

    def byte_count(self) -> int:
        """Bytes in use of `max_bytes`."""
        with self._database.read() as connection:
            return self._database.used_bytes(connection)

    def journal_bytes(self) -> int:
        """Size of SQLite's write-ahead log, which `max_bytes` does not count."""
        return self._database.journal_bytes()

    @property
    def blocked(self) -> bool:
        """Whether writing large data raises `StoreBlockedError`, as another program has been reading for too long."""
        return self._database.blocked
