"""What a request over HTTP says besides what it asks for: its body, within bounds, its id and how long it waits."""

from __future__ import annotations

import asyncio
import json
import math
import re
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

from starlette.requests import Request

from xai_sidecar.errors import InvalidRequestError, OverloadedError, SidecarError, quoted
from xai_sidecar.http.core_calls import HttpCall
from xai_sidecar.serving.request_ids import new_request_id, valid_request_id

REQUEST_ID = "x-request-id"
TIMEOUT = "grpc-timeout"
"""How long the caller waits: a number and H, M, S, m, u or n, as of gRPC over HTTP, and as gateways to gRPC take it."""

MOST_JSON_VALUES = 500_000
"""Most values of JSON: to parse them holds the interpreter for some 60 ms, in which nobody else is served. Long texts
take hardly any time."""

_CODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""What bodies may be compressed with, and zlib's name for it."""

_AT_ONCE = 1 << 20
"""Bytes that are unpacked before others on the event loop have their turn."""

_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")


Refused: TypeAlias = Callable[[str, str, SidecarError], object]
"""Logs and counts what is refused before it is read: told the method, or path, the request's id and the error."""


class BodyTooLargeError(InvalidRequestError):
    """The body is larger than the server receives."""


class Bodies:
    """Receives requests, and bounds what those that have not arrived yet hold.

    Args:
        most_bytes: Size of the largest body.
        most_incoming: Most bytes of all bodies that are being received.
        refused: Told of what is refused.

    Attributes:
        most_bytes: As given.
    """

    def __init__(self, most_bytes: int, most_incoming: int, refused: Refused) -> None:
        self.most_bytes = most_bytes
        self._most_incoming = max(most_incoming, most_bytes)
        self._refused = refused
        self._incoming = 0

    async def receive(self, request: Request, method: str, request_id: str) -> HttpCall:
        """A request with its body.

        Args:
            request: Has it.
            method: What it calls, as of `CallRecords.record`.
            request_id: The id that it goes by.

        Raises:
            InvalidRequestError: The body is too large or cannot be unpacked, or a header is malformed.
            OverloadedError: Too much is being received.
            ClientDisconnect: The caller has left.
        """
        try:
            return await self._received(request, request_id)
        except SidecarError as error:
            self._refused(method, request_id, error)
            raise

    async def _received(self, request: Request, request_id: str) -> HttpCall:
        seconds = _timeout(request.headers.get(TIMEOUT))
        coding = request.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", *_CODINGS):
            raise InvalidRequestError(
                f"The body is encoded as {quoted(coding)}. Send it as it is, or packed with gzip or deflate."
            )
        length = request.headers.get("content-length", "0")
        self._check_size(int(length[:20]) if length.isdecimal() else 0)
        chunks = request.stream()
        body = await self._body(_unpacked(chunks, coding) if coding in _CODINGS else chunks)
        named = request_id == request.headers.get(REQUEST_ID)
        return HttpCall(body, request_id, request.receive, seconds, named=named)

    async def _body(self, chunks: AsyncIterator[bytes]) -> bytes:
        body = bytearray()
        try:
            async for chunk in chunks:
                body += chunk
                self._incoming += len(chunk)
                self._check_size(len(body))
                if self._incoming > self._most_incoming:
                    raise OverloadedError(
                        f"Requests of {self._incoming:,} bytes are being received, of at most "
                        f"{self._most_incoming:,}. Try again shortly.",
                        retry_seconds=1.0,
                    )
            return bytes(body)
        finally:
            self._incoming -= len(body)

    def _check_size(self, count: int) -> None:
        if count > self.most_bytes:
            raise BodyTooLargeError(
                f"The body has {count:,} bytes or more, but the server receives {self.most_bytes:,}. Send fewer "
                "pictures at a time."
            )


async def _unpacked(chunks: AsyncIterator[bytes], coding: str) -> AsyncIterator[bytes]:
    """A body that is compressed, unpacked piece by piece: whoever takes the pieces may stop at any.

    Raises:
        InvalidRequestError: It is not what its header says.
    """
    unpacking = zlib.decompressobj(_CODINGS[coding])
    try:
        async for chunk in chunks:
            left = chunk
            while left:
                yield unpacking.decompress(left, _AT_ONCE)
                left = unpacking.unconsumed_tail
                await asyncio.sleep(0)
        complete = unpacking.eof and not unpacking.unused_data
    except zlib.error:
        complete = False
    if not complete:
        raise InvalidRequestError(f"The body is not whole, or not packed with {coding}. Send all of it, or as it is.")


def request_id_of(request: Request) -> str:
    """The id that a request goes by: the one that its caller gave it, or a new one."""
    given = request.headers.get(REQUEST_ID, "")
    return given if valid_request_id(given) else new_request_id()


def read_json(data: bytes | memoryview, what: str = "The body", most_values: int = MOST_JSON_VALUES) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        InvalidRequestError: It is none.
    """
    text = bytes(data)
    count = sum(
        text.count(each) for each in (b",", b"[", b"{")
    )  # commas in texts, too, which files in base64 have none of
    if count > most_values:
        raise InvalidRequestError(
            f"{what} has {count:,} values or more of JSON, of at most {most_values:,}. Send pictures as files in "
            "base64, tensors as binary data, or fewer pictures at a time."
        )
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f", at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidRequestError(f"{what} is no JSON{where}. Send a JSON object, in UTF-8.") from None
    if not isinstance(found, dict):
        raise InvalidRequestError(f"{what} is JSON, but no object. Send a JSON object.")
    return found


def _timeout(text: str | None) -> float | None:
    """Seconds that a header says; None without it.

    Raises:
        InvalidRequestError: It is malformed.
    """
    if text is None:
        return None
    found = _TIMEOUT.fullmatch(text)
    if not found:
        raise InvalidRequestError(
            f"{quoted(text)} is no timeout. Give up to eight digits and H, M, S, m, u or n, as in 500m for half a "
            "second.",
            field=TIMEOUT,
        )
    seconds = int(found[1]) * _UNITS[found[2]]
    return seconds if math.isfinite(seconds) else None


def http_status(error: SidecarError) -> int:
    """The HTTP status of an error, as google.rpc.Code maps them."""
    return 413 if isinstance(error, BodyTooLargeError) else STATUSES.get(error.code, 500)


STATUSES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def error_headers(error: SidecarError, request_id: str = "") -> dict[str, str]:
    """Headers of an error: when trying again can help, and the request's id."""
    headers = {REQUEST_ID: request_id} if request_id else {}
    if error.retry_seconds is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_seconds))
    return headers
