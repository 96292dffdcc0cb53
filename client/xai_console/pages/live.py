"""Live: the newest samples as they come, filtered, ordered, with their maps laid over."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from typing import Any, Final

from nicegui import background_tasks, ui

from xai_client import ModelInfo, XaiError
from xai_client.samples import SampleEvents, SamplePage
from xai_console.filter_form import FilterForm, first_query
from xai_console.list_place import said_place
from xai_console.page import Entry, Page, address
from xai_console.parts import button, card, div, empty, text, trouble
from xai_console.query import PAGE_SIZE, Query
from xai_console.query_filter import filter_of, list_by, order_of
from xai_console.sample_cards import SampleCards, card_of

_PAUSE_SECONDS: Final = 0.5
_AGAIN_SECONDS: Final = 2.0
_LEAVING_SECONDS: Final = 0.001
"""That a question takes to leave the process, before something else keeps it busy."""


async def build(page: Page, info: ModelInfo) -> None:
    """Makes the page, while the server lists what it shows first."""
    now = time.time()
    asked = asyncio.create_task(_ask(page, first_query(page, info), now, ""))
    await asyncio.sleep(_LEAVING_SECONDS)
    await _Live(page, info, now).start(asked)


async def _ask(page: Page, query: Query, now: float, token: str) -> SamplePage:
    return await list_by(page.source, query, now, size=PAGE_SIZE, token=token, maps=query.maps)


class _Live:
    """The page, and the calls that keep it true."""

    def __init__(self, page: Page, info: ModelInfo, now: float) -> None:
        self._page = page
        self._now = now  # when the first page was listed, from which the others go on
        self._tokens = [""]  # of the pages up to the one that is shown
        self._next = ""
        self._total = 0
        self._is_newest = False
        self._shown: dict[str, dict[str, Any]] = {}  # cards, by the id of their sample
        self._tasks: list[asyncio.Task[None]] = []
        with card(classes="filter-card"):
            self._form = FilterForm(page, info, self._filtered)
        with div("row list-head"):
            self._count = text("", "hint number")
            self._new = button("", self._restart, "arrow_upward", "primary")
            self._new.set_visibility(False)
            div("grow")
            button(page.say("side"), self._side_by_side, "table_rows")
            with div("row"):
                self._before = button(page.say("page.before"), lambda: self._turn(-1), "chevron_left")
                self._after = button(page.say("page.after"), lambda: self._turn(1), "chevron_right")
        self._problem = div()
        self._cards = SampleCards(page, page.say("live"))
        self._none = empty("hourglass_empty", page.say("live.empty"), [page.say("live.empty.how")])
        self._none.set_visibility(False)
        self._unseen = 0
        ui.context.client.on_delete(self._stop)

    async def start(self, asked: Awaitable[SamplePage] | None = None) -> None:
        """Lists samples, unless that was asked for already, then watches."""
        await self._list(asked)
        self._tasks.append(background_tasks.create(self._watch(), context=ui.context.client))

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    # ------------------------------------------------------------------------------------------------- lists

    def _filtered(self, _: Query) -> None:
        self._restart()

    def _restart(self) -> None:
        self._tokens = [""]
        self._again()

    def _turn(self, by: int) -> None:
        if by > 0:
            self._tokens.append(self._next)
        else:
            self._tokens.pop()
        self._again()

    def _again(self) -> None:
        self._stop()
        self._tasks.append(background_tasks.create(self.start(), context=ui.context.client))

    def _side_by_side(self) -> None:
        """Shows the samples that are listed now as rows, with all their maps."""
        state: dict[str, object] = {**self._form.query.said()}
        if self._tokens[-1]:
            state |= said_place(self._tokens, self._now)
        ui.navigate.to(address("/side-by-side", state))

    async def _list(self, asked: Awaitable[SamplePage] | None = None) -> None:
        query = self._form.query
        if asked is None and len(self._tokens) == 1:
            self._now = time.time()
        try:
            listed = await (asked or _ask(self._page, query, self._now, self._tokens[-1]))
        except XaiError as error:
            self._fail(error)
            return
        self._problem.clear()
        self._shown = {each.id: card_of(self._page, each) for each in listed.samples}
        self._unseen, self._total, self._next = 0, listed.total_count or 0, listed.next_page_token
        first = len(self._tokens) == 1
        self._is_newest = first and order_of(query)[0] == "newest_first"
        self._before.set_enabled(not first)
        self._after.set_enabled(bool(self._next))
        self._cards.show(list(self._shown.values()))
        self._tell()

    def _tell(self) -> None:
        self._count.set_text(self._page.say("samples.count", count=f"{self._total:,}"))
        self._none.set_visibility(not self._shown)
        self._new.set_visibility(self._unseen > 0)
        self._new.set_text(self._page.say("samples.new", count=self._unseen))

    def _fail(self, error: XaiError) -> None:
        self._problem.clear()
        with self._problem:
            trouble(error, self._page.say)

    # ---------------------------------------------------------------------------------------------- watching

    async def _watch(self) -> None:
        """Watches until cancelled; a server that is away is asked again."""
        while True:
            with contextlib.suppress(XaiError):
                query = self._form.query
                events = self._page.source.watch_samples(filter_of(query, self._now), map_of=query.maps)
                async with contextlib.aclosing(events):
                    async for each in events:
                        if each.lagged:
                            await self._list()
                        elif each.events:
                            self._happened(each)
                            await asyncio.sleep(_PAUSE_SECONDS)
            await asyncio.sleep(_AGAIN_SECONDS)
            if self._page.console.monitor.here:
                await self._list()

    def _happened(self, happened: SampleEvents) -> None:
        changed: set[str] = set()
        for event in happened.events:
            sample = event.sample
            self._total += "new" in event.kinds
            if sample.id in self._shown:
                was_fresh = self._shown[sample.id]["fresh"]
                self._shown[sample.id] = card_of(self._page, sample, fresh=was_fresh)
            elif "new" in event.kinds and self._is_newest:
                self._shown = {sample.id: card_of(self._page, sample, fresh=True), **self._shown}
            elif "new" in event.kinds:
                self._unseen += 1
                continue
            else:
                continue
            changed.add(sample.id)
        for surplus in list(self._shown)[PAGE_SIZE:]:
            del self._shown[surplus]
        if changed:
            self._cards.merge([card for key, card in self._shown.items() if key in changed], list(self._shown.values()))
        self._tell()


ENTRY: Final = Entry("/", "live", "dynamic_feed", build, of_samples=True)
