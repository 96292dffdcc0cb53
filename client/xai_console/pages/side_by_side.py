"""Side by side: the pictures of a list as rows, their maps as columns; a click on a class changes a whole row."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final, NamedTuple

from nicegui import background_tasks, ui

from xai_client import InvalidRequestError, ModelInfo, SampleEvents, SamplePage, SampleSummary, XaiError
from xai_console.gallery import Gallery
from xai_console.list_place import read_tokens, said_place
from xai_console.page import Entry, Page, address
from xai_console.parts import button, card, div, empty, text, trouble
from xai_console.query import read_query
from xai_console.query_filter import filter_of, list_by
from xai_console.sample_maps import quick_explainers
from xai_console.sample_row import SampleRow
from xai_console.sample_scores import leading_hint, metric_order

_ROWS: Final = 5
_LISTED: Final = 10 * _ROWS
_AGAIN_SECONDS: Final = 2.0
_MOVED: Final = 4
"""Parts of the list, from its beginning, in which a sample is looked for that newer ones have moved."""


async def build(page: Page, info: ModelInfo) -> None:
    """Makes the page."""
    await _SideBySide(page, info).start()


class _Part(NamedTuple):
    """A part of the list: the tokens up to it, what is listed there, and the place of a row that is to be seen."""

    tokens: list[str]
    listed: SamplePage
    at: int


class _SideBySide:
    """The page: some rows of a part of the list, which is read a part at a time."""

    def __init__(self, page: Page, info: ModelInfo) -> None:
        self._page, self._info = page, info
        self._query = read_query(page.state)
        self._now = page.number("now", time.time(), 0, 1e12)
        self._tokens = read_tokens(page.state)  # of the parts up to the one that is shown, the nearest ones at least
        self._at = int(page.number("at", 0, 0, _LISTED - 1)) // _ROWS * _ROWS  # of the first row, in its part
        self._listed: tuple[SampleSummary, ...] = ()
        self._next = ""
        self._columns: list[str] = []
        self._rows: dict[str, SampleRow] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._gallery = Gallery(page)
        say = page.say
        with div("row list-head"):
            text(say("sample.back"), tag="a")._props["href"] = address("/", self._query.said())
            self._count = text("", "hint number")
            div("grow")
            with div("row"):
                self._before = button(say("page.before"), lambda: self._turn(-_ROWS), "chevron_left")
                self._after = button(say("page.after"), lambda: self._turn(_ROWS), "chevron_right")
        with card(say("maps"), leading_hint(say, metric_order(page, info))):
            self._gallery.controls()
            self._problem = div()
            self._table = div("side-by-side")
        ui.context.client.on_delete(self._stop)

    async def start(self) -> None:
        """Lists the samples, shows the first rows, and watches."""
        await self._list(self._tokens, self._at)
        self._tasks.append(background_tasks.create(self._watch(), context=ui.context.client))

    # -------------------------------------------------------------------------------------------------- list

    async def _list(self, tokens: list[str], at: int) -> bool:
        """Shows the rows of a part of the list from a place on; returns whether it could be read."""
        try:
            self._take(_Part(tokens, await self._read(tokens[-1]), at))
        except XaiError as error:
            self._fail(error)
            return False
        return True

    async def _read(self, token: str) -> SamplePage:
        return await list_by(self._page.source, self._query, self._now, size=_LISTED, token=token)

    def _take(self, part: _Part) -> None:
        """Shows a part, which has fewer rows than it had where some are kept no longer."""
        self._problem.clear()
        listed = part.listed
        self._tokens, self._listed, self._next = part.tokens, listed.samples, listed.next_page_token
        self._count.set_text(self._page.say("samples.count", count=f"{listed.total_count or 0:,}"))
        self._at = max(0, min(part.at, len(self._listed) - 1)) // _ROWS * _ROWS
        self._show()

    def _fail(self, error: XaiError) -> None:
        self._problem.clear()
        with self._problem:
            trouble(error, self._page.say)
        self._enable()

    async def _turn(self, by: int) -> None:
        """Goes on or back by some rows, into another part of the list where this one ends."""
        former, at = self._rows.values(), self._at + by
        if 0 <= at < len(self._listed):
            self._at = at
            self._show()
        elif not await (self._list([*self._tokens, self._next], 0) if by > 0 else self._back()):
            return
        for row in former:
            self._page.state.pop(row.class_name, None)
        self._page.remember(at=self._at or None, **said_place(self._tokens, self._now))

    async def _back(self) -> bool:
        """Shows the rows before this part or, where they are not found, the beginning; returns whether it did."""
        try:
            found = await self._earlier()
            if found is None:
                self._now = time.time()
            self._take(found or _Part([""], await self._read(""), 0))
        except XaiError as error:
            self._fail(error)
            return False
        if found is None:
            ui.notify(self._page.say("side.beginning"), type="info", multi_line=True)
        return True

    async def _earlier(self) -> _Part | None:
        """The part before this one, at its end; None where it is not found."""
        begun = self._listed[0].id if self._listed else ""
        *tokens, shown = self._tokens
        with contextlib.suppress(InvalidRequestError):  # the tokens are of a model that is served no longer
            if tokens and tokens[-1]:
                listed = await self._read(tokens[-1])
                return _Part(tokens, listed, _place(listed, begun) - 1)
            # The first part has no token: newer samples may have moved what was in it.
            for _ in range(_MOVED if tokens else 0):
                listed = await self._read(tokens[-1])
                place = _place(listed, begun)
                if place == 0 and len(tokens) > 1:
                    return _Part(tokens[:-1], await self._read(tokens[-2]), _LISTED)
                if place < len(listed.samples) or listed.next_page_token == shown:
                    return _Part(tokens, listed, place - 1)
                if not listed.next_page_token:
                    break
                tokens = [*tokens, listed.next_page_token]
        return None

    def _enable(self) -> None:
        self._before.set_enabled(self._at > 0 or self._tokens != [""])
        self._after.set_enabled(self._at + _ROWS < len(self._listed) or bool(self._next))

    def _show(self) -> None:
        say = self._page.say
        self._enable()
        for row in self._rows.values():
            row.forget()
        shown, self._columns = self._shown(), self._explainers()
        self._table.clear()
        self._table.style(f"--columns: {len(self._columns)}")
        with self._table:
            if not shown:
                empty("hourglass_empty", say("live.empty"), [say("live.empty.how")])
            self._rows = {
                each.id: SampleRow(self._page, self._info, self._gallery, each, self._columns) for each in shown
            }
        for row in self._rows.values():
            row.fill()

    def _shown(self) -> tuple[SampleSummary, ...]:
        return self._listed[self._at : self._at + _ROWS]

    def _explainers(self) -> list[str]:
        """Those by which any of the rows was explained; of none, those whose maps the server makes at once."""
        made = {name for each in self._shown() for name in each.explainers}
        known = [name for name in self._info.explainers if name in made]
        return [*known, *sorted(made - set(known))] or quick_explainers(self._info)

    # ---------------------------------------------------------------------------------------------- watching

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for row in self._rows.values():
            row.forget()

    async def _watch(self) -> None:
        """Shows new scores of the rows as soon as they are there, until cancelled."""
        where = filter_of(self._query, self._now)
        while True:
            with contextlib.suppress(XaiError):
                events = self._page.source.watch_samples(where, map_of="")
                async with contextlib.aclosing(events):
                    async for each in events:
                        self._happened(each)
            await asyncio.sleep(_AGAIN_SECONDS)
            if not self._rows and self._page.console.monitor.here:  # the list could not be read before
                await self._list(self._tokens, self._at)

    def _happened(self, happened: SampleEvents) -> None:
        changed = {each.sample.id: each.sample for each in happened.events}
        self._listed = tuple(changed.get(each.id, each) for each in self._listed)
        if self._explainers() != self._columns:
            self._show()
            return
        for name, row in self._rows.items():
            if happened.lagged or name in changed:
                row.fill()


def _place(listed: SamplePage, sample: str) -> int:
    """Where a sample is in a part of the list; at its end where it is not."""
    return next((place for place, each in enumerate(listed.samples) if each.id == sample), len(listed.samples))


ENTRY: Final = Entry("/side-by-side", "side", "table_rows", build, listed=False, of_samples=True)
