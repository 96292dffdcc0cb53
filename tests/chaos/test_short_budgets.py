"""Short budgets on a device that others want: a map, however rough, or a refusal that says what one takes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from xai_proto import explanation_pb2 as pb

pytestmark = pytest.mark.timed

TRIES = 12
CALLERS = 6


@pytest.fixture(scope="module")
def server(start_misbehaving):
    with start_misbehaving() as running:
        yield running


@pytest.fixture(scope="module")
def crowd(server, connect, picture):
    """Callers who ask for long explanations, one after the other."""
    enough = threading.Event()
    wanted = pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=20_000))
    wanted.budget.FromSeconds(60)

    def ask(number):
        with connect(server.grpc) as stub:
            call = stub.Predict.future(pb.PredictRequest(images=[picture(number)], explanations=[wanted]), timeout=120)
            enough.wait()
            call.cancel()

    with ThreadPoolExecutor(CALLERS) as pool:
        for number in range(CALLERS):
            pool.submit(ask, number)
        yield
        enough.set()


def bought(stub, picture, explainer, seconds):
    """What a budget buys: a status, or the code and text of a refusal."""
    wanted = pb.ExplanationRequest(explainer=explainer)
    wanted.budget.FromNanoseconds(round(seconds * 1e9))
    try:
        answer = stub.Predict(pb.PredictRequest(images=[picture], explanations=[wanted]), timeout=30)
    except grpc.RpcError as error:
        return error.code(), error.details()
    (explanation,) = answer.predictions[0].explanations
    assert explanation.maps, explanation.status_message
    return explanation.maps[0].status, explanation


@pytest.mark.parametrize(("explainer", "seconds"), [("rise", 0.2), ("rise", 0.5), ("gradcam", 0.2)])
def test_every_budget_yields_a_map_or_is_refused(explainer, seconds, server, crowd, connect, picture):
    with connect(server.grpc) as stub, ThreadPoolExecutor(5) as pool:
        came = list(pool.map(lambda n: bought(stub, picture(n), explainer, seconds), range(TRIES)))
    maps = [found for status, found in came if isinstance(found, pb.Explanation)]
    refused = [found for found in came if not isinstance(found[1], pb.Explanation)]
    assert len(maps) + len(refused) == TRIES
    assert len(maps) > TRIES / 2, refused
    for code, text in refused:
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"the first map of {explainer} takes about" in text
    for one in maps:
        (each,) = one.maps
        assert each.status in (pb.MAP_STATUS_OK, pb.MAP_STATUS_UNRELIABLE)
        if explainer == "rise" and one.pass_count < 32:
            assert each.status == pb.MAP_STATUS_UNRELIABLE
