"""Follows a store that another process writes."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import or_, select

from xai_sidecar.evaluator.records import SampleKey, SampleState
from xai_sidecar.evaluator.store.database import Database
from xai_sidecar.evaluator.store.rows import state_of
from xai_sidecar.evaluator.store.tables import samples


class Followed(NamedTuple):
    """Something that happened to a sample.

    Attributes:
        key: Which sample.
        time: When it was predicted, as Unix time.
        new: Whether it has come since the last time.
        measured: Whether it is no longer pending.
    """

    key: SampleKey
    time: float
    new: bool
    measured: bool


class Follower:
    """Notices samples that come, and those that are measured. To be used by one thread.

    Args:
        database: The store's.

    Attributes:
        open: Ids of the samples that are pending.
    """

    def __init__(self, database: Database) -> None:
        self.open: set[int] = set()
        self._database = database
        self._last = 0

    def poll(self) -> list[Followed]:
        """What has happened since the last time; the first time, all samples that there are.

        Raises:
            StoreError: The store cannot be read.
        """
        columns = (samples.c.id, samples.c.request_id, samples.c.image_index, samples.c.state, samples.c.time)
        concerned = or_(samples.c.id > self._last, samples.c.id.in_(self.open))
        with self._database.read() as connection:
            rows = connection.execute(select(*columns).where(concerned).order_by(samples.c.id)).all()
        found = []
        for row in rows:
            new, measured = row.id > self._last, state_of(row.state) is not SampleState.PENDING
            if new or measured:
                found.append(Followed(SampleKey(row.request_id, row.image_index), row.time, new, measured))
        self.open = {row.id for row in rows if state_of(row.state) is SampleState.PENDING}
        self._last = max((row.id for row in rows), default=self._last)
        return found
