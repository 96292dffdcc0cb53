"""Who is answered, and what browsers may do with the answers."""

import asyncio
import re

import pytest
from starlette.responses import HTMLResponse, PlainTextResponse

from xai_console.security import Guard

PAGE = "<html><script>let one;</script><script type=module src=/x.js></script><p>&lt;script></html>"


async def page(scope, receive, send):
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    elif scope["path"] == "/page":
        await HTMLResponse(PAGE)(scope, receive, send)
    else:
        await PlainTextResponse("<script>")(scope, receive, send)


def ask(path="/page", method="GET", kind="http", hosts=(), **headers):
    """Asks the guard; returns the messages that it answers."""
    sent = []
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }

    async def receive():
        return {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(page, tuple(hosts))(scope, receive, send))
    return sent


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080", "[::1]"])
def test_the_loopback_is_answered_by_any_of_its_names(host):
    assert ask(host=host)[0]["status"] == 200


@pytest.mark.parametrize("host", ["", "evil.example", "evil.example:8080", "10.0.0.1:8080", "localhost.evil.example"])
def test_other_names_are_refused(host):
    assert ask(host=host)[0]["status"] == 403
    assert ask(kind="websocket", host=host)[0]["type"] == "websocket.close"


@pytest.mark.parametrize(("language", "said"), [("en", "not called 'evil.example'"), ("zh", "不是 'evil.example'")])
def test_a_refusal_says_what_to_do_in_the_language_of_the_browser(language, said):
    body = ask(host="evil.example", **{"accept-language": language})[1]["body"].decode()
    assert said in body
    assert "--public-host" in body


def test_a_public_host_is_answered():
    assert ask(host="Console.example:443", hosts=["console.example"])[0]["status"] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:9999", "null"])
def test_pages_of_others_can_change_nothing(origin):
    assert ask(method="POST", host="localhost:8080", origin=origin)[0]["status"] == 403
    assert ask(kind="websocket", host="localhost:8080", origin=origin)[0]["type"] == "websocket.close"


def test_its_own_pages_can():
    assert ask(method="POST", host="localhost:8080", origin="http://localhost:8080")[0]["status"] == 200
    assert ask(kind="websocket", host="localhost:8080", origin="http://localhost:8080")[0]["type"] == "websocket.accept"


def test_scripts_run_only_with_the_nonce_of_this_answer():
    nonces = set()
    for _ in range(2):
        start, body = ask(host="localhost")
        headers = dict(start["headers"])
        policy = headers[b"content-security-policy"].decode()
        (nonce,) = re.findall(r"'nonce-([^']+)'", policy)
        nonces.add(nonce)
        text = body["body"].decode()
        assert text.count(f'<script nonce="{nonce}"') == 2  # and not the text that only looks like one
        assert int(headers[b"content-length"]) == len(body["body"])
        assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
    assert len(nonces) == 2


def test_nothing_is_loaded_from_elsewhere():
    policy = dict(ask(host="localhost")[0]["headers"])[b"content-security-policy"].decode()
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for name, sources in rules.items():
        for source in sources.split():
            assert source in ("'none'", "'self'", "'unsafe-eval'", "'unsafe-inline'", "data:", "blob:") or (
                name == "script-src" and source.startswith("'nonce-")
            ), (name, source)
