"""The calls, from a request's message to the messages of its answer."""

import asyncio
import threading
from contextlib import aclosing
from types import SimpleNamespace

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from xai_proto import explanation_pb2 as pb
from xai_sidecar import errors
from xai_sidecar.rpc.interceptors import REQUEST_ID

INTERVAL = Duration(nanos=20_000_000)


def call(seconds=None, named=True):
    """A call's context; in the metadata its caller has named it, or the server has."""
    metadata = ((REQUEST_ID, "mine"),)
    return SimpleNamespace(
        time_remaining=lambda: seconds,
        trailing_metadata=lambda: metadata,
        invocation_metadata=lambda: metadata if named else (),
        set_trailing_metadata=lambda metadata: None,
    )


def rise(**fields):
    masks = fields.pop("mask_count", 320)
    return pb.ExplanationRequest(**{"explainer": "rise", "seed": 3, "rise": {"mask_count": masks}, **fields})


def streamed(request):
    return pb.PredictStreamRequest(request=request, progress_interval=INTERVAL)


async def read(events):
    read = []
    async with aclosing(events):
        async for event in events:
            read.append(event)
    return read


def taken(admission):
    return admission.images.taken, admission.explanations.taken, admission.bytes.taken


async def test_what_its_caller_has_not_named_is_not_kept_for_a_repeat(serve, request_of):
    """Nobody knows the id to ask for it again."""
    servicer, _ = serve()
    request = request_of(rise(mask_count=16))
    launches = []
    for context in (call(named=False), call(named=False), call(), call()):
        await servicer.Predict(request, context)
        launches.append(len(servicer.core.state.predictor.engine._device._backend.launches))
    assert launches[0] < launches[1] < launches[2] == launches[3]


async def test_a_stream_tells_what_predict_answers(serve, request_of):
    servicer, admission = serve(0.002)
    request = request_of(rise(), rise(explainer="occlusion", rise=None), rise(name="png", encoding="MAP_ENCODING_PNG"))
    answer = await servicer.Predict(request, call())
    events = await read(servicer.PredictStream(streamed(request), call()))
    assert taken(admission) == (0, 0, 0)
    assert {event.request_id for event in events} == {answer.request_id} == {"mine"}
    kinds = [event.WhichOneof("event") for event in events]
    assert (kinds[0], kinds[-1]) == ("predicted", "finished")
    assert set(kinds[1:-1]) == {"progress", "explained"}
    predicted = events[0].predicted
    assert not any(one.explanations for one in predicted.predictions)
    for index, one in enumerate(answer.predictions):
        assert predicted.predictions[index].classes == one.classes
        for expected in one.explanations:
            updates = [
                event.explained.explanation
                for event in events
                if event.HasField("explained")
                and event.explained.image_index == index
                and event.explained.explanation.name == expected.name
            ]
            *partial, final = updates
            assert {update.status for update in partial} <= {pb.EXPLANATION_STATUS_PARTIAL}
            assert final.elapsed.ToNanoseconds() > 0
            final.elapsed.CopyFrom(expected.elapsed)
            assert final == expected
    assert answer.predictions[0].explanations[0].maps[0].tensor.shape == [6, 8]


async def test_the_predictions_come_at_once(serve, request_of):
    servicer, admission = serve(0.01)
    async with aclosing(servicer.PredictStream(streamed(request_of(rise(mask_count=100_000))), call())) as events:
        assert (await anext(events)).HasField("predicted")
        assert admission.explanations.taken == 2


async def test_a_share_lasts_no_longer_than_what_it_is_for(serve, request_of):
    """Two pictures, each with an explanation that goes on, one skipped, one without targets, and one that is done."""
    servicer, admission = serve(0.002)
    skipped = rise(name="skipped", condition=pb.Condition(top_probability_below=0.001))
    none = rise(name="none", targets=pb.Targets(min_probability=1.0))
    request = request_of(rise(mask_count=90_000), skipped, none, rise(name="short", mask_count=16))
    async with aclosing(servicer.PredictStream(streamed(request), call())) as events:
        await anext(events)
        assert taken(admission)[:2] == (0, 8), "the pictures are predicted"
        before = admission.bytes.taken
        done = set()
        while len(done) < 6:
            event = await anext(events)
            if event.HasField("explained") and event.explained.explanation.status != pb.EXPLANATION_STATUS_PARTIAL:
                done.add((event.explained.image_index, event.explained.explanation.name))
        assert {name for _, name in done} == {"skipped", "none", "short"}
        assert taken(admission) == (0, 2, before - 6 * 3 * 2**20)
    assert taken(admission) == (0, 0, 0)


async def test_a_stream_without_explanations(serve, request_of):
    servicer, _ = serve()
    events = await read(servicer.PredictStream(pb.PredictStreamRequest(request=request_of()), call()))
    assert [event.WhichOneof("event") for event in events] == ["predicted", "finished"]


async def test_who_leaves_leaves_nothing_behind(serve, request_of, idle, complaints):
    complaints()
    servicer, admission = serve(0.002)
    events = servicer.PredictStream(streamed(request_of(rise(mask_count=100_000))), call())
    for _ in range(4):
        await anext(events)
    assert taken(admission)[:2] == (0, 2)
    await events.aclose()
    assert taken(admission) == (0, 0, 0)
    assert not servicer.core.state.predictor.engine._open, "at once, not when somebody collects the garbage"
    answering = asyncio.ensure_future(servicer.Predict(request_of(rise(mask_count=100_000)), call()))
    await asyncio.sleep(0.1)
    assert taken(admission)[:2] == (0, 2)
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert taken(admission) == (0, 0, 0)
    await idle(servicer.core.state.predictor.engine)
    assert complaints() == []


@pytest.mark.parametrize(
    ("fields", "seconds", "kind", "field"),
    [
        ({"top_k": 0}, None, errors.InvalidRequestError, "top_k"),
        ({"explanations": [rise(budget=Duration(nanos=1))]}, None, errors.PreconditionError, "explanations[0].budget"),
        ({"images": [pb.Image()]}, None, errors.PictureError, "images[2]"),
        ({"explanations": [rise(mask_count=100_000)]}, 0.3, errors.DeadlineTooShortError, "explanations[0]"),
    ],
)
async def test_errors_name_the_field_in_both_calls(serve, request_of, fields, seconds, kind, field):
    servicer, admission = serve(0.01)
    request = request_of()
    request.MergeFrom(pb.PredictRequest(**fields))
    with pytest.raises(kind) as caught:
        await servicer.Predict(request, call(seconds))
    assert caught.value.field == field
    with pytest.raises(kind) as caught:
        await read(servicer.PredictStream(streamed(request), call(seconds)))
    assert caught.value.field == f"request.{field}"
    assert taken(admission) == (0, 0, 0)


def asking(servicer, request, model):
    """All calls of the contract for a model, by the field that names it."""
    request.model = model
    report = pb.ReportGroundTruthRequest(request_id="mine", class_ids=[0], model=model)
    return [
        ("model", lambda: servicer.Predict(request, call())),
        ("request.model", lambda: read(servicer.PredictStream(streamed(request), call()))),
        ("model", lambda: servicer.ReportGroundTruth(report, call())),
        ("model", lambda: servicer.GetModelInfo(pb.GetModelInfoRequest(model=model), call())),
    ]


@pytest.mark.parametrize("other", ["another", "MODEL", "model ", "x" * 100_000])
async def test_requests_for_another_model_are_refused(serve, request_of, other):
    servicer, admission = serve(0.002)
    for field, ask in asking(servicer, request_of(), other):
        with pytest.raises(errors.NotFoundError) as caught:
            await ask()
        assert caught.value.field == field
        assert "which serves 'model'" in caught.value.message
        assert len(caught.value.message) < 300
    assert taken(admission) == (0, 0, 0)


async def test_the_loop_goes_on_while_the_model_is_described(serve, monkeypatch):
    servicer, _ = serve(0.002)
    describe, has_gone_on = servicer.core.describe, threading.Event()

    def slowly(model):
        assert has_gone_on.wait(30)
        return describe(model)

    monkeypatch.setattr(servicer.core, "describe", slowly)
    asked = asyncio.create_task(servicer.GetModelInfo(pb.GetModelInfoRequest(), call()))
    await asyncio.sleep(0)
    has_gone_on.set()
    assert (await asked).model.name == "model"


@pytest.mark.parametrize("name", ["", "model"])
async def test_requests_for_the_model_that_is_served_are_taken(serve, request_of, name):
    servicer, _ = serve(0.002)
    for _, ask in asking(servicer, request_of(), name):
        try:
            await ask()
        except errors.PreconditionError as error:  # nothing is sampled here
            assert "evaluator.sample_rate" in error.message


async def test_errors_that_are_no_fields(serve, request_of):
    servicer, _ = serve(0.01, "server.queue_capacity=3")
    async with aclosing(servicer.PredictStream(streamed(request_of(rise())), call())) as events:
        await anext(events)
        for answering in (
            servicer.Predict(request_of(rise()), call()),
            read(servicer.PredictStream(streamed(request_of(rise(seed=4))), call())),
        ):
            with pytest.raises(errors.OverloadedError, match="2 explanations are in progress") as caught:
                await answering
            assert caught.value.field == ""
            assert 0.1 <= caught.value.retry_seconds <= 30
    with pytest.raises(errors.InvalidRequestError) as caught:
        await read(servicer.PredictStream(pb.PredictStreamRequest(progress_interval=Duration()), call()))
    assert caught.value.field == "progress_interval"
    servicer.core.state = None
    with pytest.raises(errors.ShuttingDownError):
        await read(servicer.PredictStream(streamed(request_of()), call()))


async def test_a_budget_and_a_condition(serve, request_of):
    servicer, _ = serve(0.005)
    budgeted = rise(name="budgeted", mask_count=90_000, budget=Duration(nanos=400_000_000))
    skipped = rise(name="skipped", condition=pb.Condition(top_probability_below=0.001))
    answer = await servicer.Predict(request_of(budgeted, skipped), call(5))
    for one in answer.predictions:
        first, second = one.explanations
        assert (first.status, first.truncated, len(first.maps)) == (pb.EXPLANATION_STATUS_TRUNCATED, True, 1)
        assert 0 < first.maps[0].standard_error < np.inf
        assert f"after {first.pass_count} of at most 90000 passes" in first.status_message
        assert (second.status, second.truncated, len(second.maps)) == (pb.EXPLANATION_STATUS_SKIPPED, False, 0)
        assert "not below 0.001" in second.status_message
