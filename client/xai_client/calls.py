"""How calls are made and repeated: deadline, request id, attempts.

gRPC's own retry policies are not used, for they go by status codes alone. Measured on sockets with 1.85: they run a
call five times that was reset while it ran (RST_STREAM 11), that a gateway gave up (504), or that is larger than the
server takes; and a deadline that passes in their backoff hides the reason. A pushback is obeyed as gRPC obeys it.
"""

from __future__ import annotations

import math
import random
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from xai_client.credentials import Token
from xai_client.error_mapping import details_of, metadata_of, text_of, to_error
from xai_client.errors import ArgumentError
from xai_client.transport import SHUTTING_DOWN, was_not_sent

MAX_ATTEMPTS: Final = 5
DEFAULT_TIMEOUT: Final = 30.0

Metadata = Sequence[tuple[str, str | bytes]]

LONGEST_TIMEOUT: Final = 30 * 24 * 3600.0
"""Seconds; gRPC takes far longer deadlines for none at all, or for passed."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_METADATA_KEY = re.compile(r"[0-9a-z_.-]+")
_ALPHABET: Final = "1 to 128 characters of [A-Za-z0-9._:-]"

_FIRST_BACKOFF: Final = 0.1
_LONGEST_BACKOFF: Final = 2.0
_PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"


@dataclass(frozen=True)
class Connection:
    """The settings that all calls of one client share.

    Attributes:
        address: Target of the channel, "host:port".
        timeout: Default deadline of a call in seconds; None for none.
        metadata: Sent with every call.
        wait_for_ready: Whether a call waits for the server to come up, until its deadline, instead of failing.
        token: Sent with every call; None for none.
    """

    address: str
    timeout: float | None
    metadata: Metadata = field(repr=False)
    wait_for_ready: bool
    token: Token | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.address, str):
            raise ArgumentError(f"the address must be a text, host:port, not {self.address!r}")
        if self.address.startswith(("http://", "https://")):
            raise ArgumentError(f"{self.address!r} is a URL; the address of a gRPC server is host:port")
        if ":" not in self.address:
            raise ArgumentError(f"the address {self.address!r} has no port; write host:port")
        _check_timeout(self.timeout)
        _check_metadata(self.metadata)

    def sent(self) -> Metadata:
        """What is sent with a call that is made now."""
        return self.metadata if self.token is None else (*self.metadata, self.token.metadata())

    def call(self, timeout: float | None = None, request_id: str | None = None, *, idempotent: bool = False) -> Call:
        """A new call, not sent yet.

        Args:
            timeout: Its deadline in seconds from now; None for the default.
            request_id: Its id; None for a new one.
            idempotent: Whether running it twice costs next to nothing and changes nothing.

        Raises:
            ArgumentError: The timeout or the id cannot be used.
        """
        _check_timeout(timeout)
        return Call(
            self, self.timeout if timeout is None else timeout, check_request_id(request_id), idempotent=idempotent
        )

    def lasting(self, timeout: float | None = None) -> Call:
        """A new call that goes on until its caller ends it; see `Call.begin_again` for where the server does.

        Args:
            timeout: Its deadline in seconds from now; None for none, whatever the default.

        Raises:
            ArgumentError: The timeout cannot be used.
        """
        _check_timeout(timeout)
        return Call(self, timeout, check_request_id(None), idempotent=True)


class Call:
    """One call as its caller sees it: one deadline over all attempts, and one id."""

    def __init__(self, connection: Connection, timeout: float | None, request_id: str, *, idempotent: bool) -> None:
        self.request_id = request_id
        self._idempotent = idempotent
        self._connection = connection
        self._timeout = timeout
        self._deadline = math.inf
        self._attempts = 0

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for the next attempt. The first one starts the clock."""
        if math.isinf(self._deadline) and self._timeout is not None:
            self._deadline = time.monotonic() + self._timeout
        self._attempts += 1
        return {
            "timeout": self._remaining(),
            "metadata": (*self._connection.sent(), ("x-request-id", self.request_id)),
            "wait_for_ready": self._connection.wait_for_ready,
        }

    def retry_delay(self, error: grpc.RpcError, *, repeatable: bool = True) -> float:
        """How long to wait before the next attempt.

        Repeated is what surely was not run: the connection was not there, or the server refused the call and says when
        it may come again, or that it is shutting down. A call that may have been run is repeated if it is idempotent.

        Args:
            error: What the last attempt raised.
            repeatable: False once a part of the answer has been handed on.

        Returns:
            Seconds.

        Raises:
            ServiceError: There must be no other attempt; this is the failure to report.
        """
        failure = to_error(
            error,
            address=self._connection.address,
            timeout=self._timeout,
            request_id=self.request_id,
            repeated=self._idempotent,
        )
        delay = self._delay(error, failure.code) if repeatable and self._attempts < MAX_ATTEMPTS else None
        if delay is None or time.monotonic() + delay >= self._deadline:
            raise failure from error
        return delay

    def begin_again(self) -> None:
        """Has a call made once more whose answer came to its end: by the same deadline, and with all its attempts."""
        self._attempts = 0

    def _delay(self, error: grpc.RpcError, code: str) -> float | None:
        """Seconds until the next attempt; None where there must be none."""
        pushback = _pushback(error) if code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED") else None
        if pushback is not None:
            return pushback if pushback >= 0 else None
        if code != "UNAVAILABLE":
            return None
        reason = details_of(error).reason
        refused = reason == SHUTTING_DOWN or (not reason and was_not_sent(text_of(error)))
        if not (refused or self._idempotent):
            return None
        backoff = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** (self._attempts - 1))
        return backoff * random.uniform(0.8, 1.2)  # noqa: S311

    def _remaining(self) -> float | None:
        return None if self._timeout is None else max(0.0, self._deadline - time.monotonic())


def _pushback(error: grpc.RpcError) -> float | None:
    """Seconds after which the server wants the call again; negative for not at all, None where it says nothing."""
    value = next((value for key, value in metadata_of(error) if key == _PUSHBACK_KEY), None)
    if value is None:
        return None
    return int(value) / 1e3 if str(value).isdecimal() else -1.0


def check_request_id(request_id: str | None) -> str:
    """Returns the id, or a new one for None.

    Raises:
        ArgumentError: It is not 1 to 128 characters of [A-Za-z0-9._:-].
    """
    if request_id is None:
        return uuid.uuid4().hex
    if not isinstance(request_id, str) or not _REQUEST_ID.fullmatch(request_id):
        raise ArgumentError(f"request_id must be {_ALPHABET}, not {request_id!r}", field="request_id")
    return request_id


def _check_metadata(metadata: Metadata) -> None:
    for pair in metadata:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str)):
            raise ArgumentError(f"metadata is pairs of a key and a value, not {type(pair)}", field="metadata")
        key, value = pair
        wanted = bytes if key.endswith("-bin") else str
        if not _METADATA_KEY.fullmatch(key) or key.startswith("grpc-"):
            raise ArgumentError(f"metadata keys are lower-case letters, digits and _.-, not {key!r}", field="metadata")
        if not isinstance(value, wanted) or (isinstance(value, str) and not (value.isascii() and value.isprintable())):
            raise ArgumentError(
                f"the metadata value of {key!r} must be printable ASCII, or bytes where the key ends in -bin",
                field="metadata",
            )


def _check_timeout(timeout: float | None) -> None:
    if timeout is None:
        return
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not (number and 0 < timeout <= LONGEST_TIMEOUT):
        raise ArgumentError(
            f"timeout must be a number of seconds greater than 0 and at most {LONGEST_TIMEOUT:.0f}, or None for none,"
            f" not {timeout!r}",
            field="timeout",
        )
