"""Callers who leave, hang, hurry or come in crowds, and probes in between: the server serves everyone else."""

import concurrent.futures
import re
import socket
import time

import grpc
import numpy as np
import pytest

from xai_proto import explanation_pb2 as pb


@pytest.fixture(scope="module")
def cat(photo):
    return pb.PredictRequest(images=[pb.Image(encoded=photo)], top_k=1)


@pytest.mark.timed
def test_probes_are_answered_while_the_device_is_busy(server, stub, get, slow_request, allowance):
    call = stub.Predict.future(slow_request(images=8), timeout=120)
    slowest = 0.0
    while not call.done():
        started = time.monotonic()
        assert get(server.http, "/readyz")[0] == 200
        slowest = max(slowest, time.monotonic() - started)
    assert call.result().predictions
    assert slowest < allowance(1)


def test_http_callers_that_hang_or_leave_harm_nobody(server, get):
    host, port = server.http.split(":")
    sockets = [socket.create_connection((host, int(port)), timeout=5) for _ in range(8)]
    try:
        for index, one in enumerate(sockets):
            one.sendall(b"GET /met" if index % 2 else b"\x16\x03\x01nonsense\r\n\r\n")
        assert get(server.http, "/healthz")[0] == 200
    finally:
        for one in sockets:
            one.close()
    assert get(server.http, "/metrics")[0] == 200
    assert server.other_output == []


def test_callers_who_cancel_or_run_out_of_time_harm_nobody(
    server, stub, slow_request, cat, map_of, read_metrics, eventually
):
    explained = pb.PredictRequest(images=cat.images, explanations=[pb.ExplanationRequest(explainer="gradient")])
    want = map_of(stub.Predict(explained, timeout=60).predictions[0].explanations[0].maps[0])
    before = read_metrics(server.http)
    slow = slow_request(images=4, top_count=16)
    cancelled = [stub.Predict.future(slow) for _ in range(2)]
    slow.explanations[0].condition.top_probability_below = 1  # or the server would see what is coming, and refuse
    hasty = [stub.Predict.future(slow, timeout=0.2) for _ in range(2)]
    good = [stub.Predict.future(explained, timeout=60) for _ in range(4)]
    for call in hasty:
        assert call.exception(timeout=10).code() == grpc.StatusCode.DEADLINE_EXCEEDED
    for call in cancelled:
        assert call.cancel()
    for call in good:
        saliency = map_of(call.result(timeout=60).predictions[0].explanations[0].maps[0])
        np.testing.assert_allclose(saliency, want, atol=1e-4 * want.max())
    eventually(lambda: read_metrics(server.http)["xai_open_images",] == 0)
    after = read_metrics(server.http)
    # All four slow ones together would have been 256 gradients.
    assert after["xai_launch_rows_total", "input_gradient"] - before["xai_launch_rows_total", "input_gradient"] < 128
    ended = ("CANCELLED", "DEADLINE_EXCEEDED")
    count = sum(
        after["xai_requests_total", code, "Predict"] - before["xai_requests_total", code, "Predict"] for code in ended
    )
    assert 2 <= count <= 4  # the hasty ones may have ended before they reached the server
    assert after["xai_requests_total", "INTERNAL", "Predict"] == before["xai_requests_total", "INTERNAL", "Predict"]
    assert server.other_output == []


@pytest.mark.timed
def test_predictions_pass_a_long_rise_which_ends_when_it_is_cancelled(server, stub, cat, read_metrics, eventually):
    def rows():
        return read_metrics(server.http)["xai_launch_rows_total", "masked_forward"]

    rise = pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=100_000))
    before = rows()
    call = stub.Predict.future(pb.PredictRequest(images=cat.images, explanations=[rise]))
    eventually(lambda: rows() >= before + 64)

    def seconds_of_eight():
        started = time.monotonic()
        for _ in range(8):
            assert stub.Predict(cat, timeout=60).predictions[0].classes[0].class_id == 282
        return time.monotonic() - started

    beside = seconds_of_eight()
    assert not call.done()
    assert call.cancel()
    eventually(lambda: read_metrics(server.http)["xai_open_explanations",] == 0)
    stub.Predict(cat, timeout=60)  # when it is done, so is what was on the device before it
    spent = rows()
    alone = seconds_of_eight()
    assert rows() == spent, "it went on after nobody waited for it"
    assert beside < 5 * alone + 2, "each of them waited for more than a launch"
    assert server.other_output == []


def test_a_deadline_that_has_passed_already(server, stub, refused, cat):
    assert refused(stub.Predict, cat, timeout=0.001).code == "DEADLINE_EXCEEDED"
    assert stub.Predict(cat, timeout=60).predictions[0].classes[0].class_id == 282


def test_connections_that_come_and_go(server, connect, cat):
    def ask(_):
        with connect(server.grpc) as stub:
            leaving = stub.Predict.future(cat, timeout=60)
            answer = stub.Predict(cat, timeout=60)
        return leaving.code(), answer.predictions[0].classes[0].class_id

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(12)))
    assert {class_id for _, class_id in answers} == {282}
    assert server.other_output == []


def test_logs_carry_the_request_id(server, stub, refused, cat, eventually):
    stub.Predict(pb.PredictRequest(images=cat.images, request_id="logged-1"), timeout=60)
    refused(stub.Predict, pb.PredictRequest(images=cat.images, top_k=0, request_id="logged-2"))

    def lines(request_id):
        return [entry for entry in server.log if entry.get("request_id") == request_id]

    (line,) = eventually(lambda: lines("logged-1"))
    assert (line["event"], line["method"], line["code"], line["level"]) == ("request", "Predict", "OK", "info")
    assert 0 < line["milliseconds"] < 60_000
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", line["timestamp"])
    eventually(lambda: len(lines("logged-2")) == 2)
    told, ended = lines("logged-2")
    assert (told["event"], told["reason"], told["field"]) == ("refused", "INVALID_REQUEST", "top_k")
    assert (ended["event"], ended["code"]) == ("request", "INVALID_ARGUMENT")
    about = [entry for entry in server.log if entry["event"] in ("request", "refused")]
    assert all(entry["request_id"] for entry in about)
