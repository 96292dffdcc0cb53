"""Calls that come again, by a real server: one pass for all of them, and the same answer."""

import pytest

from xai_proto import explanation_pb2 as pb


@pytest.fixture(scope="module")
def server(start_misbehaving):
    with start_misbehaving("server.response_cache_bytes=1000000") as running:
        yield running


@pytest.fixture(scope="module")
def stub(server, connect):
    with connect(server.grpc) as stub:
        yield stub


@pytest.fixture
def request_of(photo):
    def request_of(request_id, masks, seed):
        wanted = pb.ExplanationRequest(explainer="rise", seed=seed, rise=pb.RiseParameters(mask_count=masks))
        return pb.PredictRequest(images=[pb.Image(encoded=photo)], explanations=[wanted], request_id=request_id)

    return request_of


@pytest.fixture
def count(server, read_metrics):
    def count(*series):
        return read_metrics(server.http)[series]

    return count


def how(call):
    return dict(call.trailing_metadata()).get("x-repeat")


def test_callers_at_once_share_one_computation(stub, request_of, count, eventually):
    rows = count("xai_launch_rows_total", "masked_forward")
    begun, joined = count("xai_explanations_total", "rise", "complete"), count("xai_repeats_total", "joined")
    request = request_of("shared", 4000, 1)
    first = stub.Predict.future(request, timeout=120)
    eventually(lambda: count("xai_launch_rows_total", "masked_forward") > rows, 30)
    others = [stub.Predict.future(request, timeout=120) for _ in range(2)]
    other = stub.Predict.future(request_of("shared", 16, 1), timeout=120)  # the same id, and another content
    assert len(other.result().predictions[0].explanations[0].maps) == 1
    first.cancel()  # those who have joined get it all the same
    assert others[0].result() == others[1].result()
    assert [how(call) for call in others] == ["joined", "joined"]
    assert how(other) is None
    assert count("xai_repeats_total", "joined") == joined + 2
    assert count("xai_explanations_total", "rise", "complete") == begun + 2
    assert count("xai_launch_rows_total", "masked_forward") - rows <= 4000 + 16


def test_a_repeat_and_the_same_question(stub, request_of, count):
    answer = stub.Predict(request_of("again", 32, 2), timeout=60)
    rows = count("xai_launch_rows_total", "forward")
    repeat = stub.Predict.future(request_of("again", 32, 2), timeout=60)
    assert (repeat.result(), how(repeat)) == (answer, "repeated")
    cached = stub.Predict.future(request_of("another", 32, 2), timeout=60)
    assert cached.result().request_id == "another"
    assert (cached.result().predictions, how(cached)) == (answer.predictions, "cached")
    assert count("xai_launch_rows_total", "forward") == rows
    stub.Predict(request_of("another", 32, 3), timeout=60)
    assert count("xai_launch_rows_total", "forward") > rows


def test_streams_share_one_computation_and_are_sent_again(stub, request_of, count):
    rows, joined = count("xai_launch_rows_total", "masked_forward"), count("xai_repeats_total", "joined")
    request = pb.PredictStreamRequest(request=request_of("stream", 4000, 4))
    first, second = (stub.PredictStream(request, timeout=120) for _ in range(2))
    assert [next(call).WhichOneof("event") for call in (first, second)] == ["predicted"] * 2
    other = pb.PredictStreamRequest(request=request_of("stream", 16, 4))  # the same id, and another content
    assert how_of_stream(other, stub) is None
    first.cancel()  # who has joined gets it all the same
    *_, final, finished = second
    assert finished.HasField("finished")
    assert final.explained.explanation.status == pb.EXPLANATION_STATUS_COMPLETE
    assert count("xai_launch_rows_total", "masked_forward") - rows <= 4000 + 16
    again = stub.PredictStream(request, timeout=60)
    predicted, *rest = again
    assert predicted.HasField("predicted")
    assert rest == [final, finished]
    assert how(again) == "repeated"
    # The one that was begun is not told, and has gone.
    assert count("xai_repeats_total", "joined") - joined == (how(second) == "joined")


def how_of_stream(request, stub):
    call = stub.PredictStream(request, timeout=60)
    assert list(call)[-1].HasField("finished")
    return how(call)
