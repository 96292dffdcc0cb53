"""Viewers who watch the same share a stream: each gets all of it, and it ends with the last of them."""

import asyncio
from contextlib import aclosing

import pytest

from xai_client import SampleEvents, UnavailableError
from xai_console.source.sharing import Sharing


class Server:
    """Streams that tests feed: what was put is yielded, an error is raised."""

    def __init__(self):
        self.opened = 0
        self.open = 0
        self.queues = []

    async def stream(self):
        self.opened += 1
        self.open += 1
        queue = asyncio.Queue()
        self.queues.append(queue)
        try:
            while True:
                found = await queue.get()
                if isinstance(found, Exception):
                    raise found
                yield found
        finally:
            self.open -= 1

    async def put(self, *many):
        await settle()
        for each in many:
            self.queues[-1].put_nowait(each)
        await settle()


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


def told(*names, **more):
    return SampleEvents(names, **more)


def plain(events):
    return events.events, events.missed_count, events.reconnected


A = plain(told("a"))


class Viewer:
    """Somebody who watches, and what they got."""

    def __init__(self, sharing, server, key="all"):
        self.got, self.error = [], None
        self._task = asyncio.create_task(self._watch(sharing, server, key))

    async def _watch(self, sharing, server, key):
        try:
            async with aclosing(sharing.watch(key, server.stream)) as events:
                async for each in events:
                    self.got.append(plain(each))
        except UnavailableError as error:
            self.error = error

    async def leave(self):
        self._task.cancel()
        await settle()


async def _one_stream():
    server, sharing = Server(), Sharing()
    viewers = [Viewer(sharing, server) for _ in range(5)]
    await server.put(told("a"))
    assert (server.opened, [each.got for each in viewers]) == (1, [[A]] * 5)
    for each in viewers[:4]:
        await each.leave()
    assert server.open == 1
    await server.put(told("b", missed_count=2))
    assert viewers[4].got == [A, plain(told("b", missed_count=2))]
    await viewers[4].leave()
    assert server.open == 0
    again = Viewer(sharing, server)
    await server.put(told("c"))
    assert (server.opened, again.got) == (2, [plain(told("c"))])
    await again.leave()


async def _other_streams():
    server, sharing = Server(), Sharing()
    one, other = Viewer(sharing, server, "one"), Viewer(sharing, server, "other")
    await settle()
    server.queues[0].put_nowait(told("a"))
    await settle()
    assert (server.opened, one.got, other.got) == (2, [A], [])
    await one.leave()
    assert server.open == 1
    await other.leave()


async def _slow():
    server, sharing = Server(), Sharing()
    quick = Viewer(sharing, server)
    async with aclosing(sharing.watch("all", server.stream)) as events:
        first = asyncio.create_task(anext(events))
        await server.put(told("a"))
        assert plain(await first) == A
        await server.put(told("b"), told("c", reconnected=True), told(missed_count=3))
        assert plain(await anext(events)) == (("b", "c"), 3, True)
        for _ in range(3):
            await server.put(told(*range(100)))
        late = await anext(events)
        assert late.lagged
        assert late.missed_count + len(late.events) == 300
    assert sum(len(events) for events, _, _ in quick.got) == 303
    assert server.open == 1
    await quick.leave()


async def _failing():
    server, sharing = Server(), Sharing()
    viewers = [Viewer(sharing, server) for _ in range(3)]
    await server.put(told("a"), UnavailableError("away"))
    assert [each.got for each in viewers] == [[A]] * 3
    assert [each.error.message for each in viewers] == ["away"] * 3
    again = Viewer(sharing, server)
    await server.put(told("b"))
    assert (server.opened, again.got) == (2, [plain(told("b"))])
    await again.leave()


@pytest.mark.parametrize("story", [_one_stream, _other_streams, _slow, _failing], ids=lambda story: story.__name__[1:])
def test_viewers_share(story):
    asyncio.run(story())
