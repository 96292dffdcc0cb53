"""Side by side: the rows are those that the list has, page after page, and stand in the URL."""

import asyncio
import math
from types import SimpleNamespace
from unittest.mock import AsyncMock, MagicMock

import pytest

from xai_client import SamplePage, UnavailableError
from xai_client.samples import SampleEvent, SampleEvents
from xai_console.page import Page
from xai_console.pages import side_by_side
from xai_console.pages.side_by_side import _SideBySide
from xai_console.words import Words

INFO = SimpleNamespace(
    run="",
    roles=None,
    evaluator=None,
    explainers={name: SimpleNamespace(cost=None) for name in ("gradcam", "rise", "lime")},
)


def summary(number, *explainers):
    return SimpleNamespace(id=f"{number}/0", explainers=dict.fromkeys(explainers))


class Source:
    """A server with so many samples; a page begins where its token says."""

    def __init__(self, *samples):
        self.samples, self.asked, self.is_away = samples, [], False

    async def list_samples(self, where, *, order, score_of, page_size, page_token, map_of):
        self.asked.append((where.start, order, page_token))
        if self.is_away:
            raise UnavailableError("away")
        start = int(page_token or 0)
        end = start + page_size
        token = str(end) if end < len(self.samples) else ""
        return SamplePage(self.samples[start:end], token, len(self.samples))


class Row:
    """A row that is not drawn."""

    def __init__(self, page, info, gallery, summary, columns):
        self.id, self.columns, self.class_name, self.filled = summary.id, columns, f"class {summary.id}", 0
        self.filling = None

    def fill(self):
        self.filled += 1
        self.filling = f"the maps of {self.id}"

    def forget(self):
        pass


@pytest.fixture
def make(monkeypatch):
    """Makes the page, in no browser."""
    for name in ("Gallery", "background_tasks", "button", "card", "div", "empty", "text", "trouble", "ui"):
        monkeypatch.setattr(side_by_side, name, MagicMock())
    monkeypatch.setattr(side_by_side, "SampleRow", Row)

    async def make(source, **state):
        page = SimpleNamespace(source=source, say=Words("en"), state=state, number=lambda *_: 0.0)
        page.number = lambda name, otherwise, low, high: float(state.get(name, otherwise))
        page.remember = lambda **choices: state.update(choices)
        made = _SideBySide(page, INFO)
        await made._list(made._tokens, made._at)
        return made

    return make


async def test_the_maps_of_the_first_rows_come_with_the_answer(make):
    made = await make(Source(*map(summary, range(7))))
    held = made._page.hold = AsyncMock()
    made._watch = MagicMock()
    await made.start()
    held.assert_awaited_once_with([f"the maps of {number}/0" for number in range(5)])


async def test_an_answer_waits_for_what_can_follow_no_longer_than_it_may():
    page = Page(None, None, "/", "auto", due=asyncio.get_running_loop().time() + 0.05)
    short, long = (asyncio.create_task(asyncio.sleep(seconds)) for seconds in (0.0, 60.0))
    await page.hold([short, None])
    assert short.done()
    await page.hold([long])
    assert not long.done()
    page = Page(None, None, "/", "auto", due=math.inf)
    short = asyncio.create_task(asyncio.sleep(0.1))
    await page.hold([short])
    assert short.done()
    await page.hold([])
    long.cancel()


def shown(made):
    return [int(name.partition("/")[0]) for name in made._rows]


async def test_pages_go_through_the_whole_list_and_back(make):
    source = Source(*map(summary, range(103)))
    made = await make(source)
    seen = shown(made)
    while len(seen) < 103:
        await made._turn(5)
        seen += shown(made)
    assert seen == list(range(103))
    assert len(source.asked) == 3  # and not a call a page
    for start in reversed(range(0, 100, 5)):
        await made._turn(-5)
        assert shown(made) == list(range(start, start + 5))


async def test_a_page_is_found_again_by_its_url_whatever_the_time_is(make):
    state = {"order": "oldest_first", "hours": "1", "now": "10000.5"}
    source = Source(*map(summary, range(103)))
    made = await make(source, **state)
    for _ in range(12):
        await made._turn(5)
    said = made._page.state
    assert (said["from"], said["at"], said["now"]) == ("50", 10, 10000.5)
    again = await make(source, **{name: str(value) for name, value in said.items() if value is not None})
    assert shown(again) == shown(made) == list(range(60, 65))
    assert {asked[:2] for asked in source.asked} == {(6400.5, "oldest_first")}


async def test_classes_chosen_on_one_page_are_not_said_of_the_next(make):
    made = await make(Source(*map(summary, range(10))))
    made._page.remember(**{"class 0/0": 7})
    await made._turn(5)
    assert "class 0/0" not in made._page.state


async def test_where_the_list_cannot_be_read_the_page_stays_where_it_is(make):
    source = Source(*map(summary, range(103)))
    made = await make(source, at="45")
    source.is_away = True
    for _ in range(2):
        await made._turn(5)
        assert (shown(made), made._page.state["at"]) == (list(range(45, 50)), "45")
    source.is_away = False
    await made._turn(5)
    assert shown(made) == list(range(50, 55))


async def test_a_place_beyond_the_end_shows_the_last_page(make):
    assert shown(await make(Source(*map(summary, range(8))), at="45")) == [5, 6, 7]
    assert shown(await make(Source(), at="45")) == []


async def test_there_is_a_column_for_each_explainer_of_any_row(make):
    source = Source(summary(0, "rise"), summary(1, "gradcam", "another"), summary(2))
    made = await make(source)
    assert {tuple(row.columns) for row in made._rows.values()} == {("gradcam", "rise", "another")}
    made._happened(SampleEvents((SampleEvent(frozenset({"measured"}), summary(2, "rise")),)))
    assert [row.filled for row in made._rows.values()] == [1, 1, 2]
    made._happened(SampleEvents((SampleEvent(frozenset({"measured"}), summary(2, "rise", "lime")),)))
    assert {tuple(row.columns) for row in made._rows.values()} == {("gradcam", "rise", "lime", "another")}
    made._happened(SampleEvents((SampleEvent(frozenset({"new"}), summary(3, "rise")),)))
    assert [row.filled for row in made._rows.values()] == [1, 1, 1]
    made._happened(SampleEvents((), missed_count=1))
    assert [row.filled for row in made._rows.values()] == [2, 2, 2]
