"""Pages of samples, which go on where the last one ended, whatever has come since."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select, text

from xai_sidecar.digest import digest
from xai_sidecar.errors import InvalidRequestError
from xai_sidecar.evaluator.reading.filters import By, Order, SampleFilter, after, keys, shown_score, source
from xai_sidecar.evaluator.reading.views import Extras, SampleView, load_views
from xai_sidecar.evaluator.store.tables import samples

MOST = 200
"""Most samples in a page."""

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
    _alone(connection, where, order)
    place = _read(token, asked, len(keys(order))) if token else _Place(_newest(connection), None)
    until = samples.c.id <= place.newest
    columns = [key.expression.label(f"key_{number}") for number, key in enumerate(keys(order))]
    query = source(where, order, samples.c.id, *columns).where(until)
    if place.values is not None:
        query = query.where(after(order, place.values))
    directed = (key.expression.desc() if key.descending else key.expression.asc() for key in keys(order))
    found = connection.execute(query.order_by(*directed).limit(size + 1)).all()
    more, found = len(found) > size, found[:size]
    shown = load_views(connection, [row.id for row in found], extras or Extras(), shown_score(where, order))
    last = [getattr(found[-1], column.name) for column in columns] if found else []
    total = None
    if with_total:
        total = int(connection.scalar(source(where, order, func.count()).where(until)) or 0)
    return Page(tuple(shown), _write(asked, place.newest, last) if more else "", total)


def _asked(where: SampleFilter, order: Order) -> str:
    """What tells a list from others, in every process."""
    content = [sorted(each, key=repr) if isinstance(each, frozenset) else each for each in vars(where).values()]
    return digest(repr(content), repr(order))[:16]


def _alone(connection: Connection, where: SampleFilter, order: Order) -> None:
    """Has PostgreSQL read without workers what it reads in order until there is enough: they run far ahead of that."""
    in_order = order.by is By.TIME or (where.score is not None and order.by is not By.SCORE)
    if in_order and connection.dialect.name == "postgresql":
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
