"""What browsers may do with pages of the console, and which requests it answers.

NiceGUI makes functions of the event handlers and templates that it sends (Vue compiles them in the browser), hence
'unsafe-eval', and sets styles on elements, hence 'unsafe-inline' for styles. Scripts that stand in a page run only with
the nonce of this very answer, and nothing is loaded from, or sent to, anywhere but the console.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xai_console.page import words_of

_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; worker-src 'none'; manifest-src 'self';"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_SCRIPT: Final = re.compile(rb"<script\b")


class Guard:
    """Answers only what comes from its own pages, by a name that is its own, and sends the policy with each answer.

    Pages of others that have their name lead to this machine (DNS rebinding), or connect to this port, are refused.

    Args:
        app: What answers.
        hosts: Names that browsers may call the console by, besides the loopback's.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...] = ()) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or refuses."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif (refusal := self._refusal(scope)) is None:
            await self._app(scope, receive, send if scope["type"] == "websocket" else _Secured(send))
        elif scope["type"] == "http":
            said = words_of(Request(scope))(refusal, host=repr(Headers(scope=scope).get("host", "")))
            await PlainTextResponse(said, 403)(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    def _refusal(self, scope: Scope) -> str | None:
        """The key of the words that say why it is refused; None where it is not."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_ours(host):
            return "guard.host"
        origin = headers.get("origin")
        reads = scope["type"] == "http" and scope.get("method") in ("GET", "HEAD")
        if origin is not None and urlsplit(origin).netloc != host and not reads:
            return "guard.origin"
        return None

    def _is_ours(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname or ""
        try:
            return ipaddress.ip_address(name).is_loopback or name in self._hosts
        except ValueError:
            return name == "localhost" or name in self._hosts


class _Secured:
    """Sends an answer with the headers above, and its scripts with the nonce."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._nonce = secrets.token_urlsafe(16)
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers["content-security-policy"] = _POLICY.format(nonce=self._nonce)
            if headers.get("content-type", "").startswith("text/html") and "content-encoding" not in headers:
                self._start = message  # is sent with the body, whose length is not known yet
                return
        if self._start is not None:
            await self._page(message)
            return
        await self._send(message)

    async def _page(self, message: Message) -> None:
        self._body += message.get("body", b"")
        if message.get("more_body", False) or self._start is None:
            return
        body = _SCRIPT.sub(b'<script nonce="%s"' % self._nonce.encode(), self._body)
        MutableHeaders(scope=self._start)["content-length"] = str(len(body))
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": body})
