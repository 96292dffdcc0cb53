"""What is not taken on: what cannot be done before its deadline, and what is too much for now. It is said at once."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from xai_client import Client, DeadlineError, Explain, OverloadedError
from xai_proto import explanation_pb2 as pb

AT_ONCE = 2.0
"""Seconds that a refusal may take, beside what the server is busy with."""


def rise(masks, budget=None, **fields):
    wanted = pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=masks), **fields)
    if budget is not None:
        wanted.budget.FromNanoseconds(round(budget * 1e9))
    return wanted


@pytest.fixture(scope="module")
def cat(photo):
    return pb.Image(encoded=photo)


@pytest.fixture(scope="module")
def metric(server, read_metrics):
    """The value of a series of the shared server."""
    return lambda *key: read_metrics(server.http)[key]


@pytest.fixture
def mask_seconds(stub, cat):
    """What a mask takes just now."""
    answer = stub.Predict(pb.PredictRequest(images=[cat], explanations=[rise(128)]), timeout=60)
    return answer.predictions[0].explanations[0].elapsed.ToNanoseconds() / 1e9 / 128


@contextlib.contextmanager
def under_way(stub, requests, open_explanations, count):
    """Calls that take minutes, cancelled at the end."""
    calls = [stub.Predict.future(request) for request in requests]
    try:
        end = time.monotonic() + 30
        while open_explanations() != count:
            assert time.monotonic() < end
            assert not any(call.done() for call in calls), [call.code() for call in calls if call.done()]
            time.sleep(0.02)
        yield calls
    finally:
        for call in calls:
            call.cancel()
        end = time.monotonic() + 10
        while open_explanations():
            assert time.monotonic() < end, "cancelled calls are still under way"
            time.sleep(0.02)


@pytest.fixture
def refused_at_once(refused, allowance):
    """`refused`, which does not wait for what is in progress."""

    def refused_at_once(method, request, **arguments):
        started = time.monotonic()
        refusal = refused(method, request, **arguments)
        assert time.monotonic() - started < allowance(AT_ONCE)
        return refusal

    return refused_at_once


# ------------------------------------------------------------------------------------------------ deadlines


@pytest.mark.timed
@pytest.mark.parametrize("streamed", [False, True])
def test_a_deadline_too_short_is_refused_before_anything_is_run(
    streamed, server, stub, cat, refused_at_once, read_metrics
):
    """100,000 masks in 10 s: no machine with two cores can."""
    request = pb.PredictRequest(images=[cat], explanations=[pb.ExplanationRequest(explainer="gradcam"), rise(100_000)])
    before = read_metrics(server.http)
    if streamed:
        refusal = refused_at_once(stub.PredictStream, pb.PredictStreamRequest(request=request), timeout=10)
    else:
        refusal = refused_at_once(stub.Predict, request, timeout=10)
    refusal.check("DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT", f"{'request.' * streamed}explanations[1]")
    assert "rise" in refusal.message
    after = read_metrics(server.http)
    untouched = ("xai_launch_rows_total", "xai_jobs_total", "xai_images_total", "xai_explanations_total")
    assert {key: after[key] - before[key] for key in before if key[0] in untouched and after[key] != before[key]} == {}


@pytest.mark.timed
def test_the_deadline_counts_for_all_pictures_together(stub, cat, refused_at_once, mask_seconds):
    """It is enough for one picture, but not for sixteen."""
    timeout = 4 * 128 * mask_seconds
    one, many = (pb.PredictRequest(images=[cat] * count, explanations=[rise(128)]) for count in (1, 16))
    refusal = refused_at_once(stub.Predict, many, timeout=timeout)
    refusal.check("DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT", "explanations[0]")
    assert stub.Predict(one, timeout=timeout).predictions[0].explanations[0].pass_count == 128


@pytest.mark.timed
def test_a_tolerance_or_a_budget_is_given_the_benefit_of_the_doubt(stub, cat):
    """It may be done much sooner, or makes do with what time there is."""
    tolerant = rise(100_000)
    tolerant.rise.tolerance = 0.5
    hurried = rise(100_000, name="hurried", budget=1.2)
    answer = stub.Predict(pb.PredictRequest(images=[cat], explanations=[tolerant, hurried]), timeout=25)
    statuses = [one.status for one in answer.predictions[0].explanations]
    assert statuses == [pb.EXPLANATION_STATUS_COMPLETE, pb.EXPLANATION_STATUS_TRUNCATED]


@pytest.mark.timed
def test_the_sdk_tells_of_its_timeout(server, photo, allowance):
    with Client(server.grpc) as client:
        started = time.monotonic()
        with pytest.raises(DeadlineError) as caught:
            client.predict(photo, explain=[Explain("rise", masks=100_000)])
        assert time.monotonic() - started < allowance(AT_ONCE)
    assert (caught.value.reason, caught.value.field) == ("DEADLINE_TOO_SHORT", "explanations[0]")


# ------------------------------------------------------------------------------------------------ too much under way


@pytest.mark.timed
def test_what_else_is_promised_counts(stub, cat, refused_at_once, mask_seconds, metric, eventually):
    """Some twenty have promises that take all of the time; who comes then is told when to come back.

    Three who have no deadline are in nobody's way, since nothing is promised to them.
    """
    timeout = 20 * 1000 * mask_seconds
    request = pb.PredictRequest(images=[cat], explanations=[rise(1000)])
    endless = [pb.PredictRequest(images=[cat], explanations=[rise(15_000)]) for _ in range(3)]
    with under_way(stub, endless, lambda: metric("xai_open_explanations"), 3):
        calls = [stub.Predict.future(request, timeout=timeout) for _ in range(60)]
        try:
            eventually(lambda: any(call.done() for call in calls))
            for method, asked in (
                (stub.Predict, request),
                (stub.PredictStream, pb.PredictStreamRequest(request=request)),
            ):
                refusal = refused_at_once(method, asked, timeout=timeout)
                assert (refusal.code, refusal.reason, refusal.fields) == ("RESOURCE_EXHAUSTED", "OVERLOADED", ())
                assert "With what else is in progress" in refusal.message
                assert refusal.retry_seconds >= 0.1
            assert not all(call.done() for call in calls)
            plain = pb.PredictRequest(images=[cat], top_k=1)
            assert stub.Predict(plain, timeout=60).predictions[0].classes[0].class_id == 282
        finally:
            for call in calls:
                call.cancel()
    few = pb.PredictRequest(images=[cat], explanations=[rise(60)])
    assert stub.Predict(few, timeout=60).predictions[0].explanations[0].pass_count == 60


@pytest.fixture(scope="module")
def narrow(start_server, only, sample_config):
    """A server that takes three pictures and three explanations, or 16 MiB, at a time."""
    limits = ("server.queue_capacity=3", f"server.queue_bytes={16 * 2**20}")
    with start_server(sample_config, *only("rise", "gradcam"), *limits) as running:
        yield running


@pytest.fixture(scope="module")
def narrow_stub(narrow, connect):
    with connect(narrow.grpc) as stub:
        yield stub


@pytest.fixture
def narrow_metric(narrow, read_metrics):
    return lambda *key: read_metrics(narrow.http)[key]


def full(refused_at_once, stub, request, what, **arguments):
    """That a request is refused because there is too much of something under way; returns when to come back."""
    refusal = refused_at_once(stub.Predict, request, **arguments)
    assert (refusal.code, refusal.reason, refusal.fields) == ("RESOURCE_EXHAUSTED", "OVERLOADED", ())
    assert f" {what} are in progress" in refusal.message
    assert refusal.retry_seconds >= 0.1
    return refusal.retry_seconds


def test_the_capacity_for_explanations(narrow, narrow_stub, cat, photo, refused_at_once, narrow_metric):
    """Explanations crowd out no predictions; and what is refused is taken on once there is room."""
    three = pb.PredictRequest(images=[cat], explanations=[rise(20_000, 60, name=f"{index}") for index in range(3)])
    gradcam = pb.PredictRequest(images=[cat], explanations=[pb.ExplanationRequest(explainer="gradcam")])
    plain = pb.PredictRequest(images=[cat] * 2, top_k=1)
    with under_way(narrow_stub, [three], lambda: narrow_metric("xai_open_explanations"), 3):
        assert full(refused_at_once, narrow_stub, gradcam, "explanations") == 0.1, (
            "nobody knows when there will be room"
        )
        assert [one.classes[0].class_id for one in narrow_stub.Predict(plain, timeout=60).predictions] == [282] * 2
        with Client(narrow.grpc, timeout=60) as client, pytest.raises(OverloadedError) as caught:
            client.predict(photo, explain=["gradcam"])  # after five attempts
        assert caught.value.retry_after >= 0.1
    assert narrow_stub.Predict(gradcam, timeout=60).predictions[0].explanations[0].maps


def test_the_capacity_for_pictures(narrow_stub, cat, refused_at_once, narrow_metric, eventually):
    three = pb.PredictRequest(images=[cat] * 3, explanations=[rise(20_000)])
    with under_way(narrow_stub, [three], lambda: narrow_metric("xai_open_explanations"), 3):
        eventually(lambda: narrow_metric("xai_open_images") == 0)
        another = pb.PredictRequest(images=[cat], explanations=[rise(20_000)])
        assert full(refused_at_once, narrow_stub, another, "explanations", timeout=None) > 30, "this will take minutes"
        plain = narrow_stub.Predict(pb.PredictRequest(images=[cat] * 3, top_k=1), timeout=60)
        assert len(plain.predictions) == 3, "pictures that are predicted do not count"
    four = pb.PredictRequest(images=[cat] * 4, top_k=1)
    answer = narrow_stub.Predict(four, timeout=60)
    assert len(answer.predictions) == 4, "a server with nothing to do takes any request"


def test_the_capacity_for_bytes(narrow_stub, cat, refused_at_once, narrow_metric, eventually):
    """16 maps of 200 kB, and masks and the picture besides, come to some 8 MB."""
    large = pb.PredictRequest(images=[cat], explanations=[rise(20_000, targets=pb.Targets(top_count=16))])
    with under_way(narrow_stub, [large], lambda: narrow_metric("xai_open_explanations"), 1):
        eventually(lambda: narrow_metric("xai_open_images") == 0)  # until it is predicted, it is short of these first
        taken = narrow_metric("xai_open_bytes")
        assert 16 * 224 * 224 * 4 < taken < 12 * 2**20
        two = pb.PredictRequest(images=[cat] * 2, explanations=large.explanations)
        full(refused_at_once, narrow_stub, two, "bytes", timeout=None)
        assert narrow_stub.Predict(pb.PredictRequest(images=[cat]), timeout=60).predictions
        assert narrow_metric("xai_open_bytes") == taken
    assert narrow_metric("xai_open_bytes") == 0


def test_the_sdk_waits_for_room(narrow, narrow_stub, cat, photo, narrow_metric, eventually):
    """It comes back when it was asked to, and not as soon as there is room."""
    refusals = ("xai_requests_total", "RESOURCE_EXHAUSTED", "Predict")
    three = pb.PredictRequest(images=[cat], explanations=[rise(60, name=f"{index}") for index in range(3)])

    def ask():
        with Client(narrow.grpc, timeout=60) as client:
            started = time.monotonic()
            return client.predict(photo, explain=["gradcam"]), time.monotonic() - started

    before = narrow_metric(*refusals)
    under = under_way(narrow_stub, [three], lambda: narrow_metric("xai_open_explanations"), 3)
    with under as (call,), ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        eventually(lambda: narrow_metric(*refusals) > before)
        call.cancel()
        answer, seconds = asking.result(60)
    assert answer.explanations["gradcam"].status == "complete"
    assert seconds > 0.3
