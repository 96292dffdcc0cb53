"""What gRPC says of the way between client and server, in the words of its versions 1.72 and 1.85."""

import grpc
import pytest

from xai_client import errors
from xai_client.calls import Connection
from xai_client.error_mapping import to_error
from xai_client.transport import was_not_sent

CONNECT = "failed to connect to all addresses; last error: "
UNSENT = [
    f"{CONNECT}UNKNOWN: ipv4:127.0.0.1:9: Failed to connect to remote host: Connection refused",
    "errors resolving nohost.invalid:9: [field:hostname lookup error:address lookup failed: Domain name not found]",
    "DNS resolution failed for nohost.invalid:9: C-ares status is not ARES_SUCCESS: Domain name not found",
    "Stream removed (RST_STREAM (Received RST_STREAM with error code 7))",
    "Received RST_STREAM with error code 7",
]
LOST = [
    "Stream removed (Socket closed)",
    "Socket closed",
    "Stream removed (ping timeout)",
    "keepalive watchdog timeout",
    "recvmsg:Connection reset by peer",
    "sendmsg: Broken pipe (32)",
    "Stream removed (recvmsg:Connection timed out)",
]
LEAVING = [
    "Stream removed (Socket closed (GOAWAY received; Error code: 0; Debug Text: ))",
    "Cancelling all calls",
]


class Failed(grpc.RpcError):
    def __init__(self, code, text):
        self.code, self.details, self.trailing_metadata = lambda: code, lambda: text, lambda: ()


def failure(text, code=grpc.StatusCode.UNAVAILABLE, **more):
    return to_error(Failed(code, text), address="host:1", timeout=5.0, request_id="r", **more)


def repeats(text, *, idempotent=False, code=grpc.StatusCode.UNAVAILABLE):
    call = Connection("host:1", 60, (), False).call(idempotent=idempotent)
    call.arguments()
    try:
        return call.retry_delay(Failed(code, text)) > 0
    except errors.ServiceError:
        return False


@pytest.mark.parametrize("text", UNSENT)
def test_what_was_not_sent_is_repeated_and_said_to_be_out_of_reach(text):
    assert was_not_sent(text)
    assert repeats(text)
    assert failure(text).message.startswith("cannot reach a server at host:1: ")


@pytest.mark.parametrize("text", [*LOST, *LEAVING, "no healthy upstream", "words of a gRPC that is still to come"])
def test_what_may_have_been_run_is_repeated_only_where_that_is_cheap(text):
    assert not was_not_sent(text)
    assert not repeats(text)
    assert repeats(text, idempotent=True)
    told = failure(text)
    assert "not repeated" in told.message
    assert "cannot reach" not in told.message
    assert "not repeated" not in failure(text, repeated=True).message


@pytest.mark.parametrize("text", LOST)
def test_a_lost_connection_is_called_one(text):
    told = failure(text)
    assert told.message.startswith(f"the connection to host:1 was lost after the request had been sent: {text}.")
    assert type(told) is errors.UnavailableError


@pytest.mark.parametrize("text", LEAVING)
def test_a_call_cut_off_by_a_server_that_leaves_says_so(text):
    told = failure(text)
    assert (type(told), told.reason) == (errors.UnavailableError, "SHUTTING_DOWN")
    assert "shutting down" in told.message


def test_too_many_pings_name_the_option():
    text = "Stream removed (GOAWAY received; Error code: 11; Debug Text: too_many_pings)"
    assert "grpc.keepalive_time_ms" in failure(text).message
    assert not repeats(text)


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        (f"{CONNECT}UNAVAILABLE: ipv4:1.2.3.4:1: Failed parsing HTTP/2 (Expected SETTINGS frame)", "no gRPC server"),
        (f"{CONNECT}UNAVAILABLE: ipv4:1.2.3.4:1: Socket closed", "wants TLS"),
        (f"{CONNECT}UNKNOWN: ipv4:1.2.3.4:1: Tls handshake failed: WRONG_VERSION_NUMBER", "does not speak TLS"),
        (f"{CONNECT}UNKNOWN: ipv4:1.2.3.4:1: CERTIFICATE_VERIFY_FAILED: self signed certificate", "the root"),
        (f"{CONNECT}UNKNOWN: ipv4:1.2.3.4:1: Peer name host is not in peer certificate", "the name"),
    ],
)
def test_what_answers_in_the_place_of_a_server(text, cure):
    assert cure in failure(text).message


HTTP = [
    # status, gRPC's own code for it (doc/http-grpc-status-mapping.md), error, words
    (301, "UNKNOWN", errors.UnknownError, "does not follow"),
    (400, "INTERNAL", errors.InternalError, "pass gRPC on"),
    (401, "UNAUTHENTICATED", errors.UnauthenticatedError, "metadata"),
    (403, "PERMISSION_DENIED", errors.PermissionDeniedError, "let the call through"),
    (404, "UNIMPLEMENTED", errors.UnsupportedError, "Check host and port"),
    (405, "UNKNOWN", errors.UnknownError, "POST"),
    (408, "UNKNOWN", errors.DeadlineError, "timeout"),
    (413, "UNKNOWN", errors.MessageTooLargeError, "client_max_body_size"),
    (418, "UNKNOWN", errors.UnknownError, "refuses the call"),
    (429, "UNAVAILABLE", errors.OverloadedError, "too many requests"),
    (431, "UNKNOWN", errors.UnknownError, "metadata"),
    (499, "UNKNOWN", errors.UnknownError, "gone"),
    (500, "UNKNOWN", errors.UnknownError, "log"),
    (502, "UNAVAILABLE", errors.UnavailableError, "behind it"),
    (503, "UNAVAILABLE", errors.UnavailableError, "/readyz"),
    (504, "UNAVAILABLE", errors.DeadlineError, "grpc_read_timeout"),
    (507, "UNKNOWN", errors.UnknownError, "room"),
]


@pytest.mark.parametrize(("status", "code", "kind", "words"), HTTP)
def test_http_statuses_are_said_as_what_they_are_and_not_repeated(status, code, kind, words):
    text = f"Received http2 header with status: {status}"
    told = failure(text, grpc.StatusCode[code])
    assert type(told) is kind
    assert told.message.startswith("a proxy between client and server")
    assert f"HTTP {status}: " in told.message
    assert words in told.message
    assert not repeats(text, code=grpc.StatusCode[code])


@pytest.mark.parametrize("text", ["Stream removed (Data frame with END_STREAM flag received)", "Stream removed"])
def test_an_answer_that_is_none_of_grpc_is_told(text):
    told = failure(text, grpc.StatusCode.UNKNOWN)
    assert "host:1, or a proxy before it, broke the call off" in told.message
