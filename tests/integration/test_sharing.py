"""How callers share the device: the quick do not wait for the slow, nobody starves, and the metrics tell of it."""

import contextlib
import threading
import time

import grpc
import pytest

from xai_proto import explanation_pb2 as pb

MANY = 20_000
"""Masks that take a minute or more."""


def rise(masks=MANY, **fields):
    return pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=masks), **fields)


@pytest.fixture(scope="module")
def cat(photo):
    return pb.Image(encoded=photo)


@pytest.fixture(scope="module")
def metrics(server, read_metrics):
    return lambda: read_metrics(server.http)


@pytest.fixture
def busy(stub, cat, metrics, eventually):
    """A caller who has the device work for a minute, until the end of the test."""
    before = metrics()["xai_launch_rows_total", "masked_forward"]
    call = stub.Predict.future(pb.PredictRequest(images=[cat], explanations=[rise()]))
    eventually(lambda: metrics()["xai_launch_rows_total", "masked_forward"] > before + 8)
    yield call
    assert call.cancelled() or not call.done(), "it was done too soon for the test to mean anything"
    call.cancel()
    eventually(lambda: metrics()["xai_open_explanations",] == 0)


def timed(call):
    started = time.monotonic()
    answer = call()
    return answer, time.monotonic() - started


# ------------------------------------------------------------------------------------------------ who waits for whom


@pytest.mark.timed
def test_the_quick_do_not_wait_for_the_slow(stub, cat, busy, metrics, eventually):
    """For no more than a launch or two: they take some times as long as without it."""
    gradcam = pb.PredictRequest(images=[cat], explanations=[pb.ExplanationRequest(explainer="gradcam")])
    plain = pb.PredictRequest(images=[cat], top_k=1)

    def seconds_of(request):
        answers, seconds = zip(*(timed(lambda: stub.Predict(request, timeout=60)) for _ in range(8)), strict=True)
        assert {answer.predictions[0].classes[0].class_id for answer in answers} == {282}
        return sorted(seconds)

    beside = [seconds_of(request) for request in (gradcam, plain)]
    busy.cancel()
    eventually(lambda: metrics()["xai_open_explanations",] == 0)
    alone = [seconds_of(request) for request in (gradcam, plain)]
    for one, other in zip(beside, alone, strict=True):
        assert one[4] < 5 * other[4] + 0.5, f"half of them took longer: {one}, and without the slow one {other}"
        assert one[-1] < 10, "the slow one takes a minute"


@pytest.mark.timed
def test_a_short_explanation_takes_about_twice_its_time_beside_a_long_one(stub, cat, busy, metrics):
    """It has half of the device, however much the other one still wants and has had."""
    before = metrics()["xai_launch_rows_total", "masked_forward"]
    stub.Predict(pb.PredictRequest(images=[cat], explanations=[rise(96)]), timeout=60)
    masks = metrics()["xai_launch_rows_total", "masked_forward"] - before
    # As many of the long one's, and those that it had while the other picture was decoded and predicted.
    assert masks < 4 * 96


@pytest.mark.timed
def test_two_long_explanations_share_evenly(stub, cat, busy, eventually):
    """The one that has come later has nothing to catch up with, and the first one nothing to wait for."""

    def follow(counts):
        request = pb.PredictStreamRequest(request=pb.PredictRequest(images=[cat], explanations=[rise()]))
        request.progress_interval.FromMilliseconds(50)
        coming = stub.PredictStream(request)
        calls.append(coming)
        with contextlib.suppress(grpc.RpcError):
            for event in coming:
                if event.HasField("progress"):
                    counts.append((time.monotonic(), event.progress.pass_count))

    calls, both = [], ([], [])
    threads = [threading.Thread(target=follow, args=(counts,)) for counts in both]
    for thread in threads:
        thread.start()
        time.sleep(0.7)
    eventually(lambda: all(counts and counts[-1][1] - counts[0][1] > 64 for counts in both))
    for call in calls:
        call.cancel()
    for thread in threads:
        thread.join(10)
    began, ended = max(counts[0][0] for counts in both), min(counts[-1][0] for counts in both)
    gained = []
    for counts in both:
        between = [passes for when, passes in counts if began <= when <= ended]
        gained.append(between[-1] - between[0])
    assert min(gained) > 10, gained
    assert max(gained) < 1.6 * min(gained) + 10, gained


@pytest.mark.timed
def test_explanations_get_their_share_beside_predictions(server, connect, cat, busy, metrics, eventually):
    """However many predictions there are: the tenth of the device's time that the config promises; nothing without."""
    stop = threading.Event()
    answered = []

    def ask():
        with connect(server.grpc) as own:
            request = pb.PredictRequest(images=[cat] * 8, top_k=1)
            while not stop.is_set():
                answered.append(len(own.Predict(request, timeout=60).predictions))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    before = metrics()
    # A tenth of so many is some launches of explanations.
    eventually(lambda: metrics()["xai_launches_total", "forward"] > before["xai_launches_total", "forward"] + 40)
    after = metrics()
    stop.set()
    for thread in threads:
        thread.join(60)
    assert sum(answered) > 0
    spent = {lane: after[key] - before[key] for lane in ("predict", "explain") for key in [busy_seconds(lane)]}
    assert spent["predict"] > 0
    assert spent["explain"] > 0.05 * sum(spent.values()), spent


def busy_seconds(lane):
    return ("xai_device_busy_seconds_total", lane)


# ------------------------------------------------------------------------------------------------ what is counted


@pytest.fixture
def grown(metrics):
    """What the series have grown by since the test began; histograms appear with their first event."""
    before = metrics()

    def grown(*key):
        return metrics().get(key, 0) - before.get(key, 0)

    return grown


def test_lanes_are_counted_apart(stub, cat, grown, eventually):
    stub.Predict(pb.PredictRequest(images=[cat] * 3, top_k=1), timeout=60)
    eventually(lambda: grown("xai_jobs_total", "predict", "done") == 3)
    # A launch is counted just after its callers have been answered.
    eventually(lambda: grown("xai_launch_rows_total", "forward") == 3)
    assert grown("xai_queue_wait_seconds_count", "predict") == 3
    assert grown(*busy_seconds("predict")) > 0
    for series in (busy_seconds("explain"), ("xai_queue_wait_seconds_count", "explain")):
        assert grown(*series) == 0
    stub.Predict(pb.PredictRequest(images=[cat], explanations=[rise(64)]), timeout=60)
    eventually(lambda: grown("xai_jobs_total", "explain", "done") == 1)
    eventually(lambda: grown("xai_launch_rows_total", "masked_forward") == 64)
    pieces = grown("xai_queue_wait_seconds_count", "explain")
    assert 2 <= pieces <= 64, "the masks come in pieces"
    assert 0 <= grown("xai_queue_wait_seconds_sum", "explain") < 60
    assert grown("xai_queue_wait_seconds_bucket", "explain", "+Inf") == pieces
    lanes = ("predict", "explain", "evaluate")
    launched = sum(grown("xai_launch_duration_seconds_sum", kind) for kind in ("forward", "masked_forward"))
    assert sum(grown(*busy_seconds(lane)) for lane in lanes) == pytest.approx(launched)
    assert grown(*busy_seconds("evaluate")) == 0


def test_how_explanations_end_is_counted(stub, cat, grown, metrics, eventually):
    def jobs(outcome):
        return grown("xai_jobs_total", "explain", outcome)

    call = stub.Predict.future(pb.PredictRequest(images=[cat], explanations=[rise(), rise(name="other")]))
    eventually(lambda: metrics()["xai_queue_rows", "explain"] > 0)
    call.cancel()
    eventually(lambda: jobs("cancelled") == 2)
    cut = rise()
    cut.budget.FromMilliseconds(1200)
    assert stub.Predict(pb.PredictRequest(images=[cat], explanations=[cut]), timeout=60).predictions
    eventually(lambda: jobs("truncated") == 1)
    assert jobs("done") == jobs("failed") == jobs("expired") == 0
    assert grown("xai_explanations_total", "rise", "truncated") == 1
    assert grown("xai_explanations_total", "rise", "complete") == 0


@pytest.mark.timed
def test_explanations_that_deadlines_end_are_counted(stub, cat, grown, metrics, eventually):
    """With a condition, nobody knows beforehand that there will be too little time; what there is by then is sent."""
    late = rise(condition=pb.Condition(top_probability_below=1))
    calls = [
        stub.Predict.future(pb.PredictRequest(images=[cat], explanations=[late]), timeout=4 + number / 10)
        for number in range(4)
    ]
    for call in calls:
        (explanation,) = call.result(timeout=30).predictions[0].explanations
        assert explanation.status == pb.EXPLANATION_STATUS_TRUNCATED
        assert "deadline" in explanation.status_message
        assert explanation.maps[0].HasField("tensor")
    assert grown("xai_jobs_total", "explain", "truncated") == grown("xai_explanations_total", "rise", "truncated") == 4
    eventually(lambda: grown("xai_requests_total", "OK", "Predict") == 4)
    eventually(lambda: metrics()["xai_open_explanations",] == metrics()["xai_queue_rows", "explain"] == 0)
