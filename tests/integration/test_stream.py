"""PredictStream over a real socket: what comes in which order, what it adds up to, and readers who dawdle or leave."""

import contextlib
import itertools
import time

import grpc
import numpy as np
import pytest

from xai_client import AsyncClient, Client, Explain, Explained, Finished, Predicted, Progress
from xai_proto import explanation_pb2 as pb
from xai_sidecar.zoo.sample import sample_picture

MASKS = 250
WINDOWS = 7 * 7
WANTED = (
    pb.ExplanationRequest(explainer="gradcam"),
    pb.ExplanationRequest(explainer="rise", seed=5, rise=pb.RiseParameters(mask_count=MASKS)),
    pb.ExplanationRequest(
        explainer="occlusion", name="windows", occlusion=pb.OcclusionParameters(window_size=32, stride=32)
    ),
)
PLANNED = {"gradcam": 1, "rise": MASKS, "windows": 1 + WINDOWS}
ENDLESS = pb.ExplanationRequest(explainer="rise", seed=5, rise=pb.RiseParameters(mask_count=20_000))
SMALL_WINDOW = ("grpc.http2.bdp_probe", 0)
"""Has a channel hold no more than 64 KiB for a reader who dawdles; the server has to hold back the rest."""

COMPLETE, PARTIAL = pb.EXPLANATION_STATUS_COMPLETE, pb.EXPLANATION_STATUS_PARTIAL


def asked(images, wanted=(), interval=0.02, **fields):
    request = pb.PredictRequest(images=images, explanations=wanted, **fields)
    stream = pb.PredictStreamRequest(request=request)
    stream.progress_interval.FromNanoseconds(round(interval * 1e9))
    return stream


def kinds(events):
    return [event.WhichOneof("event") for event in events]


def progress_of(events):
    """The progress events, in order, by the name of the explanation."""
    told = {}
    for event in events:
        if event.HasField("progress"):
            told.setdefault(event.progress.name, []).append(event.progress)
    return told


def versions_of(events, image_index=0):
    """The versions of a picture's explanations, in order, by name."""
    versions = {}
    for event in events:
        if event.HasField("explained") and event.explained.image_index == image_index:
            versions.setdefault(event.explained.explanation.name, []).append(event.explained.explanation)
    return versions


@pytest.fixture(scope="module")
def cat(photo):
    return pb.Image(encoded=photo)


@pytest.fixture(scope="module")
def coffee():
    return pb.Image(encoded=sample_picture("coffee").read_bytes())


@pytest.fixture(scope="module")
def streamed(stub, cat):
    """All events of a stream of three explanations."""
    return list(stub.PredictStream(asked([cat], WANTED, request_id="streamed", ood=True), timeout=120))


@pytest.fixture(scope="module")
def at_once(stub, cat):
    """What Predict answers to the same."""
    request = pb.PredictRequest(images=[cat], explanations=WANTED, request_id="streamed", ood=True)
    return stub.Predict(request, timeout=120)


@pytest.fixture(scope="module")
def metric(server, read_metrics):
    """The value of a series of the shared server."""
    return lambda *key: read_metrics(server.http)[key]


def same_but_for_time(one, other):
    """That two explanations are the same, bit for bit."""
    one, other = (pb.Explanation.FromString(each.SerializeToString()) for each in (one, other))
    for each in (one, other):
        each.ClearField("elapsed")
    assert [each.tensor.data for each in one.maps] == [each.tensor.data for each in other.maps], "the maps differ"
    assert one == other


# ------------------------------------------------------------------------------------------------ what comes


def test_the_order_of_events(streamed):
    order = kinds(streamed)
    assert order[0] == "predicted"
    assert order[-1] == "finished"
    assert set(order[1:-1]) == {"progress", "explained"}
    done = set()
    for event in streamed[1:-1]:
        name = event.progress.name if event.HasField("progress") else event.explained.explanation.name
        assert name not in done, f"something of {name} came after its last version"
        if event.HasField("explained") and event.explained.explanation.status != PARTIAL:
            done.add(name)
    assert done == set(PLANNED)


def test_the_request_id_is_the_callers(streamed, stub, cat):
    assert {event.request_id for event in streamed} == {streamed[0].predicted.request_id} == {"streamed"}
    coming = stub.PredictStream(asked([cat]), timeout=60, metadata=[("x-request-id", "from-metadata")])
    assert {event.request_id for event in coming} == {"from-metadata"}
    assert dict(coming.trailing_metadata())["x-request-id"] == "from-metadata"


def test_the_predictions_are_those_of_predict(streamed, at_once):
    predicted, want = streamed[0].predicted, at_once.predictions[0]
    (prediction,) = predicted.predictions
    assert not prediction.explanations
    for field in ("classes", "ood", "picture", "region"):
        assert getattr(prediction, field) == getattr(want, field)
    assert predicted.model_version == at_once.model_version


def test_the_quick_one_does_not_wait_for_the_slow_ones(streamed):
    finals = [
        event.explained.explanation.name
        for event in streamed
        if event.HasField("explained") and event.explained.explanation.status == COMPLETE
    ]
    assert finals == ["gradcam", "windows", "rise"]


def test_progress_only_grows(streamed):
    told = progress_of(streamed)
    assert {"rise", "windows"} <= set(told)
    for name, events in told.items():
        assert {event.planned_pass_count for event in events} == {PLANNED[name]}
        counts = [event.pass_count for event in events]
        assert all(0 < before < after < PLANNED[name] for before, after in itertools.pairwise(counts)), counts
        assert all(0 < event.remaining.ToNanoseconds() < 600e9 for event in events)
    assert len(told["rise"]) > 5
    assert not any(event.HasField("standard_error") for event in told["windows"])
    errors = [event.standard_error for event in told["rise"] if event.HasField("standard_error")]
    assert errors
    assert errors[-1] < errors[0]


def test_versions_get_better(streamed, map_of):
    rise, windows = (versions_of(streamed)[name] for name in ("rise", "windows"))
    for versions in (rise, windows):
        assert len(versions) > 2
        assert [one.status for one in versions] == [PARTIAL] * (len(versions) - 1) + [COMPLETE]
        counts = [one.pass_count for one in versions]
        assert counts == sorted(counts)
        assert counts[0] < counts[-1]
        for one in versions:
            assert [each.class_id for each in one.maps] == [282]
            assert one.maps[0].status in (pb.MAP_STATUS_OK, pb.MAP_STATUS_UNRELIABLE)
            assert (one.truncated, one.status_message) == (False, "")
            assert one.elapsed.ToNanoseconds() > 0
        *partial, final = (map_of(one.maps[0]).ravel() for one in versions)
        near = [np.corrcoef(each, final)[0, 1] for each in partial]
        # What the first few passes say is chance, and said to be unreliable.
        assert near[0] < near[-1], f"the versions come no nearer to the last one: {near}"
        assert near[-1] > 0.4
    errors = [one.maps[0].standard_error for one in rise if one.pass_count >= 32]
    assert all(after < 1.15 * before for before, after in itertools.pairwise(errors)), errors
    assert errors[-1] < errors[0] / 1.5, errors
    assert {one.seed for one in rise} == {5}


def test_the_last_versions_are_those_of_predict(streamed, at_once):
    versions = versions_of(streamed)
    for want in at_once.predictions[0].explanations:
        same_but_for_time(versions[want.name][-1], want)


def test_several_pictures(stub, cat, coffee):
    wanted = WANTED[0], pb.ExplanationRequest(explainer="rise", seed=1, rise=pb.RiseParameters(mask_count=48))
    events = list(stub.PredictStream(asked([cat, coffee, cat], wanted), timeout=120))
    assert [one.classes[0].class_id for one in events[0].predicted.predictions] == [282, 967, 282]
    answer = stub.Predict(pb.PredictRequest(images=[cat, coffee, cat], explanations=wanted), timeout=120)
    for index, prediction in enumerate(answer.predictions):
        versions = versions_of(events, index)
        assert set(versions) == {"gradcam", "rise"}
        for want in prediction.explanations:
            assert [one.status == PARTIAL for one in versions[want.name]][-1:] == [False]
            same_but_for_time(versions[want.name][-1], want)


def test_nothing_to_explain(stub, cat):
    events = list(stub.PredictStream(pb.PredictStreamRequest(request=pb.PredictRequest(images=[cat])), timeout=60))
    assert kinds(events) == ["predicted", "finished"]


def test_conditions_and_budgets_hold_in_a_stream_too(stub, cat):
    skipped = pb.ExplanationRequest(explainer="gradcam", condition=pb.Condition(top_probability_below=0.1))
    cut = pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=20_000))
    cut.budget.FromMilliseconds(1500)
    versions = versions_of(list(stub.PredictStream(asked([cat], [skipped, cut]), timeout=60)))
    (skipped,) = versions["gradcam"]
    assert skipped.status == pb.EXPLANATION_STATUS_SKIPPED
    assert "0.3857, not below 0.1" in skipped.status_message
    *partial, last = versions["rise"]
    assert {one.status for one in partial} == {PARTIAL}
    assert (last.status, last.truncated) == (pb.EXPLANATION_STATUS_TRUNCATED, True)
    assert last.maps[0].standard_error > 0
    assert all(one.pass_count <= last.pass_count for one in partial)


def test_the_interval_between_two_events(stub, cat):
    wanted = pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=20_000))
    wanted.budget.FromMilliseconds(2500)
    started = time.monotonic()
    events = list(stub.PredictStream(asked([cat], [wanted], interval=0.5), timeout=60))
    assert 1 <= len(progress_of(events)["rise"]) <= (time.monotonic() - started) / 0.5


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("seconds", [0, -1, 3601])
def test_an_interval_out_of_range(seconds, stub, cat, refused):
    request = asked([cat])
    request.progress_interval.FromSeconds(seconds)
    refused(stub.PredictStream, request).check("INVALID_ARGUMENT", "INVALID_REQUEST", "progress_interval")


def wrong(**fields):
    return [pb.ExplanationRequest(**{"explainer": "gradcam", **fields})]


WRONG = {
    "no pictures": ({"images": []}, "INVALID_REQUEST", "images"),
    "no picture": ({"images": [pb.Image(encoded=b"none")]}, "PICTURE", "images[0].encoded"),
    "no classes": ({"top_k": 0}, "INVALID_REQUEST", "top_k"),
    "an id with a space": ({"request_id": "not good"}, "INVALID_REQUEST", "request_id"),
    "no explainer": ({"wanted": wrong(explainer="lime")}, "UNKNOWN_EXPLAINER", "explanations[0].explainer"),
    "no such class": (
        {"wanted": wrong(targets=pb.Targets(class_ids=[1000]))},
        "TARGET",
        "explanations[0].targets.class_ids[0]",
    ),
    "an empty condition": ({"wanted": wrong(condition=pb.Condition())}, "INVALID_REQUEST", "explanations[0].condition"),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_name_the_field(case, stub, cat, refused):
    fields, reason, path = WRONG[case]
    refusal = refused(stub.PredictStream, asked(**{"images": [cat], **fields}))
    refusal.check("INVALID_ARGUMENT", reason, f"request.{path}")


def test_no_request_at_all(stub, refused):
    refusal = refused(stub.PredictStream, pb.PredictStreamRequest())
    refusal.check("INVALID_ARGUMENT", "INVALID_REQUEST", "request.images")


def test_an_error_in_the_midst_of_a_stream(stub, cat, read_refusal):
    """Half precision cannot carry the map of a class that the picture does not show; the prediction came before."""
    everything = stub.Predict(pb.PredictRequest(images=[cat], top_k=1000), timeout=60).predictions[0].classes
    tiny = pb.ExplanationRequest(
        explainer="rise",
        targets=pb.Targets(class_ids=[everything[-1].class_id]),
        rise=pb.RiseParameters(mask_count=16),
        encoding=pb.MAP_ENCODING_FLOAT16,
    )
    coming = stub.PredictStream(asked([cat], [*WANTED[:1], tiny]), timeout=60)
    assert next(coming).predicted.predictions[0].classes[0].class_id == 282
    with pytest.raises(grpc.RpcError) as caught:
        list(coming)
    read_refusal(caught.value).check("FAILED_PRECONDITION", "PRECONDITION", "request.explanations[1].encoding")


# ------------------------------------------------------------------------------------------------ who leaves or dawdles


def test_a_reader_who_leaves_ends_the_passes(server, stub, cat, metric, eventually):
    before = {
        key: metric(*key)
        for key in (("xai_jobs_total", "explain", "cancelled"), ("xai_requests_total", "CANCELLED", "PredictStream"))
    }
    coming = stub.PredictStream(asked([cat], [ENDLESS]))
    for event in coming:
        if event.HasField("explained"):
            break
    coming.cancel()
    eventually(lambda: metric("xai_open_explanations") == 0)
    assert metric("xai_open_images") == metric("xai_open_bytes") == 0
    stub.Predict(pb.PredictRequest(images=[cat]), timeout=60)  # when it is done, so is what was on the device before it
    spent = metric("xai_launch_rows_total", "masked_forward")
    for _ in range(8):
        stub.Predict(pb.PredictRequest(images=[cat]), timeout=60)
    assert metric("xai_launch_rows_total", "masked_forward") == spent, "it went on after nobody waited for it"
    eventually(lambda: all(metric(*key) == value + 1 for key, value in before.items()))
    assert metric("xai_queue_rows", "explain") == 0
    assert server.other_output == []


@pytest.mark.timed
def test_an_explanation_that_is_late_ends_before_the_deadline_with_the_map_so_far(stub, cat, metric, eventually):
    """With a condition, nobody knows beforehand that there will be too little time."""
    late = pb.ExplanationRequest.FromString(ENDLESS.SerializeToString())
    late.condition.top_probability_below = 1
    came = list(stub.PredictStream(asked([cat], [late]), timeout=3))
    assert kinds(came)[0] == "predicted"
    assert "progress" in kinds(came)
    assert kinds(came)[-1] == "finished"
    (explanation,) = [event.explained.explanation for event in came if event.explained.explanation.truncated]
    assert explanation.status == pb.EXPLANATION_STATUS_TRUNCATED
    assert 8 <= explanation.pass_count < ENDLESS.rise.mask_count
    assert explanation.maps[0].HasField("tensor")
    eventually(lambda: metric("xai_open_explanations") == 0)


@pytest.mark.timed
def test_a_reader_who_dawdles_gets_fewer_versions_and_disturbs_nobody(
    server, stub, cat, connect, metric, eventually, allowance
):
    """What is not read is not worked out: versions of 16 maps of 200 kB each would pile up."""
    slow = pb.ExplanationRequest(
        explainer="rise", seed=5, targets=pb.Targets(top_count=16), rise=pb.RiseParameters(mask_count=400)
    )
    want = stub.Predict(pb.PredictRequest(images=[cat], explanations=[slow]), timeout=120).predictions[0].explanations
    done = metric("xai_jobs_total", "explain", "done")
    with connect(server.grpc, SMALL_WINDOW, ("grpc.max_receive_message_length", 16 * 2**20)) as own:
        coming = own.PredictStream(asked([cat], [slow]), timeout=120)
        assert next(coming).HasField("predicted")
        resident = metric("process_resident_memory_bytes")
        slowest = 0.0
        while metric("xai_jobs_total", "explain", "done") == done:
            started = time.monotonic()
            stub.Predict(pb.PredictRequest(images=[cat]), timeout=60)
            slowest = max(slowest, time.monotonic() - started)
        assert slowest < allowance(2)
        assert metric("process_resident_memory_bytes") - resident < 64 * 2**20
        eventually(lambda: metric("xai_open_explanations") == 0)  # which is counted just after
        assert metric("xai_open_bytes") > 16 * 200_000, "the reader has not had its maps yet"
        (versions,) = versions_of(list(coming)).values()
    assert len(versions) <= 3, f"{[one.pass_count for one in versions]} passes had been put by"
    same_but_for_time(versions[-1], want[0])
    eventually(lambda: metric("xai_open_explanations") == 0)


# ------------------------------------------------------------------------------------------------ through the SDK

ASKED = [
    "gradcam",
    Explain("rise", masks=MASKS, seed=5),
    Explain("occlusion", name="windows", window_size=32, stride=32),
]


def check_sdk_events(events, at_once, map_of):
    first, *middle, last = events
    assert isinstance(first, Predicted)
    assert isinstance(last, Finished)
    assert {type(event) for event in middle} == {Progress, Explained}
    assert len({event.request_id for event in events}) == 1
    want = at_once.predictions[0]
    assert [one.class_id for one in first.prediction.classes] == [one.class_id for one in want.classes]
    assert not first.prediction.explanations
    for one in want.explanations:
        *partial, final = (
            event for event in middle if isinstance(event, Explained) and event.explanation.name == one.name
        )
        assert final.final
        assert not any(event.final for event in partial)
        np.testing.assert_array_equal(final.explanation.saliency, map_of(one.maps[0]))
        assert final.explanation.passes == PLANNED[one.name]
        assert final.explanation.region == first.prediction.region
    passes = [event.passes for event in middle if isinstance(event, Progress) and event.name == "rise"]
    assert passes == sorted(set(passes))
    assert 0 < passes[0] < passes[-1] < MASKS


def test_the_sdk(server, photo, at_once, map_of):
    with Client(server.grpc, timeout=120) as client:
        events = list(client.stream(photo, explain=ASKED, progress_interval=0.02, ood=True))
    check_sdk_events(events, at_once, map_of)


async def test_the_asynchronous_sdk(server, photo, at_once, map_of):
    async with AsyncClient(server.grpc, timeout=120) as client:
        events = [event async for event in client.stream(photo, explain=ASKED, progress_interval=0.02, ood=True)]
    check_sdk_events(events, at_once, map_of)


async def test_leaving_a_loop_of_the_sdk_cancels_the_call(server, photo, metric, eventually):
    endless = Explain("rise", masks=20_000)
    with Client(server.grpc, timeout=None) as client:
        events = client.stream(photo, explain=[endless], progress_interval=0.05)
        with contextlib.closing(events):
            assert isinstance(next(events), Predicted)
            assert isinstance(next(events), Progress)
        eventually(lambda: metric("xai_open_explanations") == 0)
    async with AsyncClient(server.grpc, timeout=None) as client:
        async with contextlib.aclosing(client.stream(photo, explain=[endless], progress_interval=0.05)) as coming:
            async for event in coming:
                if isinstance(event, Progress):
                    break
        eventually(lambda: metric("xai_open_explanations") == 0)
