"""Viewers with credentials of their own: whose token serves whom, and what no other viewer gets to see."""

import asyncio
from types import SimpleNamespace
from typing import ClassVar

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import HTTPConnection

from xai_client import UnauthenticatedError, UnavailableError
from xai_console import routes
from xai_console import viewers as module
from xai_console.routes import add_routes
from xai_console.settings import Settings
from xai_console.viewers import Viewers

SETTINGS = Settings("models.example:443")
KNOWN = {"": ("read",), "anna": ("read", "feedback"), "ben": ("predict",)}


class Source:
    """A server that knows some tokens, asked with one of them."""

    name = "models.example:443"
    made: ClassVar = []

    def __init__(self, settings, token):
        self.token, self.closed = token, False
        self.made.append(self)

    async def model_info(self):
        if self.token not in KNOWN:
            raise UnauthenticatedError("The server does not know this token.")
        return SimpleNamespace(roles=KNOWN[self.token])

    async def close(self):
        self.closed = True


@pytest.fixture
def source(monkeypatch):
    """The class of sources, for a test that has the server answer otherwise."""
    monkeypatch.setattr(Source, "made", [])
    return Source


def viewers(settings=SETTINGS):
    return Viewers(settings, Source)


def request(made=None, session="", authorization=""):
    headers = [(b"cookie", f"{made.cookie}={session}".encode())] if session else []
    headers += [(b"authorization", authorization.encode())] if authorization else []
    return HTTPConnection({"type": "http", "headers": headers})


def test_who_has_no_credentials_is_shown_what_the_console_may_see(source):
    async def story():
        made = viewers()
        for asked in (request(), request(made, "guessed"), request(authorization="Basic YW5uYTpi")):
            console = await made.of(asked)
            assert console is made.shared
            assert (console.source.token, console.credentials) == ("", "console")

    asyncio.run(story())


def test_who_has_signed_in_is_known_by_a_cookie_that_does_not_have_the_token(source):
    async def story():
        made = viewers()
        anna, ben = await made.sign_in("anna"), await made.sign_in("ben")
        assert len({anna, ben, await made.sign_in("anna")}) == 3
        assert "anna" not in anna
        console = await made.of(request(made, anna))
        assert (console.source.token, console.credentials) == ("anna", "session")
        other = await made.of(request(made, ben))
        assert other.source.token == "ben"
        assert len({each.monitor for each in (console, other, made.shared)}) == 3
        await made.close()

    asyncio.run(story())


def test_a_token_that_the_server_does_not_know_makes_no_viewer(source):
    async def story():
        made = viewers()
        with pytest.raises(UnauthenticatedError):
            await made.sign_in("stranger")
        assert source.made[-1].closed
        assert not made._viewers

    asyncio.run(story())


def test_an_open_server_is_sent_no_token(source, monkeypatch):
    async def tells_nobody(self):
        return SimpleNamespace(roles=None)

    monkeypatch.setattr(Source, "model_info", tells_nobody)

    async def story():
        made = viewers()
        assert await made.sign_in("anna") == ""
        assert (await made.of(request(authorization="Bearer anna"))) is made.shared

    asyncio.run(story())


def test_a_server_that_is_away_may_ask_for_credentials(source, monkeypatch):
    async def away(self):
        raise UnavailableError("away")

    monkeypatch.setattr(Source, "model_info", away)

    async def story():
        made = viewers()
        assert (await made.of(request(authorization="Bearer anna"))).source.token == "anna"
        await made.close()

    asyncio.run(story())


def test_what_a_proxy_sends_counts_before_a_cookie_of_somebody_who_was_there_before(source):
    async def story():
        made = viewers()
        session = await made.sign_in("anna")
        console = await made.of(request(made, session, "bearer  ben "))
        assert (console.source.token, console.credentials) == ("ben", "request")
        assert await made.of(request(authorization="Bearer ben")) is console
        await made.close()

    asyncio.run(story())


def test_the_token_of_a_proxy_is_none_of_an_offline_runs(source):
    async def story():
        made = viewers(Settings("unix:/run.sock", run="RUN"))
        assert await made.of(request(authorization="Bearer ben")) is made.shared

    asyncio.run(story())


def test_nothing_is_left_of_who_signs_out(source):
    async def story():
        made = viewers()
        session = await made.sign_in("anna")
        console = await made.of(request(made, session))
        name = console.shelf.put(b"picture", "image/png")
        made.sign_out(request(made, session))
        await asyncio.sleep(0)
        assert console.source.closed
        assert console.shelf.get(name) is None
        assert await made.of(request(made, session)) is made.shared
        await made.close()

    asyncio.run(story())


def test_who_does_not_look_for_long_is_forgotten_and_who_looks_is_not(source, monkeypatch):
    async def story():
        made = viewers()
        idle, looking = await made.sign_in("anna"), await made.sign_in("anna")
        (await made.of(request(made, looking))).monitor.watch(lambda: None)
        monkeypatch.setattr(module, "_IDLE_SECONDS", {"session": -1.0})
        assert await made.of(request(made, idle)) is made.shared
        assert await made.of(request(made, looking)) is not made.shared
        await made.close()

    asyncio.run(story())


def test_tokens_that_somebody_makes_up_forget_nobody_who_has_signed_in(source, monkeypatch):
    monkeypatch.setattr(module, "_MOST", 3)

    async def story():
        made = viewers()
        session = await made.sign_in("anna")
        for number in range(10):
            await made.of(request(authorization=f"Bearer made-up-{number}"))
        assert (await made.of(request(made, session))).source.token == "anna"
        assert len(made._viewers) <= 5
        await made.close()

    asyncio.run(story())


# --------------------------------------------------------------------------------------------- by their browsers


def browsing(story):
    """Runs a story of the viewers and of what makes browsers, each with cookies of its own."""

    async def run():
        made, app = viewers(), FastAPI()
        add_routes(app, made)

        def browser(address="http://console.example"):
            return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=address)

        await story(made, browser)
        await made.close()

    asyncio.run(run())


def test_the_cookie_ends_with_the_browser_and_no_script_reads_it(source):
    async def story(made, browser):
        answer = await browser().post("/sign-in", content="anna\n")
        assert answer.status_code == 204
        name, _, rest = answer.headers["set-cookie"].partition("=")
        assert name == made.cookie
        assert "anna" not in rest
        assert {part.strip().lower() for part in rest.split(";")[1:]} == {"httponly", "path=/", "samesite=lax"}
        tls = await browser("https://console.example").post("/sign-in", content="anna")
        behind = await browser().post("/sign-in", content="anna", headers={"x-forwarded-proto": "https"})
        assert all("; secure" in each.headers["set-cookie"].lower() for each in (tls, behind))

    browsing(story)


@pytest.mark.parametrize(
    ("token", "status", "said"), [("stranger", 401, "does not know"), ("", 400, "token"), ("x" * 5000, 400, "4096")]
)
def test_what_is_no_token_gets_no_cookie(source, token, status, said):
    async def story(made, browser):
        answer = await browser().post("/sign-in", content=token)
        assert (answer.status_code, "set-cookie" in answer.headers) == (status, False)
        assert said in answer.text

    browsing(story)


def test_a_refusal_is_in_the_viewers_language(source):
    async def story(made, browser):
        for url, said in (("/sign-in", "服务器不认识此令牌"), ("/upload", "无法读取此图片")):
            answer = await browser().post(url, content="stranger", headers={"accept-language": "zh"})
            assert said in answer.text

    browsing(story)


def test_a_picture_that_is_too_large_is_refused_in_the_viewers_language(source, monkeypatch):
    monkeypatch.setattr(routes, "LARGEST_UPLOAD", 2**20)

    async def story(made, browser):
        picture = bytes(2**20 + 1)
        for language, said in (("en", "larger than 1 MiB"), ("zh", "图片大于 1 MiB")):
            answer = await browser().post("/upload", content=picture, headers={"accept-language": language})
            assert answer.status_code == 413
            assert said in answer.text

    browsing(story)


def test_what_was_fetched_for_one_viewer_no_other_gets(source):
    async def story(made, browser):
        anna, ben, nobody = browser(), browser(), browser()
        await anna.post("/sign-in", content="anna")
        await ben.post("/sign-in", content="ben")
        session = HTTPConnection({"type": "http", "headers": [(b"cookie", _cookies(anna))]})
        url = f"/kept/{(await made.of(session)).shelf.put(b'picture of anna', 'image/png')}"
        assert (await anna.get(url)).content == b"picture of anna"
        for other in (ben, nobody):
            assert (await other.get(url)).status_code == 404
        assert (await nobody.get(url, headers={"authorization": "Bearer ben"})).status_code == 404
        await anna.post("/sign-out")
        assert (await anna.get(url)).status_code == 404

    browsing(story)


def _cookies(browser):
    return "; ".join(f"{name}={value}" for name, value in browser.cookies.items()).encode()
