"""Failures that gRPC itself reports where no xai-sidecar answered: of the connection, and HTTP statuses of proxies.

gRPC tells these apart by nothing but its texts. The patterns hold for its versions 1.71 to 1.85; a text that none of
them knows counts as of a call that may have been run, which is the careful reading.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from xai_client import errors
from xai_client.errors import ServiceError

SHUTTING_DOWN: Final = "SHUTTING_DOWN"
"""The server's own reason for refusing calls while it drains."""

_HTTP_STATUS = re.compile(r"Received http2 header with status: (\d+)")
_UNSENT = re.compile(
    r"failed to connect to all addresses|connections to all backends failing|DNS resolution failed|errors resolving"
    r"|empty address list|RST_STREAM with error code 7"  # REFUSED_STREAM: "prior to any processing", RFC 9113
)
_LOST = re.compile(
    r"^Stream removed|Socket closed|[Cc]onnection reset|Broken pipe|recvmsg|sendmsg|ping timeout|keepalive watchdog"
    r"|GOAWAY|RST_STREAM|Connection timed out|Transport closed"
)
_NOT_GRPC = re.compile(r"Failed parsing HTTP/2|http1\.x|Socket closed|Data frame with END_STREAM")
_LEAVING = re.compile(r"GOAWAY received; Error code: 0\b|Cancelling all calls")
_BROKEN = re.compile(r"^Stream removed|RST_STREAM with error code")
_PINGED = re.compile(r"too_many_pings")


@dataclass(frozen=True)
class _Cure:
    """What an HTTP status means here and the cure, and the error where gRPC's own status would mislead."""

    advice: str
    kind: type[ServiceError] | None = None


_SMALLER: Final = "send an encoded file instead of an array, a smaller picture or fewer of them"
_LIGHTER: Final = "ask for less, give explanations a budget, or use `stream`, which is never silent for long"
_ANSWERS: Final = {
    400: _Cure("it cannot read the request. Have it pass gRPC on, which is HTTP/2 from end to end"),
    401: _Cure("it wants credentials. Give them as `token`, or in `metadata`"),
    403: _Cure("it does not let the call through. Have it allow /xai.v1.ExplanationService, or give it credentials"),
    404: _Cure("it does not know /xai.v1.ExplanationService. Check host and port, or have it pass the path on"),
    405: _Cure("it takes no POST there. Check host and port, or have it pass gRPC on"),
    407: _Cure("it wants credentials of its own. Put them into the address of the proxy"),
    408: _Cure(f"the request came too slowly for it. Raise its timeout, or {_SMALLER}", errors.DeadlineError),
    413: _Cure(
        f"the request is larger than its limit. Raise that (nginx: client_max_body_size), or {_SMALLER}",
        errors.MessageTooLargeError,
    ),
    429: _Cure("it gets too many requests. Send fewer, or have its rate limit raised", errors.OverloadedError),
    431: _Cure("the headers are larger than its limit. Send less `metadata`, or have the limit raised"),
    499: _Cure("it takes the caller for gone. Look into its log"),
    500: _Cure("it failed itself. Look into its log"),
    502: _Cure("it could not reach the server, or lost it during the call. Look whether xai-sidecar runs behind it"),
    503: _Cure("it has no server for the call now. Look whether xai-sidecar runs behind it and is ready (/readyz)"),
    504: _Cure(
        f"it waited for the server no longer. Raise its timeout (nginx: grpc_read_timeout), or {_LIGHTER}",
        errors.DeadlineError,
    ),
    507: _Cure(f"it has no room for the request. Have its buffers enlarged, or {_SMALLER}"),
}
_REDIRECT: Final = _Cure("it wants the call elsewhere, which gRPC does not follow. Use the address that it names")
_REFUSAL: Final = _Cure("it refuses the call. Look into its log")


def http_status(text: str) -> int | None:
    """The HTTP status that came in the place of an answer; None if that was not it."""
    found = _HTTP_STATUS.search(text)
    return int(found[1]) if found else None


def was_not_sent(text: str) -> bool:
    """Whether the call surely was not run: it did not leave the machine, or was refused before anybody saw it."""
    return bool(_UNSENT.search(text))


def is_broken(text: str) -> bool:
    """Whether the other side ended the call without an answer, or with one that was none of gRPC's."""
    return bool(_BROKEN.search(text))


def describe_http(status: int, address: str) -> tuple[str, type[ServiceError] | None]:
    """The message for an HTTP status, and the error class where gRPC's own status for it would mislead."""
    answer = _ANSWERS.get(status, _REDIRECT if 300 <= status < 400 else _REFUSAL)
    who = f"a proxy between client and server, or another server at {address}"
    return f"{who}, answered HTTP {status}: {answer.advice}", answer.kind


def describe_unavailable(text: str, address: str, *, repeated: bool) -> tuple[str, str]:
    """The message for a failed connection, and the reason where one is known.

    Args:
        text: What gRPC says.
        address: Where the call went.
        repeated: Whether calls of this kind are repeated even if the server may have run them.
    """
    if was_not_sent(text):
        return _unreachable(text, address), ""
    rest = "" if repeated else " It was not repeated, since the server may have run it."
    if _LEAVING.search(text):
        return f"the server at {address} is shutting down and has ended the call.{rest} Try another one", SHUTTING_DOWN
    if _PINGED.search(text):
        return (
            f"{address} ended the connection because of too many pings.{rest} Raise grpc.keepalive_time_ms in"
            " `options`, or have the server allow them"
        ), ""
    if not _LOST.search(text):
        return f"{address} answered that it is unavailable: {text}.{rest} Try again later, or another server", ""
    return (
        f"the connection to {address} was lost after the request had been sent: {text}.{rest} Look whether xai-sidecar"
        " still runs there before you try again"
    ), ""


def _unreachable(text: str, address: str) -> str:
    head = f"cannot reach a server at {address}: {text}. "
    if "CERTIFICATE_VERIFY_FAILED" in text or "not in peer certificate" in text or "Hostname Verification" in text:
        return (
            f"{head}Give `tls` the root that has signed the server's certificate, and the server's address by the name"
            " that is in it"
        )
    if "WRONG_VERSION_NUMBER" in text:
        return f"{head}What answers there does not speak TLS: leave `tls` out, or check the port"
    if _NOT_GRPC.search(text):
        return (
            f"{head}What answers there is no gRPC server, wants TLS or a certificate of yours, or takes no more"
            " connections: check the port, and `tls`"
        )
    return (
        f"{head}Check that xai-sidecar runs there, that host and port are right, and that both sides use TLS or neither"
        " does"
    )
