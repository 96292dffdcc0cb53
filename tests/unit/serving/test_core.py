"""The core, called directly, answers as over gRPC: an adapter of another protocol needs nothing of the gRPC one."""

import asyncio
import io
from contextlib import aclosing
from dataclasses import replace
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from PIL import Image
from prometheus_client import CollectorRegistry
from toys import only

from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc
from xai_sidecar import errors
from xai_sidecar.evaluator.records import BoxAnnotation
from xai_sidecar.rpc.interceptors import CallInterceptor
from xai_sidecar.serving.answers import Answer, ExplanationUpdate
from xai_sidecar.serving.call_records import CallRecords
from xai_sidecar.serving.plan import Condition, Stage, Targets
from xai_sidecar.serving.requests import (
    EncodedPicture,
    ExplanationRequest,
    GroundTruthReport,
    MapEncoding,
    ModelInput,
    Pixels,
    PredictRequest,
    ReportedObject,
    ReportedPolygon,
)
from xai_sidecar.serving.streaming import ExplanationProgress
from xai_sidecar.telemetry import Telemetry

PIXELS = np.random.default_rng(5).integers(0, 256, (12, 10, 3), np.uint8)


def png():
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    return file.getvalue()


EXPLANATIONS = [
    ExplanationRequest("rise", "masks", {"masks": 160, "tolerance": 0.1}, Targets(top_count=2), seed=3),
    ExplanationRequest("rise", "half", {"masks": 32}, seed=4, encoding=MapEncoding.FLOAT16),
    ExplanationRequest("occlusion", "png", {"window_size": 2}, Targets((3, 0)), encoding=MapEncoding.PNG),
    ExplanationRequest("occlusion", condition=Condition(top_probability_below=0.001)),
    ExplanationRequest("auto", seed=9, budget_seconds=30.0),
]
ON_THE_WIRE = [
    {"explainer": "rise", "name": "masks", "seed": 3, "rise": {"mask_count": 160, "tolerance": 0.1}},
    {"explainer": "rise", "name": "half", "seed": 4, "rise": {"mask_count": 32}, "encoding": "MAP_ENCODING_FLOAT16"},
    {"explainer": "occlusion", "name": "png", "occlusion": {"window_size": 2}, "encoding": "MAP_ENCODING_PNG"},
    {"explainer": "occlusion", "condition": {"top_probability_below": 0.001}},
    {"explainer": "auto", "seed": 9, "budget": {"seconds": 30}},
]
ON_THE_WIRE[0]["targets"] = {"top_count": 2}
ON_THE_WIRE[2]["targets"] = {"class_ids": [3, 0]}
OFF = only("occlusion", "rise", "rise_plus")


def itself(message):
    """An adapter that sends what it is given."""
    return message


@pytest.fixture
def both(serve, picture):
    """A core, a servicer on it, and one request in the terms of each."""
    servicer, admission = serve(0.002, *OFF)
    array = picture().array
    ready = {"dtype": "DATA_TYPE_FLOAT32", "shape": array.shape, "data": array.tobytes()}
    pixels = {"dtype": "DATA_TYPE_UINT8", "shape": PIXELS.shape, "data": PIXELS.tobytes()}
    return SimpleNamespace(
        core=servicer.core,
        servicer=servicer,
        admission=admission,
        neutral=PredictRequest(
            [ModelInput(array), Pixels(PIXELS), EncodedPicture(png())], EXPLANATIONS, top_k=3, request_id="me"
        ),
        wire=pb.PredictRequest(
            images=[pb.Image(model_input=ready), pb.Image(pixels=pixels), pb.Image(encoded=png())],
            explanations=[pb.ExplanationRequest(**each) for each in ON_THE_WIRE],
            top_k=3,
            request_id="me",
        ),
    )


async def over_grpc(both, ask):
    """What a caller gets."""
    limits = both.core.state.model.config.server
    server = grpc.aio.server(interceptors=[CallInterceptor(CallRecords(Telemetry(CollectorRegistry(), []), limits))])
    pb_grpc.add_ExplanationServiceServicer_to_server(both.servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            return await ask(pb_grpc.ExplanationServiceStub(channel))
        finally:
            await server.stop(0)


def map_bytes(one, encoding):
    """A map of the core as the wire has it, worked out anew: half precision, or greys between its least and largest."""
    if encoding is not MapEncoding.PNG:
        return one.values.astype("<f4" if encoding is MapEncoding.FLOAT32 else "<f2").tobytes()
    low, high = float(one.values.min()), float(one.values.max())
    grey = np.rint((one.values.astype(np.float64) - low) * (255 / (high - low))).astype(np.uint8)
    return grey.tobytes(), np.float32(low), np.float32(high)


def sent_bytes(one):
    if one.HasField("tensor"):
        return one.tensor.data
    return Image.open(io.BytesIO(one.png.data)).tobytes(), one.png.minimum, one.png.maximum


def told(value):
    """A float of the core as the wire carries it."""
    return float(np.float32(value)) if value is not None else None


def check_explanation(ours, sent):
    assert (ours.name, ours.explainer, ours.message) == (sent.name, sent.explainer, sent.status_message)
    assert f"EXPLANATION_STATUS_{ours.stage.name}" == pb.ExplanationStatus.Name(sent.status)
    assert ours.pass_count == sent.pass_count
    assert ours.seed == (sent.seed if sent.HasField("seed") else None)
    parameters = {name: getattr(value, value.WhichOneof("kind")) for name, value in sent.parameters.items()}
    assert {name: value for name, value in ours.parameters.items() if value is not None} == parameters
    assert (ours.choice is not None) == sent.HasField("auto_choice")
    assert len(ours.maps) == len(sent.maps)
    for one, other in zip(ours.maps, sent.maps, strict=True):
        assert (one.class_id, one.label) == (other.class_id, other.label)
        assert f"MAP_STATUS_{one.status.name}" == pb.MapStatus.Name(other.status)
        assert told(one.standard_error) == (other.standard_error if other.HasField("standard_error") else None)
        assert map_bytes(one, ours.encoding) == sent_bytes(other)


def check_answer(ours, sent):
    assert (ours.request_id, ours.model_version, ours.sampled) == (sent.request_id, sent.model_version, sent.sampled)
    assert len(ours.predictions) == len(sent.predictions)
    for one, other in zip(ours.predictions, sent.predictions, strict=True):
        assert [tuple(each) for each in one.classes] == [
            (each.class_id, each.label, each.probability, each.logit) for each in other.classes
        ]
        size = (other.picture.width, other.picture.height) if other.HasField("picture") else None
        assert one.picture_size == size
        assert (one.region is not None) == other.HasField("region")
        assert len(one.explanations) == len(other.explanations)
        for explanation, message in zip(one.explanations, other.explanations, strict=True):
            check_explanation(explanation, message)


async def test_an_answer_is_the_same_as_over_grpc(both):
    answer = await both.core.predict(both.neutral, itself)
    sent = await over_grpc(both, lambda stub: stub.Predict(both.wire))
    check_answer(answer, sent)
    ends = {each.name: (each.stage, len(each.maps)) for each in answer.predictions[0].explanations}
    assert ends == {
        "masks": (Stage.COMPLETE, 2),
        "half": (Stage.COMPLETE, 1),
        "png": (Stage.COMPLETE, 2),
        "occlusion": (Stage.SKIPPED, 0),
        "auto": (Stage.COMPLETE, 1),
    }
    assert [one.picture_size for one in answer.predictions] == [None, (10, 12), (10, 12)]


async def test_a_stream_is_the_same_as_over_grpc(both):
    async with aclosing(both.core.predict_stream(both.neutral, itself, 0.02)) as stream:
        events = [event async for event in stream]

    async def ask(stub):
        request = pb.PredictStreamRequest(request=both.wire, progress_interval=Duration(nanos=20_000_000))
        return [event async for event in stub.PredictStream(request)]

    sent = await over_grpc(both, ask)
    assert isinstance(events[0], Answer)
    check_answer(events[0], sent[0].predicted)
    assert {type(event) for event in events[1:]} <= {ExplanationProgress, ExplanationUpdate}
    assert {event.WhichOneof("event") for event in sent[1:-1]} <= {"progress", "explained"}
    ours = {
        (event.image_index, event.explanation.name): event.explanation
        for event in events
        if isinstance(event, ExplanationUpdate) and event.explanation.stage is not Stage.PARTIAL
    }
    theirs = {
        (event.explained.image_index, event.explained.explanation.name): event.explained.explanation
        for event in sent
        if event.HasField("explained") and event.explained.explanation.status != pb.EXPLANATION_STATUS_PARTIAL
    }
    assert len(ours) == 15
    assert set(ours) == set(theirs)
    for which, explanation in ours.items():
        check_explanation(explanation, theirs[which])


async def test_errors_name_the_cores_own_fields(both):
    def rise(**fields):
        return {"explanations": [ExplanationRequest(**{"explainer": "rise", **fields})]}

    wrong = [
        ({"images": [EncodedPicture(b"x")]}, errors.PictureError, "images[0].encoded"),
        ({"images": [Pixels(PIXELS.astype(np.float32))]}, errors.TensorError, "images[0].pixels"),
        (rise(parameters={"masks": 1}), errors.ParameterError, "explanations[0].parameters.masks"),
        (rise(parameters={"mask_count": 99}), errors.ParameterError, "explanations[0].parameters"),
        (rise(parameters={"masks": 99}, explainer="auto"), errors.ParameterError, "explanations[0].parameters"),
        (rise(budget_seconds=float("nan")), errors.InvalidRequestError, "explanations[0].budget"),
        ({"request_id": "a b"}, errors.InvalidRequestError, "request_id"),
    ]
    for fields, kind, field in wrong:
        request = PredictRequest(**{"images": both.neutral.images, **fields})
        with pytest.raises(kind) as caught:
            await both.core.predict(request, itself)
        assert caught.value.field == field
        with pytest.raises(kind) as caught:
            await anext(both.core.predict_stream(request, itself, 1.0))
        assert caught.value.field == field
    taken = (both.admission.images.taken, both.admission.explanations.taken, both.admission.bytes.taken)
    assert taken == (0, 0, 0)


async def test_a_request_without_a_name_gets_one(both):
    one, other = [(await both.core.predict(PredictRequest(both.neutral.images), itself)).request_id for _ in range(2)]
    assert one != other


async def test_an_encoding_that_fails_ends_the_stream_unless_a_better_version_follows(both):
    def encode(event):
        if isinstance(event, ExplanationUpdate) and event.explanation.stage in failing:
            raise errors.PreconditionError("It cannot be carried.")
        return event

    request = PredictRequest(both.neutral.images[:1], [ExplanationRequest("rise", parameters={"masks": 800}, seed=1)])
    failing = {Stage.PARTIAL}
    async with aclosing(both.core.predict_stream(request, encode, 0.02)) as stream:
        stages = [event.explanation.stage async for event in stream if isinstance(event, ExplanationUpdate)]
    assert stages == [Stage.COMPLETE]
    failing = {Stage.COMPLETE}
    with pytest.raises(errors.PreconditionError):
        async with aclosing(both.core.predict_stream(request, encode, 0.02)) as stream:
            _ = [event async for event in stream]


async def test_deadlines_are_bounded_by_the_longest_call(serve, picture):
    servicer, _ = serve(0.01, "server.max_call_seconds=0.5")
    request = PredictRequest([ModelInput(picture().array)], [ExplanationRequest("rise", parameters={"masks": 100_000})])
    with pytest.raises(errors.DeadlineTooShortError, match="no call may take longer than 500 ms"):
        await servicer.core.predict(request, itself)
    soon = asyncio.get_running_loop().time() + 0.3
    with pytest.raises(errors.DeadlineTooShortError, match="the call's deadline is in"):
        await servicer.core.predict(request, itself, soon)


async def test_who_only_looks_is_not_sampled_and_changes_nothing_that_is_measured(serve, picture, tmp_path):
    store = f"evaluator.store=sqlite:///{tmp_path}/a.db"
    servicer, _ = serve(0.0, "evaluator.sample_rate=1", store, *OFF, evaluated=True)
    core, array = servicer.core, picture().array
    watched = []
    drift = SimpleNamespace(offer=lambda *given: watched.append(given), close=lambda: None)
    object.__setattr__(core.state.evaluation, "drift", drift)
    for skip, name in ((True, "looks"), (False, "asks")):
        request = PredictRequest(
            [ModelInput(array)], [ExplanationRequest("occlusion")], request_id=name, skip_sampling=skip
        )
        assert (await core.predict(request, itself)).sampled is not skip
        assert len(watched) == (0 if skip else 1)
        request = replace(request, request_id=f"{name}-watching")
        async with aclosing(core.predict_stream(request, itself, 0.25)) as events:
            first, *_ = [event async for event in events]
        assert first.sampled is not skip
        assert len(watched) == (0 if skip else 2)
    with pytest.raises(errors.NotFoundError):
        await core.report_ground_truth(GroundTruthReport("looks", labels=["c"]))
    store = core.state.evaluation.evaluator.store
    assert {key.request_id for key, _ in store.states()} == {"asks", "asks-watching"}


async def test_a_report_is_the_same_as_over_grpc(serve, picture, tmp_path):
    servicer, _ = serve(
        0.0, "evaluator.sample_rate=1", f"evaluator.store=sqlite:///{tmp_path}/a.db", *OFF, evaluated=True
    )
    core = servicer.core
    array = picture().array
    request = PredictRequest([ModelInput(array)], request_id="mine")
    assert (await core.predict(request, itself)).sampled
    beyond = ReportedPolygon([(-5.0, 0.0), (4.0, 0.0), (4.0, 4.0)])
    report = GroundTruthReport(
        "mine", labels=["c"], boxes=[BoxAnnotation(0, 0, 3, 2)], objects=[ReportedObject(beyond)]
    )
    message = pb.ReportGroundTruthRequest(
        request_id="mine",
        labels=["c"],
        boxes=[pb.Region(right=3, bottom=2)],
        objects=[pb.GroundTruthObject(polygon={"points": [{"x": -5}, {"x": 4}, {"x": 4, "y": 4}]})],
    )
    receipt = await core.report_ground_truth(report)
    again = await servicer.ReportGroundTruth(message, None)
    assert (receipt.changed, again.changed) == (True, False)
    more = pb.ReportGroundTruthRequest(request_id="mine", labels=["c"], keep_unmentioned=True)
    assert not (await servicer.ReportGroundTruth(more, None)).changed  # with its objects, as they were
    assert list(again.warnings) == list(receipt.warnings)
    with pytest.raises(errors.InvalidRequestError) as caught:
        await core.report_ground_truth(GroundTruthReport("mine", objects=[ReportedObject(None)]))
    assert caught.value.field == "objects[0].shape"
