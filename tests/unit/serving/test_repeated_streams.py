"""Streams that come again: who works, who reads along from where, what is kept, and who goes on without whom."""

import asyncio
from contextlib import aclosing, contextmanager

import pytest

from xai_sidecar.config import ServerConfig
from xai_sidecar.errors import ExpiredError, InvalidRequestError, OverloadedError
from xai_sidecar.serving.repeated_streams import AskedStream, Place, StreamRepeats
from xai_sidecar.serving.repeats import kept_by_id

FOREVER = float("inf")
EVENTS = ("predicted", "a 10", "a map 1", "a 20", "b 5", "a map 2", "a final", "b 9", "b final")
FINAL = ("predicted", "a final", "b final")


def place(event):
    about, _, rest = event.partition(" ")
    return Place(about, "map" if "map" in rest else "progress", final=event in FINAL)


class Desk:
    """Streams whose events are made when they are let, and what came of them."""

    def __init__(self, error=None, error_at=0, **limits):
        self.begun, self.made, self.ended, self.how, self.repeats = 0, 0, [], [], []
        self.error, self.error_at = error, error_at
        self.room = True
        self.streams = StreamRepeats(kept_by_id(ServerConfig(**limits)), place, len, self.repeats.append)

    async def work(self):
        """The first stream fails where there is an error."""
        self.begun += 1
        number = self.begun
        try:
            for index, event in enumerate(EVENTS):
                if self.error is not None and (number, index) == (1, self.error_at):
                    raise self.error
                self.made += 1
                yield event
        finally:
            await rounds()  # what it holds is given back in its own time
            self.ended.append(number)

    @contextmanager
    def hold(self):
        if not self.room:
            raise OverloadedError("full", retry_seconds=1.0)
        yield

    def call(self, request_id="a", content="x", deadline=FOREVER):
        return self.streams.events(AskedStream(request_id, content, deadline, self.work, self.hold, self.how.append))

    def all_of(self, *args, **options):
        return asyncio.ensure_future(read(self.call(*args, **options)))


async def rounds(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


async def read(events):
    async with aclosing(events):
        return [event async for event in events]


async def some(events, count):
    return [await anext(events) for _ in range(count)]


async def test_a_stream_of_its_own_has_every_event():
    desk = Desk()
    assert await desk.all_of() == list(EVENTS)
    assert (desk.how, desk.repeats) == ([""], [])


async def test_it_is_made_no_faster_than_it_is_read():
    desk = Desk()
    async with aclosing(desk.call()) as events:
        for count in range(1, len(EVENTS)):
            await anext(events)
            await rounds()
            assert desk.made == count


async def test_readers_at_once_share_one_stream():
    desk = Desk()
    calls = [desk.all_of() for _ in range(3)]
    assert await asyncio.gather(*calls) == [list(EVENTS)] * 3
    assert desk.begun == 1
    assert sorted(desk.how) == ["", "joined", "joined"]
    assert desk.repeats == ["joined"] * 2


@pytest.mark.parametrize(
    ("read_before", "expected"),
    [
        (1, EVENTS),
        (3, EVENTS),
        (4, ("predicted", "a map 1", "a 20", *EVENTS[4:])),
        (6, ("predicted", "a 20", "b 5", *EVENTS[5:])),
        (7, ("predicted", "b 5", *EVENTS[6:])),
        (8, ("predicted", "a final", *EVENTS[7:])),
    ],
)
async def test_who_joins_late_gets_what_was_not_replaced(read_before, expected):
    desk = Desk()
    first = desk.call()
    await some(first, read_before)
    assert await desk.all_of() == list(expected)
    rest = await read(first)
    assert rest == [event for event in ("a final", "b final") if event not in EVENTS[:read_before]]
    assert desk.begun == 1


async def test_what_was_sent_is_sent_again_for_a_time():
    desk = Desk()
    await desk.all_of()
    assert await desk.all_of() == list(FINAL)
    assert (desk.begun, desk.how, desk.repeats) == (1, ["", "repeated"], ["repeated"])


async def test_nothing_is_kept_where_that_is_off():
    desk = Desk(repeat_seconds=0)
    assert [await desk.all_of() for _ in range(2)] == [list(EVENTS)] * 2
    assert desk.begun == 2


@pytest.mark.parametrize(("request_id", "content"), [("a", "y"), ("b", "x")])
async def test_another_id_or_content_is_another_stream(request_id, content):
    desk = Desk()
    assert await asyncio.gather(desk.all_of(), desk.all_of(request_id, content)) == [list(EVENTS)] * 2
    assert desk.begun == 2


async def test_it_goes_on_for_whoever_still_reads():
    desk = Desk()
    first, second = desk.call(), desk.call()
    await some(first, 3)
    await some(second, 2)
    await first.aclose()
    assert desk.ended == []
    assert await read(second) == list(EVENTS[2:])
    assert desk.begun == 1


async def test_it_ends_with_the_last_reader_and_nobody_joins_it_then():
    desk = Desk()
    calls = [desk.call(), desk.call()]
    for call in calls:
        await some(call, 2)
    await calls[0].aclose()
    leaving = asyncio.ensure_future(calls[1].aclose())
    await asyncio.sleep(0)
    again = desk.all_of()
    await leaving
    assert 1 in desk.ended
    assert await again == list(EVENTS)
    assert desk.begun == 2


async def test_a_reader_that_is_cancelled_while_it_waits_ends_it():
    desk = Desk()
    call = desk.all_of()
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert not desk.streams._logs
    assert desk.ended in ([], [1])  # it may not have begun


@pytest.mark.parametrize("error_at", [0, 4])
async def test_errors_go_to_those_who_read_and_no_further(error_at):
    desk = Desk(InvalidRequestError("wrong"), error_at)
    assert await asyncio.gather(desk.all_of(), desk.all_of(), return_exceptions=True) == [desk.error] * 2
    assert await desk.all_of() == list(EVENTS)
    assert desk.how == [""]


async def test_a_more_patient_reader_goes_on_alone_with_what_it_has_not_had():
    """Another's hurry ends the stream when a's map is final, and b's is not."""
    desk = Desk(ExpiredError("late"), 7)
    hurried, patient = desk.all_of(deadline=10.0), desk.all_of(deadline=20.0)
    late, events = await asyncio.gather(hurried, patient, return_exceptions=True)
    assert late is desk.error
    assert events == [*EVENTS[:7], "b 5", "b 9", "b final"]
    assert desk.how == [""]


async def test_those_who_join_are_admitted_too():
    desk = Desk()
    first = desk.call()
    await anext(first)
    desk.room = False
    with pytest.raises(OverloadedError):
        await desk.all_of()
    assert await read(first) == list(EVENTS[1:])
