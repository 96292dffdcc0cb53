"""Every gRPC status becomes one typed error that carries the server's details."""

import pickle

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

import xai_client
from xai_client import errors
from xai_client.error_mapping import ERROR_BY_CODE, Details, parse_details, to_error

KEY = "grpc-status-details-bin"
FAILURES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


class FakeRpcError(grpc.RpcError):
    def __init__(self, code, text="text", trailing=()):
        self._values = code, text, trailing

    def code(self):
        return self._values[0]

    def details(self):
        return self._values[1]

    def trailing_metadata(self):
        return self._values[2]


def convert(code, text="text", trailing=(), timeout=5.0):
    return to_error(FakeRpcError(code, text, trailing), address="host:1", timeout=timeout, request_id="r")


def status(*details):
    message = status_pb2.Status(code=3, message="wrong")
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        message.details.append(packed)
    return message.SerializeToString()


INFO = error_details_pb2.ErrorInfo(domain="xai-sidecar", reason="TARGET")
REQUEST = error_details_pb2.BadRequest(
    field_violations=[
        error_details_pb2.BadRequest.FieldViolation(field="explanations[0].targets", description="none"),
        error_details_pb2.BadRequest.FieldViolation(field="second"),
    ]
)
RETRY = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))


def test_a_field_is_named_as_the_sdk_names_it():
    for path, told in (
        ("explanations[0].rise.mask_count", "explanations[0].rise.masks"),
        ("explanations[1].rise_plus.rise.mask_count", "explanations[1].rise_plus.rise.masks"),
        ("boxes[2].left", "boxes[2].left"),
    ):
        violation = error_details_pb2.BadRequest.FieldViolation(field=path)
        details = status(INFO, error_details_pb2.BadRequest(field_violations=[violation]))
        error = convert(grpc.StatusCode.INVALID_ARGUMENT, f"{path}: too few", [(KEY, details)])
        assert (error.field, error.message) == (told, f"{told}: too few")


@pytest.mark.parametrize("code", FAILURES, ids=lambda code: code.name)
def test_every_status_has_a_class_of_its_own(code):
    assert ERROR_BY_CODE[code].code == code.name
    error = convert(code)
    assert type(error) is ERROR_BY_CODE[code]
    assert (error.code, error.request_id) == (code.name, "r")
    assert "text" in str(error) or code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_no_two_statuses_share_a_class():
    assert len(set(ERROR_BY_CODE.values())) == len(ERROR_BY_CODE) == len(FAILURES)


def test_fixed_names():
    names = {
        "INVALID_ARGUMENT": "InvalidRequestError",
        "DEADLINE_EXCEEDED": "DeadlineError",
        "UNAVAILABLE": "UnavailableError",
        "RESOURCE_EXHAUSTED": "OverloadedError",
        "UNIMPLEMENTED": "UnsupportedError",
        "FAILED_PRECONDITION": "PreconditionError",
        "NOT_FOUND": "NotFoundError",
    }
    for code, name in names.items():
        assert ERROR_BY_CODE[grpc.StatusCode[code]] is getattr(xai_client, name)


def test_every_error_class_is_public_and_in_the_drawn_tree():
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.XaiError)]
    assert len(classes) > 20
    for each in classes:
        assert getattr(xai_client, each.__name__) is each
        assert each.__name__ in (errors.__doc__ or "")


def test_details_are_carried():
    error = convert(grpc.StatusCode.INVALID_ARGUMENT, trailing=((KEY, status(INFO, REQUEST, RETRY)),))
    assert (error.reason, error.field, error.retry_after) == ("TARGET", "explanations[0].targets", 1.5)
    assert error.message == "text"
    assert str(error) == "text [INVALID_ARGUMENT/TARGET, field explanations[0].targets, request r]"


def test_the_order_of_details_does_not_matter():
    for details in ((RETRY, INFO), (INFO, error_details_pb2.DebugInfo(detail="unknown to us"), RETRY)):
        assert parse_details([("other", "x"), (KEY, status(*details))]) == Details("TARGET", "", 1.5)


@pytest.mark.parametrize("value", [b"\xff\xff\xff", b"", b"\x1a\x02\x0a\x00"])
def test_damaged_details_never_hide_the_failure(value):
    assert parse_details([(KEY, value)]) == Details()
    error = convert(grpc.StatusCode.INTERNAL, trailing=((KEY, value),))
    assert isinstance(error, xai_client.InternalError)
    assert error.message == "text"


def test_a_damaged_detail_in_a_sound_status_is_left_out():
    broken = AnyMessage(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")
    message = status_pb2.Status(code=13, details=[broken])
    assert parse_details([(KEY, message.SerializeToString())]) == Details()


def test_no_metadata_is_no_details():
    assert parse_details(None) == Details()
    assert parse_details([]) == Details()


def test_an_error_without_a_status_is_unknown():
    error = to_error(grpc.RpcError("bare"), address="host:1", timeout=None, request_id="r")
    assert isinstance(error, xai_client.UnknownError)
    assert "bare" in error.message


def test_failures_of_the_connection_say_what_to_check():
    refused = "failed to connect to all addresses; last error: UNKNOWN: ipv4:1.2.3.4:1: Connection refused"
    unavailable = convert(grpc.StatusCode.UNAVAILABLE, refused)
    assert "host:1" in unavailable.message
    assert "Connection refused" in unavailable.message
    assert "xai-sidecar runs there" in unavailable.message
    late = convert(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", timeout=2.5)
    assert "host:1" in late.message
    assert "2.5 s" in late.message
    assert "host:1" in convert(grpc.StatusCode.UNIMPLEMENTED, "ExplainerCall not found!").message


def test_a_deadline_that_the_server_found_too_short_is_told_in_its_words():
    reason = error_details_pb2.ErrorInfo(domain="xai-sidecar", reason="DEADLINE_TOO_SHORT")
    where = error_details_pb2.BadRequest.FieldViolation(field="explanations[0]")
    details = status(reason, error_details_pb2.BadRequest(field_violations=[where]))
    error = convert(grpc.StatusCode.DEADLINE_EXCEEDED, "explanations[0] takes 9 s", ((KEY, details),))
    assert isinstance(error, xai_client.DeadlineError)
    assert (error.message, error.reason, error.field) == (
        "explanations[0] takes 9 s",
        "DEADLINE_TOO_SHORT",
        "explanations[0]",
    )


def test_what_the_server_says_is_left_as_it_is():
    down = error_details_pb2.ErrorInfo(reason="SHUTTING_DOWN")
    assert convert(grpc.StatusCode.UNAVAILABLE, "draining", ((KEY, status(down)),)).message == "draining"


def test_a_message_that_is_too_large_is_not_an_overload_to_wait_for():
    error = convert(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (5 vs. 4)")
    assert isinstance(error, xai_client.MessageTooLargeError)
    assert error.retry_after is None


def test_errors_can_be_pickled():
    error = convert(grpc.StatusCode.RESOURCE_EXHAUSTED, trailing=((KEY, status(INFO, RETRY)),))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.reason, copy.retry_after, copy.request_id) == (str(error), "TARGET", 1.5, "r")
