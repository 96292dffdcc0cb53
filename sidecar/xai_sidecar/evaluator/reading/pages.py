"""Pages of samples, which go on where the last one ended, whatever has come since."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select, text

from xai_sidecar.digest import digest
from xai_sidecar.errors import InvalidRequestError
from xai_sidecar.evaluator.reading.filters import Reading, SampleFilter, first_of, shown_score, source
from xai_sidecar.evaluator.reading.orders import By, Order, after, keys
from xai_sidecar.evaluator.reading.views import Extras, SampleView, load_views
from xai_sidecar.evaluator.store.tables import samples

MOST = 200
"""Most samples in a page."""

AMONG = 2000
"""First samples of an order, about, among which a page is looked for before it is looked for among all: only a filter
that lets few through makes it necessary to put all in order."""

_LONGEST_TOKEN = 400


@dataclass(frozen=True)
class Page:
    """A page of samples.

    Attributes:
        samples: In order.
        next_token: Names the next page; empty after the last one.
        total: Samples that the filter lets through; None if not asked for.
    """

    samples: tuple[SampleView, ...]
    next_token: str
    total: int | None = None


@dataclass(frozen=True)
class _Place:
    """Where a page begins.

    Attributes:
        newest: The greatest id of samples when the first page was read; later ones are left out.
        values: Of the sort keys of the last sample of the page before; None for the first page.
    """

    newest: int
    values: list[float] | None


def load_page(
    connection: Connection,
    where: SampleFilter,
    order: Order,
    size: int,
    token: str = "",
    extras: Extras | None = None,
    *,
    with_total: bool = False,
) -> Page:
    """A page of samples.

    Args:
        connection: In a transaction that reads.
        where: Which samples.
        order: In which order.
        size: Most samples, up to `MOST`.
        token: `next_token` of the page before; empty for the first page.
        extras: What to load of each besides; None for nothing.
        with_total: Whether to count all samples that the filter lets through.

    Raises:
        InvalidRequestError: The token is not of a page of this filter and order.
    """
    asked = _asked(where, order)
    _look_up(connection)
    place = _read(token, asked, len(keys(order))) if token else _Place(_newest(connection), None)
    found = _found(connection, where, order, place, size + 1)
    more, found = len(found) > size, found[:size]
    shown = load_views(connection, [row.id for row in found], extras or Extras(), shown_score(where, order))
    last: list[float] = list(found[-1][1:]) if found else []
    total = None
    if with_total:
        counted = source(where, order, func.count(), reading=Reading.ALL).where(samples.c.id <= place.newest)
        total = int(connection.scalar(counted) or 0)
    return Page(tuple(shown), _write(asked, place.newest, last) if more else "", total)


def _found(connection: Connection, where: SampleFilter, order: Order, place: _Place, count: int) -> Sequence[Row[Any]]:
    """The ids of samples, with their sort keys."""
    columns = [key.expression.label(f"key_{number}") for number, key in enumerate(keys(order))]
    directed = [key.expression.desc() if key.descending else key.expression.asc() for key in keys(order)]
    conditions = [samples.c.id <= place.newest]
    if place.values is not None:
        conditions.append(after(order, place.values))

    def first(query: Select[Any]) -> Sequence[Row[Any]]:
        return connection.execute(query.where(*conditions).order_by(*directed).limit(count)).all()

    if (among := first_of(connection, where, order, place.values, AMONG)) is not None:
        found = first(source(where, order, samples.c.id, *columns).where(among))
        if len(found) == count:
            return found
    # The filter lets few through.
    few = Reading.FEW if order.by is By.SCORE else Reading.BEGINNING
    return first(source(where, order, samples.c.id, *columns, reading=few))


def _asked(where: SampleFilter, order: Order) -> str:
    """What tells a list from others, in every process."""
    content = [sorted(each, key=repr) if isinstance(each, frozenset) else each for each in vars(where).values()]
    return digest(repr(content), repr(order))[:16]


def _look_up(connection: Connection) -> None:
    """Has PostgreSQL look up the few rows that are wanted, in the order of an index, where it would read them all.

    It takes what is not read in a row to come from a disk that turns, and starts workers, which takes longer than a
    page does, or which run far ahead of one.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL random_page_cost = 1.1"))
        connection.execute(text("SET LOCAL max_parallel_workers_per_gather = 0"))


def _newest(connection: Connection) -> int:
    return int(connection.scalar(select(func.coalesce(func.max(samples.c.id), 0))) or 0)


def _write(asked: str, newest: int, values: list[Any]) -> str:
    content = json.dumps([asked, newest, *values], separators=(",", ":"))
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def _read(token: str, asked: str, count: int) -> _Place:
    try:
        if len(token) > _LONGEST_TOKEN:
            raise ValueError("too long")
        of, newest, *values = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        if not all(type(each) in (int, float) for each in (newest, *values)) or not isinstance(of, str):
            raise ValueError("not of numbers")
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise InvalidRequestError(
            "The page token is none of this server's. Take next_page_token of the page before, as it is.",
            field="page_token",
        ) from None
    if of != asked or len(values) != count:
        raise InvalidRequestError(
            "The page token is of another filter, order or model version. Ask for the first page again.",
            field="page_token",
        )
    return _Place(int(newest), values)
