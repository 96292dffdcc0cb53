"""Whether the server is there, as pages see it."""

import asyncio
from types import SimpleNamespace

import pytest

from xai_client import UnauthenticatedError, UnavailableError
from xai_console.monitor import Monitor


class Flaky:
    """Answers with what it is told to, and counts."""

    def __init__(self):
        self.asked = 0
        self.answers = True

    async def model_info(self):
        self.asked += 1
        await asyncio.sleep(0)
        if not self.answers:
            raise UnavailableError("away")
        return f"info {self.asked}"


def test_what_it_knows_survives_a_server_that_goes_away():
    async def story():
        source = Flaky()
        monitor = Monitor(source)
        assert not monitor.here
        await monitor.refresh()
        assert (monitor.here, monitor.info) == (True, "info 1")
        source.answers = False
        await monitor.refresh()
        assert (monitor.here, monitor.info, monitor.problem.message) == (False, "info 1", "away")
        source.answers = True
        await monitor.refresh()
        assert (monitor.here, monitor.problem) == (True, None)

    asyncio.run(story())


def test_those_who_ask_at_the_same_time_share_a_question():
    async def story():
        source = Flaky()
        monitor = Monitor(source)
        await asyncio.gather(*(monitor.refresh() for _ in range(5)))
        assert source.asked == 1

    asyncio.run(story())


def test_nobody_is_asked_while_nobody_watches(monkeypatch):
    monkeypatch.setattr("xai_console.monitor._HERE_SECONDS", 0.001)

    async def story():
        source, told = Flaky(), []
        monitor = Monitor(source)
        running = asyncio.create_task(monitor.run())
        await asyncio.sleep(0.02)
        assert source.asked == 0
        end = monitor.watch(lambda: told.append(source.asked))
        while len(told) < 3:
            await asyncio.sleep(0.001)
        end()
        await asyncio.sleep(0.01)
        seen = source.asked
        await asyncio.sleep(0.02)
        assert source.asked <= seen + 1
        assert told[:3] == [1, 2, 3]
        running.cancel()

    asyncio.run(story())


def test_a_page_that_is_gone_keeps_nobody_else_from_being_told():
    def gone():
        raise RuntimeError("the client this element belongs to has been deleted")

    async def story():
        told = []
        monitor = Monitor(Flaky())
        monitor.watch(gone)
        monitor.watch(lambda: told.append(1))
        await monitor.refresh()
        assert told == [1]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("answer", "guarded", "refused"),
    [
        (SimpleNamespace(roles=None), False, False),
        (SimpleNamespace(roles=("read",)), True, False),
        (UnauthenticatedError("no token"), True, True),
        (UnavailableError("away"), False, False),
    ],
)
def test_whether_a_server_asks_for_credentials_it_says_itself(answer, guarded, refused):
    class Server:
        async def model_info(self):
            if isinstance(answer, Exception):
                raise answer
            return answer

    monitor = Monitor(Server())
    asyncio.run(monitor.refresh())
    assert (monitor.guarded, monitor.refused) == (guarded, refused)
