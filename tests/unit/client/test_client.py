"""Both clients against a real socket. Each case runs with the sync and the async one: they must not differ."""

import _thread
import asyncio
import inspect
import socket
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2

import xai_client
from xai_client import (
    ArgumentError,
    AsyncClient,
    Client,
    ClosedError,
    Explain,
    Explained,
    Finished,
    GroundTruthObject,
    GroundTruthWarning,
    MessageTooLargeError,
    Predicted,
    Progress,
)
from xai_proto import explanation_pb2 as pb


def info(reason):
    return error_details_pb2.ErrorInfo(domain="xai-sidecar", reason=reason)


def pixels():
    return np.zeros((5, 6, 3), np.uint8)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ------------------------------------------------------------------------------------------------- results


async def test_predict(fake, connect, cat):
    prediction = await connect(fake.address).call(
        "predict",
        cat,
        explain=["gradcam", Explain("rise", masks=10, seed=7, targets=[2])],
        top_k=2,
        ood=True,
        skip_sampling=True,
    )
    (request,) = fake.requests("Predict")
    assert request.images[0].encoded == cat.read_bytes()
    assert [each.explainer for each in request.explanations] == ["gradcam", "rise"]
    assert (request.explanations[1].rise.mask_count, request.explanations[1].seed) == (10, 7)
    assert (request.top_k, request.ood, request.skip_sampling) == (2, True, True)
    assert prediction.classes[0].label == "tabby cat"
    assert prediction.ood_score == -1.5
    assert list(prediction.explanations) == ["gradcam", "rise"]
    assert prediction.explanations["gradcam"].targets == (7,)
    assert prediction.explanations["rise"].targets == (2,)
    assert np.array_equal(prediction.explanations["rise"].saliency, np.arange(12).reshape(3, 4))
    assert prediction.explanations["gradcam"].overlay(cat).size == (40, 30)


async def test_predict_many_keeps_the_order(fake, connect, jpeg):
    pixels = np.zeros((5, 6, 3), np.uint8)
    many = await connect(fake.address).call("predict_many", [jpeg, pixels], explain="rise", request_id="batch-1")
    assert [each.picture_size for each in many] == [(40, 30), None]
    assert [each.request_id for each in many] == ["batch-1", "batch-1"]
    (request,) = fake.requests("Predict")
    assert not request.skip_sampling


async def test_the_request_id_is_sent_twice_and_names_errors(fake, connect, failure, jpeg):
    client = connect(fake.address, metadata=[("authorization", "Bearer x")])
    first = await client.call("predict", jpeg)
    second = await client.call("predict", jpeg, request_id="mine:1")
    assert len(first.request_id) == 32
    assert second.request_id == "mine:1"
    for received, wanted in zip(fake.received, (first.request_id, "mine:1"), strict=True):
        assert received.request.request_id == received.metadata["x-request-id"] == wanted
        assert received.metadata["authorization"] == "Bearer x"
    fake.script = [failure(grpc.StatusCode.INTERNAL)]
    with pytest.raises(xai_client.InternalError, match="mine:2") as caught:
        await client.call("predict", jpeg, request_id="mine:2")
    assert caught.value.request_id == "mine:2"


async def test_a_server_that_names_the_request_itself_wins(fake, connect, jpeg):
    fake.script = [pb.PredictResponse(request_id="theirs", predictions=[pb.Prediction()])]
    assert (await connect(fake.address).call("predict", jpeg)).request_id == "theirs"


async def test_model_info(fake, connect):
    info = await connect(fake.address).call("model_info")
    assert (info.name, info.roles) == ("lite0", None)
    assert "x-request-id" in fake.received[0].metadata


async def test_report_ground_truth(fake, connect):
    client = connect(fake.address)
    item = GroundTruthObject(polygon=[(0, 0), (4, 0), (0, 3)], label="cat")
    result = await client.call(
        "report_ground_truth",
        "r1",
        ["cat"],
        [(1, 2, 3, 4)],
        1,
        objects=[item],
        class_ids=[7],
        keep_unmentioned=True,
        timeout=9,
    )
    assert result is True
    (request,) = fake.requests("ReportGroundTruth")
    triangle = pb.Polygon(points=[pb.Point(x=0, y=0), pb.Point(x=4, y=0), pb.Point(x=0, y=3)])
    assert request == pb.ReportGroundTruthRequest(
        request_id="r1",
        image_index=1,
        labels=["cat"],
        boxes=[pb.Region(left=1, top=2, right=3, bottom=4)],
        class_ids=[7],
        objects=[pb.GroundTruthObject(polygon=triangle, label="cat")],
        keep_unmentioned=True,
    )
    assert fake.received[0].time_remaining < 9.1


async def test_a_report_that_changes_nothing(fake, connect):
    fake.script = [pb.ReportGroundTruthResponse(changed=False)]
    assert await connect(fake.address).call("report_ground_truth", "r1", "cat") is False


async def test_what_may_not_be_meant_is_a_warning_at_the_callers_line(fake, connect):
    told = ["boxes[0]: The box lies outside.", "boxes[1]: The box reaches beyond."]
    fake.script = [pb.ReportGroundTruthResponse(changed=True, warnings=told)]
    with pytest.warns(GroundTruthWarning) as issued:
        assert await connect(fake.address).call("report_ground_truth", "r1", "cat") is True
    assert [str(each.message) for each in issued] == told
    assert not any("xai_client" in each.filename for each in issued)


async def test_wrong_reports_are_not_sent(fake, connect, tmp_path):
    client = connect(fake.address)
    with pytest.raises(ArgumentError, match="nothing to report"):
        await client.call("report_ground_truth", "r1")
    with pytest.raises(ArgumentError, match="empty"):
        await client.call("report_ground_truth", "r1", boxes=[(3, 2, 1, 4)])
    with pytest.raises(FileNotFoundError):
        await client.call("report_ground_truth", "r1", objects=GroundTruthObject(mask=tmp_path / "none.png"))
    assert fake.received == []


async def test_a_request_that_was_not_sampled_says_what_to_do(fake, connect, failure):
    cure = "request_id: 'r1' was not sampled; only requests whose response has `sampled` take a report"
    fake.script = [failure(grpc.StatusCode.NOT_FOUND, cure, (info("NOT_SAMPLED"),))]
    with pytest.raises(xai_client.NotFoundError, match="was not sampled; only") as caught:
        await connect(fake.address).call("report_ground_truth", "r1", "cat")
    assert (caught.value.message, caught.value.reason) == (cure, "NOT_SAMPLED")


async def test_auto_is_found_by_its_own_name(fake, connect, answer, jpeg):
    def respond(request):
        response = answer(request)
        response.sampled = True
        chosen = response.predictions[0].explanations[0]
        chosen.explainer = "gradcam"
        chosen.auto_choice.reason, chosen.auto_choice.kind = "because", pb.AUTO_CHOICE_KIND_BEST
        return response

    fake.script = [respond]
    prediction = await connect(fake.address).call("predict", jpeg, explain=["auto"])
    assert fake.requests("Predict")[0].explanations[0].explainer == "auto"
    assert prediction.sampled
    assert prediction.explanations["auto"].explainer == "gradcam"
    assert prediction.explanations["auto"].choice == xai_client.AutoChoice("because", "best", None)


def stream_script(answer):
    def play(request):
        inner = request.request
        whole = answer(inner)
        (explanation,) = whole.predictions[0].explanations
        del whole.predictions[0].explanations[:]
        rid = inner.request_id
        yield pb.PredictStreamResponse(request_id=rid, predicted=whole)
        yield pb.PredictStreamResponse(request_id=rid, progress=pb.ExplanationProgress(name="rise", pass_count=3))
        yield pb.PredictStreamResponse(request_id=rid)
        yield pb.PredictStreamResponse(request_id=rid, explained=pb.ExplanationUpdate(explanation=explanation))
        yield pb.PredictStreamResponse(request_id=rid, finished=pb.StreamFinished())

    return play


async def test_stream(fake, connect, answer, cat):
    fake.script = [stream_script(answer)]
    events = await connect(fake.address).stream(
        cat, explain=["rise"], progress_interval=0.5, request_id="s1", skip_sampling=True
    )
    assert [type(each) for each in events] == [Predicted, Progress, Explained, Finished]
    assert {each.request_id for each in events} == {"s1"}
    assert events[0].prediction.classes[0].class_id == 7
    assert events[2].final
    assert events[2].explanation.overlay(cat).size == (40, 30)
    (request,) = fake.requests("PredictStream")
    assert request.progress_interval.ToMilliseconds() == 500
    assert request.request.skip_sampling


async def test_a_server_that_does_not_stream(fake, connect, failure, jpeg):
    fake.script = [failure(grpc.StatusCode.UNIMPLEMENTED, "not yet", (info("UNSUPPORTED"),))]
    with pytest.raises(xai_client.UnsupportedError, match="not yet"):
        await connect(fake.address).stream(jpeg, explain="rise")


@pytest.fixture
def endless(fake, answer):
    """Has the server predict and then send nothing more; returns how to wait until it sees the end of the call."""
    leave = threading.Event()

    def play(request):
        yield pb.PredictStreamResponse(predicted=answer(request.request))
        leave.wait(10)

    fake.script = [play]
    yield lambda: fake.received[0].ended.wait(3)
    leave.set()


def close(events):
    events.close()


def stop_after_one(events):
    for event in events:
        assert isinstance(event, Predicted)
        break


def press_ctrl_c_between(events):
    with pytest.raises(KeyboardInterrupt):
        for _ in events:
            raise KeyboardInterrupt


def press_ctrl_c_while_waiting(events):
    threading.Timer(0.3, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        for _ in events:
            pass


@pytest.mark.parametrize("leave", [close, stop_after_one, press_ctrl_c_between, press_ctrl_c_while_waiting])
def test_leaving_a_stream_cancels_it(fake, endless, jpeg, leave):
    with Client(fake.address) as client:
        if leave is close:
            events = client.stream(jpeg)
            next(events)
            leave(events)
        else:
            leave(client.stream(jpeg))
        assert endless()


async def aclose(events):
    await anext(events)
    await events.aclose()


async def stop_after_one_async(events):
    async for event in events:
        assert isinstance(event, Predicted)
        break


async def cancel_the_task(events):
    async def consume():
        async for _ in events:
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("leave", [aclose, stop_after_one_async, cancel_the_task])
async def test_leaving_an_async_stream_cancels_it(fake, endless, jpeg, leave):
    async with AsyncClient(fake.address) as client:
        await leave(client.stream(jpeg))
        assert await asyncio.to_thread(endless)


# -------------------------------------------------------------------------------------------------- errors


async def test_details_come_through_the_wire(fake, connect, failure, jpeg):
    violation = error_details_pb2.BadRequest.FieldViolation(field="images[0].encoded")
    fake.script = [
        failure(
            grpc.StatusCode.INVALID_ARGUMENT,
            "no picture",
            (info("PICTURE"), error_details_pb2.BadRequest(field_violations=[violation])),
        )
    ]
    with pytest.raises(xai_client.InvalidRequestError) as caught:
        await connect(fake.address).call("predict", jpeg)
    error = caught.value
    assert (error.code, error.reason, error.field) == ("INVALID_ARGUMENT", "PICTURE", "images[0].encoded")
    assert error.message == "no picture"


CALLS = [
    ("predict", (b"x",), "Predict"),
    ("predict_many", ([b"x"],), "Predict"),
    ("report_ground_truth", ("r", "cat"), "ReportGroundTruth"),
    ("model_info", (), "GetModelInfo"),
]


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name not in ("OK", "UNAVAILABLE")])
async def test_no_status_leaks_and_none_of_these_is_repeated(fake, connect, failure, code):
    client = connect(fake.address)
    for method, arguments, wire in CALLS:
        fake.received.clear()
        fake.script = [failure(code)] * 3
        with pytest.raises(xai_client.ServiceError) as caught:
            await client.call(method, *arguments)
        assert caught.value.code == code.name
        assert len(fake.requests(wire)) == 1
    fake.received.clear()
    fake.script = [failure(code)] * 3
    with pytest.raises(xai_client.ServiceError) as caught:
        await client.stream(b"x")
    assert caught.value.code == code.name
    assert len(fake.requests("PredictStream")) == 1


async def test_a_deadline_that_is_too_short_is_told_by_the_server(fake, connect, failure):
    violation = error_details_pb2.BadRequest.FieldViolation(field="explanations[0]")
    details = (info("DEADLINE_TOO_SHORT"), error_details_pb2.BadRequest(field_violations=[violation]))
    refusal = failure(grpc.StatusCode.DEADLINE_EXCEEDED, "explanations[0] takes about 9 s", details)
    client = connect(fake.address)
    fake.script = [refusal] * 2
    for call in (client.call("predict", b"x", explain="rise"), client.stream(b"x", explain="rise")):
        with pytest.raises(xai_client.DeadlineError) as caught:
            await call
        assert (caught.value.reason, caught.value.field) == ("DEADLINE_TOO_SHORT", "explanations[0]")
        assert caught.value.message == "explanations[0] takes about 9 s"
    assert len(fake.received) == 2


# ----------------------------------------------------------------------------------------------- deadlines


async def test_the_default_deadline_reaches_the_server_and_a_call_may_override_it(fake, connect, jpeg):
    client = connect(fake.address, timeout=20)
    await client.call("predict", jpeg)
    await client.call("predict", jpeg, timeout=7)
    first, second = (each.time_remaining for each in fake.received)
    # gRPC rounds up on the wire.
    assert 15 < first < 20.5
    assert 5 < second < 7.5
    await connect(fake.address).call("predict", jpeg)
    assert 25 < fake.received[2].time_remaining < 30.5


async def test_no_deadline(fake, connect, jpeg):
    await connect(fake.address, timeout=None).call("predict", jpeg)
    remaining = fake.received[0].time_remaining
    assert remaining is None or remaining > 1e6


# --------------------------------------------------------------------------------------------- connections


async def test_a_refused_connection_names_the_address_and_what_to_check(connect):
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(xai_client.UnavailableError, match=address) as caught:
        await connect(address, timeout=5).call("predict", b"x")
    assert "xai-sidecar runs there" in caught.value.message


async def test_only_wait_for_ready_waits_until_the_deadline(connect):
    more = {"timeout": 0.6}
    with pytest.raises(xai_client.UnavailableError):
        await connect(f"127.0.0.1:{free_port()}", **more).call("predict", b"x")
    start = time.monotonic()
    with pytest.raises(xai_client.DeadlineError):
        await connect(f"127.0.0.1:{free_port()}", wait_for_ready=True, **more).call("predict", b"x")
    assert time.monotonic() - start > 0.5


async def test_a_closed_client_says_so(fake, connect, jpeg):
    client = connect(fake.address)
    await client.call("predict", jpeg)
    await client.call("close")
    await client.call("close")
    for method, arguments, _ in CALLS:
        with pytest.raises(ClosedError):
            await client.call(method, *arguments)
    with pytest.raises(ClosedError):
        await client.stream(jpeg)
    assert len(fake.received) == 1


async def test_closing_ends_calls_under_way(fake, connect):
    entered, leave = threading.Event(), threading.Event()

    def hang(request):
        entered.set()
        leave.wait(5)
        return pb.PredictResponse()

    fake.script = [hang]
    client = connect(fake.address)
    call = asyncio.create_task(client.call("predict", b"x"))
    assert await asyncio.to_thread(entered.wait, 5)
    await client.call("close")
    with pytest.raises(ClosedError):
        await asyncio.wait_for(call, 3)
    leave.set()


async def test_cancelling_a_task_cancels_its_call(fake):
    entered, leave = threading.Event(), threading.Event()

    def hang(request):
        entered.set()
        leave.wait(5)
        return pb.PredictResponse()

    fake.script = [hang]
    async with AsyncClient(fake.address) as client:
        task = asyncio.create_task(client.predict(b"x"))
        assert await asyncio.to_thread(entered.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        leave.set()
        assert (await client.model_info()).name == "lite0"


async def test_large_messages_fit_and_larger_ones_say_so(fake, connect):
    # gRPC's own limit for responses is 4 MiB.
    big = pb.PredictResponse(predictions=[pb.Prediction()], model_version="x" * (8 * 2**20))
    fake.script = [big, big]
    client = connect(fake.address)
    assert len((await client.call("predict", b"x")).model_version) == 8 * 2**20
    small = connect(fake.address, options=[("grpc.max_receive_message_length", 2**20)])
    with pytest.raises(MessageTooLargeError):
        await small.call("predict", b"x")
    with pytest.raises(MessageTooLargeError):
        await client.call("predict", bytes(65 * 2**20))
    assert len(fake.received) == 2


def test_context_managers_close(fake, jpeg):
    with Client(fake.address) as client:
        client.predict(jpeg, request_id="a")
    with pytest.raises(ClosedError):
        client.predict(jpeg)

    async def run():
        async with AsyncClient(fake.address) as client:
            await client.predict(jpeg)
        with pytest.raises(ClosedError):
            await client.predict(jpeg)

    asyncio.run(run())


def test_an_async_client_may_be_made_before_its_loop(fake, jpeg):
    client = AsyncClient(fake.address)

    async def run():
        async with client:
            return await client.predict(jpeg)

    assert asyncio.run(run()).classes


def test_threads_share_a_client(fake, jpeg):
    results = []
    with Client(fake.address) as client:
        threads = [
            threading.Thread(target=lambda name=name: results.append(client.predict(jpeg, request_id=name).request_id))
            for name in map(str, range(8))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert sorted(results) == sorted(map(str, range(8)))


# ----------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    "arguments",
    [
        {"address": "http://127.0.0.1:1"},
        {"address": "localhost"},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"metadata": [("Upper", "x")]},
        {"metadata": [("grpc-x", "x")]},
        {"metadata": [("key", "caf\u00e9")]},
        {"metadata": [("key", b"bytes")]},
    ],
    ids=str,
)
@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_wrong_client_arguments_are_refused(client, arguments):
    with pytest.raises(ArgumentError):
        client(**{"address": "127.0.0.1:1", **arguments})


@pytest.mark.parametrize("request_id", ["", "a b", "x" * 129, "\u00e9", 7])
async def test_wrong_request_ids_are_refused_unsent(fake, connect, request_id):
    with pytest.raises(ArgumentError, match="request_id"):
        await connect(fake.address).call("predict", b"x", request_id=request_id)
    assert fake.received == []


async def test_wrong_arguments_are_refused_unsent(fake, connect, tmp_path):
    client = connect(fake.address)
    with pytest.raises(FileNotFoundError):
        await client.call("predict", tmp_path / "none.jpg")
    with pytest.raises(ArgumentError):
        await client.call("predict", None)
    with pytest.raises(ArgumentError):
        await client.call("predict", b"x", timeout=-1)
    with pytest.raises(ArgumentError):
        await client.call("predict_many", "cat.jpg")
    assert fake.received == []


def test_sync_streams_refuse_wrong_arguments_at_once(fake):
    with Client(fake.address) as client, pytest.raises(ArgumentError):
        client.stream(None)


def test_both_clients_have_the_same_methods_and_parameters():
    def public(kind):
        return {
            name: [str(each) for each in inspect.signature(member).parameters.values()]
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") or name == "__init__"
        }

    assert public(Client) == public(AsyncClient)


def test_the_client_imports_nothing_heavy():
    code = (
        "import sys, xai_client; print('rich' in sys.modules); import xai_client.command.main;"
        "print(sorted({name.split('.')[0] for name in sys.modules}"
        " & {'mindspore', 'xai_sidecar', 'matplotlib', 'scipy', 'pydantic', 'xai_client'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.split("\n")[:2] == ["False", "['xai_client']"], result.stderr


@pytest.mark.parametrize("timeout", ["soon", -1, 0, True])
def test_a_watch_refuses_a_wrong_timeout_at_once(timeout):
    with Client("127.0.0.1:1") as client, pytest.raises(ArgumentError, match="timeout"):
        client.watch_samples(timeout=timeout)
