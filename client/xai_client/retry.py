"""How calls are made and repeated: channel options, deadline, request id, attempts."""

from __future__ import annotations

import json
import math
import random
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc

from xai_client.errors import ArgumentError
from xai_client.status import to_error

MAX_ATTEMPTS: Final = 5
MAX_MESSAGE_BYTES: Final = 64 * 2**20
DEFAULT_TIMEOUT: Final = 30.0

ChannelOptions = Sequence[tuple[str, Any]]
Metadata = Sequence[tuple[str, str | bytes]]

LONGEST_TIMEOUT: Final = 30 * 24 * 3600.0
"""Seconds; gRPC takes far longer deadlines for none at all, or for passed."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_METADATA_KEY = re.compile(r"[0-9a-z_.-]+")
_ALPHABET: Final = "1 to 128 characters of [A-Za-z0-9._:-]"

# Every call may be repeated, even ReportGroundTruth, of which the last one counts. gRPC does this within the deadline
# of the call and waits as long as a `grpc-retry-pushback-ms` asks for.
_SERVICE_CONFIG: Final = {
    "methodConfig": [
        {
            "name": [{"service": "xai.v1.ExplanationService"}],
            "retryPolicy": {
                "maxAttempts": MAX_ATTEMPTS,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def channel_options(options: ChannelOptions) -> list[tuple[str, Any]]:
    """The options of a channel; those of the caller win."""
    defaults: dict[str, Any] = {
        "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
        "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
        "grpc.enable_retries": 1,
        # What is larger than this is never repeated; gRPC's own default of 256 KiB is less than most photographs.
        "grpc.per_rpc_retry_buffer_size": MAX_MESSAGE_BYTES,
        "grpc.service_config": json.dumps(_SERVICE_CONFIG),
        # gRPC's own default of two minutes would keep a client away long after the server is back.
        "grpc.max_reconnect_backoff_ms": 5000,
    }
    return list({**defaults, **dict(options)}.items())


@dataclass(frozen=True)
class Connection:
    """What all calls of one client share.

    Attributes:
        address: Target of the channel, "host:port".
        timeout: Default deadline of a call in seconds; None for none.
        metadata: Sent with every call.
        wait_for_ready: Whether a call waits for the server to come up, until its deadline, instead of failing.
    """

    address: str
    timeout: float | None
    metadata: Metadata
    wait_for_ready: bool

    def __post_init__(self) -> None:
        if not isinstance(self.address, str):
            raise ArgumentError(f"the address must be a text, host:port, not {self.address!r}")
        if self.address.startswith(("http://", "https://")):
            raise ArgumentError(f"{self.address!r} is a URL; the address of a gRPC server is host:port")
        if ":" not in self.address:
            raise ArgumentError(f"the address {self.address!r} has no port; write host:port")
        _check_timeout(self.timeout)
        _check_metadata(self.metadata)

    def call(self, timeout: float | None = None, request_id: str | None = None) -> Call:
        """A call about to be made.

        Args:
            timeout: Its deadline in seconds from now; None for the default.
            request_id: Its id; None for a new one.

        Raises:
            ArgumentError: The timeout or the id cannot be used.
        """
        _check_timeout(timeout)
        return Call(self, self.timeout if timeout is None else timeout, check_request_id(request_id))


class Call:
    """One call as its caller sees it: one deadline over all attempts, and one id."""

    def __init__(self, connection: Connection, timeout: float | None, request_id: str) -> None:
        self.request_id = request_id
        self._connection = connection
        self._timeout = timeout
        self._deadline = math.inf
        self._attempts = 0

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for the next attempt. The first one starts the clock."""
        if self._attempts == 0 and self._timeout is not None:
            self._deadline = time.monotonic() + self._timeout
        self._attempts += 1
        return {
            "timeout": self._remaining(),
            "metadata": (*self._connection.metadata, ("x-request-id", self.request_id)),
            "wait_for_ready": self._connection.wait_for_ready,
        }

    def pause(self, error: grpc.RpcError, *, repeatable: bool = True) -> float:
        """How long to wait before the next attempt.

        An overloaded server that says when to come back gets another attempt, while attempts and time are left.
        Everything else that may be repeated, gRPC has repeated already.

        Args:
            error: What the last attempt raised.
            repeatable: False once a part of the answer has been handed on.

        Returns:
            Seconds.

        Raises:
            ServiceError: Another attempt is no use; this is the failure to report.
        """
        failure = to_error(error, address=self._connection.address, timeout=self._timeout, request_id=self.request_id)
        if failure.code != "RESOURCE_EXHAUSTED" or failure.retry_after is None:
            raise failure from error
        if not repeatable or self._attempts >= MAX_ATTEMPTS:
            raise failure from error
        # Never earlier than asked, and not all callers at once.
        wait = failure.retry_after * random.uniform(1.0, 1.5)  # noqa: S311
        if time.monotonic() + wait >= self._deadline:
            raise failure from error
        return wait

    def _remaining(self) -> float | None:
        return None if self._timeout is None else max(0.0, self._deadline - time.monotonic())


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
            raise ArgumentError(f"metadata is pairs of a key and a value, not {pair!r}", field="metadata")
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
