"""Calls that come again: who works, who waits, what is kept and for how long."""

import asyncio
from contextlib import contextmanager

import pytest

from xai_sidecar.config import ServerConfig
from xai_sidecar.errors import ExpiredError, InvalidRequestError, OverloadedError
from xai_sidecar.serving.repeats import Asked, KeptAnswers, Repeats

FOREVER = float("inf")


class Desk:
    """Work that is done when it is let, and what came of it."""

    def __init__(self, error=None, **limits):
        self.go_on, self.begun, self.ended, self.how = asyncio.Event(), 0, [], []
        self.error = error
        self.room = True
        self.repeats = Repeats(ServerConfig(**limits), len, lambda answer: "cut" not in answer, self.how.append)

    async def work(self):
        """The first one fails where there is an error."""
        self.begun += 1
        number = self.begun
        try:
            await self.go_on.wait()
            if self.error is not None and number == 1:
                raise self.error
            return f"answer {number}"
        except asyncio.CancelledError:
            await rounds()  # what it holds is given back in its own time
            self.ended.append("cancelled")
            raise

    @contextmanager
    def hold(self):
        if not self.room:
            raise OverloadedError("full", retry_seconds=1.0)
        yield

    def call(self, request_id="a", content="x", deadline=FOREVER):
        return asyncio.ensure_future(self.repeats.answer(Asked(request_id, content, deadline, self.work, self.hold)))


async def rounds(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_two_at_once_are_one_piece_of_work():
    desk = Desk()
    calls = [desk.call() for _ in range(3)]
    await rounds()
    desk.go_on.set()
    assert await asyncio.gather(*calls) == [("answer 1", ""), ("answer 1", "joined"), ("answer 1", "joined")]
    assert (desk.begun, desk.how) == (1, ["joined", "joined"])
    assert await desk.call() == ("answer 1", "repeated")


@pytest.mark.parametrize(("request_id", "content"), [("a", "y"), ("b", "x")])
async def test_another_id_or_content_is_another_call(request_id, content):
    desk = Desk()
    calls = [desk.call(), desk.call(request_id, content)]
    await rounds()
    desk.go_on.set()
    assert [how for _, how in await asyncio.gather(*calls)] == ["", ""]
    assert desk.begun == 2


async def test_the_work_goes_on_for_whoever_still_waits():
    desk = Desk()
    first, second = desk.call(), desk.call()
    await rounds()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert desk.ended == []
    desk.go_on.set()
    assert await second == ("answer 1", "joined")


async def test_the_work_ends_with_the_last_who_waits():
    desk = Desk()
    calls = [desk.call(), desk.call()]
    await rounds()
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert desk.ended == ["cancelled"]
    desk.go_on.set()
    assert await desk.call() == ("answer 2", "")


async def test_nobody_joins_what_is_given_up():
    desk = Desk()
    left = desk.call()
    await rounds()
    left.cancel()
    await asyncio.sleep(0)
    again = [desk.call(), desk.call()]
    await asyncio.gather(left, return_exceptions=True)
    again.append(desk.call())
    await rounds()
    desk.go_on.set()
    assert await asyncio.gather(*again) == [("answer 2", ""), ("answer 2", "joined"), ("answer 2", "joined")]
    assert desk.ended == ["cancelled"]


async def test_a_call_that_leaves_at_once_leaves_nothing():
    desk = Desk()
    call = desk.call()
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    desk.go_on.set()
    assert (await desk.call())[1] == ""


async def test_errors_go_to_those_who_wait_and_no_further():
    desk = Desk(InvalidRequestError("wrong"), response_cache_bytes=10_000)
    calls = [desk.call(), desk.call()]
    await rounds()
    desk.go_on.set()
    assert await asyncio.gather(*calls, return_exceptions=True) == [desk.error] * 2
    assert await desk.call() == ("answer 2", "")


async def test_a_more_patient_caller_gets_work_of_its_own():
    desk = Desk(ExpiredError("late"))
    hurried, as_hurried, patient = desk.call(deadline=10.0), desk.call(deadline=10.0), desk.call(deadline=20.0)
    await rounds()
    desk.go_on.set()
    *late, answered = await asyncio.gather(hurried, as_hurried, patient, return_exceptions=True)
    assert late == [desk.error] * 2
    assert answered == ("answer 2", "")


async def test_those_who_join_are_admitted_too():
    desk = Desk()
    first = desk.call()
    await rounds()
    desk.room = False
    with pytest.raises(OverloadedError):
        await desk.call()
    desk.go_on.set()
    assert await first == ("answer 1", "")


async def test_nothing_is_kept_by_id_where_that_is_off():
    desk = Desk(repeat_seconds=0)
    desk.go_on.set()
    assert [await desk.call() for _ in range(2)] == [("answer 1", ""), ("answer 2", "")]


async def test_the_cache_goes_by_content():
    desk = Desk(response_cache_bytes=10_000)
    desk.go_on.set()
    assert await desk.call("a", "x") == ("answer 1", "")
    assert await desk.call("b", "x") == ("answer 1", "cached")
    assert await desk.call("b", "y") == ("answer 2", "")
    assert desk.how == ["cached"]


async def test_what_would_not_be_the_same_again_is_not_cached():
    desk = Desk(response_cache_bytes=10_000)
    desk.go_on.set()
    desk.repeats._lasting = lambda answer: False
    assert [await desk.call(each) for each in "ab"] == [("answer 1", ""), ("answer 2", "")]


def test_the_least_recently_used_go_first():
    kept = KeptAnswers(2000)
    for key in "abc":
        kept.put((key,), key, 100)  # and 512 of its own each
    assert kept.byte_count == 3 * 612
    assert kept.get(("a",)) == "a"
    kept.put(("d",), "d", 100)
    assert [kept.get((key,)) for key in "abcd"] == ["a", None, "c", "d"]
    kept.put(("e",), "e", 1489)  # would leave room for nothing, and still not fit
    assert kept.get(("e",)) is None
    assert kept.byte_count == 3 * 612
    kept.put(("a",), "A", 200)
    assert (kept.get(("a",)), kept.byte_count) == ("A", 3 * 612 + 100)


def test_answers_are_kept_for_a_time():
    now = [0.0]
    kept = KeptAnswers(2000, 10, lambda: now[0])
    kept.put(("a",), "a", 100)
    now[0] = 9.9
    assert kept.get(("a",)) == "a"
    now[0] = 10.0
    assert kept.get(("a",)) is None
    assert kept.byte_count == 0
