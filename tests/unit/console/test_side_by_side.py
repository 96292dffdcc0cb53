"""Side by side: the rows are those that the list has, page after page, and stand in the URL."""

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from xai_client import InvalidRequestError, SamplePage, UnavailableError
from xai_client.samples import SampleEvent, SampleEvents
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


class Growing(Source):
    """A server whose samples are numbered as they come, of which the newest are listed first, as it names its pages."""

    def __init__(self, count):
        super().__init__(*map(summary, range(count)))
        self.version = "v1"

    def come(self, count):
        self.samples = (*self.samples, *map(summary, range(len(self.samples), len(self.samples) + count)))

    async def list_samples(self, where, *, order, score_of, page_size, page_token, map_of):
        self.asked.append(page_token)
        version, newest, last = page_token.split(":") if page_token else (self.version, len(self.samples), None)
        if version != self.version:
            raise InvalidRequestError("of another model version")
        left = [each for each in self.samples[::-1] if last is None or int(each.id[:-2]) < int(last)]
        left = left[len(self.samples) - int(newest) if last is None else 0 :]
        shown = tuple(left[:page_size])
        more = len(left) > page_size
        return SamplePage(shown, f"{version}:{newest}:{shown[-1].id[:-2]}" if more else "", len(self.samples))


class Row:
    """A row that is not drawn."""

    def __init__(self, page, info, gallery, summary, columns):
        self.id, self.columns, self.class_name, self.filled = summary.id, columns, f"class {summary.id}", 0

    def fill(self):
        self.filled += 1

    def forget(self):
        pass


def reloaded(made):
    """What the URL of a page says."""
    return {name: str(value) for name, value in made._page.state.items() if value is not None}


@pytest.fixture
def make(monkeypatch):
    """Makes the page, in no browser."""
    for name in ("Gallery", "card", "div", "empty", "text", "trouble", "ui"):
        monkeypatch.setattr(side_by_side, name, MagicMock())
    monkeypatch.setattr(side_by_side, "button", lambda *_: MagicMock())
    monkeypatch.setattr(side_by_side, "SampleRow", Row)

    async def make(source, **state):
        page = SimpleNamespace(source=source, say=Words("en"), state=state, number=lambda *_: 0.0)
        page.number = lambda name, otherwise, low, high: float(state.get(name, otherwise))
        page.remember = lambda **choices: state.update(choices)
        made = _SideBySide(page, INFO)
        await made._list(made._tokens, made._at)
        return made

    return make


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
    assert (said["from"], said["at"], said["now"]) == (",50", 10, 10000.5)
    again = await make(source, **reloaded(made))
    assert shown(again) == shown(made) == list(range(60, 65))
    assert {asked[:2] for asked in source.asked} == {(6400.5, "oldest_first")}


async def test_after_a_reload_it_goes_back_through_all_earlier_parts(make):
    source = Growing(203)
    made = await make(source)
    for _ in range(32):
        await made._turn(5)
    again = await make(source, **reloaded(made))
    assert shown(again) == list(range(42, 37, -1))
    for newest in range(47, 203, 5):
        assert again._before.set_enabled.call_args.args == (True,)
        await again._turn(-5)
        assert shown(again) == list(range(newest, newest - 5, -1))
    assert again._before.set_enabled.call_args.args == (False,)
    assert "from" not in reloaded(again)
    side_by_side.ui.notify.assert_not_called()


@pytest.mark.parametrize("count", [0, 1, 5, 49, 50, 51, 120])
async def test_newer_samples_hide_none_of_the_first_part_from_who_goes_back(make, count):
    source = Growing(103)
    made = await make(source, at="45")
    await made._turn(5)
    assert shown(made) == list(range(52, 47, -1))
    source.come(count)
    again = await make(source, **reloaded(made))
    seen = set()
    while again._before.set_enabled.call_args.args == (True,):
        await again._turn(-5)
        seen |= set(shown(again))
    assert seen >= set(range(53, 103 + count))
    side_by_side.ui.notify.assert_not_called()


async def test_what_has_moved_too_far_is_not_found_and_the_beginning_is_shown(make):
    source = Growing(103)
    made = await make(source, at="45")
    await made._turn(5)
    source.come(500)
    await made._turn(-5)
    assert (shown(made), reloaded(made)) == (list(range(602, 597, -1)), {})
    side_by_side.ui.notify.assert_called_once()


async def test_parts_beyond_what_a_url_holds_are_not_reached_and_it_says_so(make):
    source = Growing(703)
    made = await make(source)
    for _ in range(120):
        await made._turn(5)
    said = reloaded(made)
    assert len(said["from"].split(",")) == 10
    again = await make(source, **said)
    for _ in range(90):
        await again._turn(-5)
    assert shown(again) == list(range(552, 547, -1))
    side_by_side.ui.notify.assert_not_called()
    await again._turn(-5)
    assert shown(again) == list(range(702, 697, -1))
    side_by_side.ui.notify.assert_called_once()


async def test_a_page_of_a_model_that_is_served_no_longer_leads_back_to_the_beginning(make):
    source = Growing(203)
    made = await make(source)
    for _ in range(32):
        await made._turn(5)
    source.version = "v2"
    again = await make(source, **reloaded(made))
    assert shown(again) == []
    assert again._before.set_enabled.call_args.args == (True,)
    assert again._after.set_enabled.call_args.args == (False,)
    await again._turn(-5)
    assert shown(again) == list(range(202, 197, -1))
    side_by_side.ui.notify.assert_called_once()


async def test_where_the_oldest_come_first_and_are_removed_going_back_never_leads_on(make):
    source = Source(*map(summary, range(203)))
    made = await make(source, at="45", **{"from": ",50"})
    await made._turn(5)
    assert shown(made) == list(range(100, 105))
    removed = source.samples[:50] + source.samples[60:]

    async def without(where, *, page_token, page_size, **_):
        start = int(page_token or 0)
        left = [each for each in removed if int(each.id[:-2]) >= start]
        return SamplePage(tuple(left[:page_size]), "110", len(removed))

    source.list_samples = without
    await made._turn(-5)
    assert shown(made) == list(range(95, 100))


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
