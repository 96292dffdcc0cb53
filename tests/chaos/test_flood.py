"""More than a server takes on: what it refuses it refuses at once and says when to come back, the rest it answers."""

import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from xai_proto import explanation_pb2 as pb

pytestmark = pytest.mark.timed

CALLS = 60
MANY = 16  # pictures or explanations of each call; a server takes 256 of either


@pytest.fixture(scope="module")
def server(start_misbehaving):
    with start_misbehaving() as running:
        yield running


@pytest.fixture(scope="module")
def stub(server, connect):
    with connect(server.grpc) as stub:
        yield stub


@pytest.fixture(scope="module")
def small():
    """A small picture, for which there is little to decode."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    return pb.Image(pixels=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=pixels.shape, data=pixels.tobytes()))


def hurried(number):
    """An explanation for which there is little time: so many of them would take minutes otherwise."""
    wanted = pb.ExplanationRequest(
        explainer="rise", name=f"{number}", encoding=pb.MAP_ENCODING_PNG, rise=pb.RiseParameters(mask_count=1000)
    )
    wanted.budget.FromMilliseconds(1500)
    return wanted


def test_a_queue_driven_full(server, stub, small, read_refusal, check_unharmed):
    """By calls for predictions, for explanations, and for explanations as they come."""
    plain = pb.PredictRequest(images=[small], top_k=3)
    many = pb.PredictRequest(images=[small] * MANY, top_k=3)
    explained = pb.PredictRequest(images=[small], top_k=3, explanations=map(hurried, range(MANY)))
    expected = stub.Predict(plain, timeout=60).predictions[0].classes

    def predict():
        return stub.Predict(many, timeout=120).predictions, []

    def explain():
        answer = stub.Predict(explained, timeout=120)
        return answer.predictions, answer.predictions[0].explanations

    def stream():
        first, *events = stub.PredictStream(pb.PredictStreamRequest(request=explained), timeout=120)
        assert events[-1].HasField("finished")
        maps = [event.explained.explanation for event in events if event.HasField("explained")]
        return first.predicted.predictions, [one for one in maps if one.status != pb.EXPLANATION_STATUS_PARTIAL]

    asking = [(predict, MANY, 0), (explain, 1, MANY), (stream, 1, MANY)] * (CALLS // 3)
    answered, refusals = Counter(), Counter()
    started = time.monotonic()
    with ThreadPoolExecutor(CALLS) as pool:
        calls = [pool.submit(ask) for ask, _, _ in asking]
        for call, (ask, images, explanations) in zip(calls, asking, strict=True):
            error = call.exception(timeout=120)
            if isinstance(error, grpc.RpcError):
                check_refusal(read_refusal(error))
                refusals[ask] += 1
                continue
            predictions, maps = call.result()
            assert [one.classes for one in predictions] == [expected] * images
            assert len(maps) == explanations
            assert {one.status for one in maps} <= {pb.EXPLANATION_STATUS_TRUNCATED, pb.EXPLANATION_STATUS_COMPLETE}
            answered[ask] += 1
    assert time.monotonic() - started < 100
    assert answered[predict] > 0
    assert answered[explain] + answered[stream] > 0
    assert all(refusals[ask] for ask in (explain, stream)), "it was not driven full"
    check_unharmed(server, plain)


def check_refusal(refusal):
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert 0.1 <= refusal.retry_seconds <= 30
    if refusal.fields:  # taken on, it would not have had a first map in time
        (field,) = refusal.fields
        assert re.fullmatch(r"(request\.)?explanations\[\d+\]\.budget", field)
    else:
        assert "in progress" in refusal.message
