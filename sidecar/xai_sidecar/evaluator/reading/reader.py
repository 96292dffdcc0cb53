"""Reads a store, one transaction a question. Any thread may use it; it knows of no server, and of no protocol."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import or_

from xai_sidecar.evaluator.reading.class_maps import (
    ClassMap,
    Confusion,
    frequent_classes,
    load_class_maps,
    load_confusion,
)
from xai_sidecar.evaluator.reading.filters import SampleFilter, source
from xai_sidecar.evaluator.reading.history import History, Shown, load_history
from xai_sidecar.evaluator.reading.one_sample import SampleDetail, load_sample
from xai_sidecar.evaluator.reading.orders import Order
from xai_sidecar.evaluator.reading.pages import Page, load_page
from xai_sidecar.evaluator.reading.views import Extras, SampleView, load_views
from xai_sidecar.evaluator.records import SampleKey
from xai_sidecar.evaluator.store.database import Database
from xai_sidecar.evaluator.store.queries import is_sample
from xai_sidecar.evaluator.store.tables import samples


class Reader:
    """Answers questions about what a store has.

    Every method raises a `StoreError` if the database fails.

    Args:
        database: The store's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(
        self,
        where: SampleFilter,
        order: Order,
        size: int,
        token: str = "",
        extras: Extras | None = None,
        *,
        with_total: bool = False,
    ) -> Page:
        """A page of samples; see `pages.load_page`."""
        with self._database.read() as connection:
            return load_page(connection, where, order, size, token, extras, with_total=with_total)

    def sample(self, key: SampleKey, explainers: Collection[str] = ()) -> SampleDetail | None:
        """Everything that is kept of a sample; None if there is none of that key."""
        with self._database.read() as connection:
            return load_sample(connection, key, explainers)

    def views(self, keys: Sequence[SampleKey], where: SampleFilter, extras: Extras) -> dict[SampleKey, SampleView]:
        """Those of some samples, at most some hundred, that a filter lets through."""
        keys = [key for key in keys if where.request_id in ("", key.request_id)]
        if not keys:
            return {}
        with self._database.read() as connection:
            query = source(where, None, samples.c.id).where(or_(*map(is_sample, keys)))
            found = load_views(connection, list(connection.scalars(query)), extras)
        return {view.record.key: view for view in found}

    def history(self, shown: Shown, start: float, end: float, bins: int) -> History:
        """What happened between two points in time; see `history.load_history`."""
        with self._database.read() as connection:
            return load_history(connection, shown, start, end, bins)

    def class_maps(
        self, where: SampleFilter, class_ids: Sequence[int], explainers: Collection[str], most_samples: int
    ) -> list[ClassMap]:
        """Mean maps of classes by explainers, of at most so many samples each."""
        found = []
        for class_id in class_ids:
            with self._database.read() as connection:
                found += load_class_maps(connection, where, class_id, explainers, most_samples)
        return found

    def frequent_classes(self, where: SampleFilter, most: int) -> list[int]:
        """The classes that were explained most often, the most frequent first."""
        with self._database.read() as connection:
            return frequent_classes(connection, where, most)

    def confusion(self, where: SampleFilter, most: int) -> tuple[list[Confusion], bool]:
        """How often classes were predicted where others apply; see `load_confusion`."""
        with self._database.read() as connection:
            return load_confusion(connection, where, most)
