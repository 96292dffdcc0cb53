"""Crowds of callers with a deadline: what is taken on is finished in time, and the others know at once."""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from xai_proto import explanation_pb2 as pb

pytestmark = pytest.mark.timed

MASKS = 1500
"""At 0.75 ms a mask when nothing else wants the machine: 1.1 s."""

TIMEOUT = 4.0


@pytest.fixture(scope="module")
def server(start_misbehaving):
    with start_misbehaving() as running:
        yield running


@pytest.fixture(scope="module")
def asked(server, connect, picture):
    """Calls at once, each with its request; returns of each the seconds, and the answer or the error."""

    def call(stub, number, wanted, timeout, started):
        request = pb.PredictRequest(images=[picture(number)], explanations=wanted)
        try:
            return stub.Predict(request, timeout=timeout), time.monotonic() - started
        except grpc.RpcError as error:
            return error, time.monotonic() - started

    def asked(*calls):
        with connect(server.grpc, ("grpc.enable_retries", 0)) as stub, ThreadPoolExecutor(len(calls)) as pool:
            stub.Predict(pb.PredictRequest(images=[picture(0)]), timeout=60)
            started = time.monotonic()
            futures = [pool.submit(call, stub, number, *each, started) for number, each in enumerate(calls)]
            return [future.result() for future in futures]

    return asked


def rise(masks=MASKS, **fields):
    return pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=masks), **fields)


@pytest.fixture
def told(read_refusal):
    """The seconds after which a refused caller is to come back with a new call; this one would be refused again."""

    def told(error):
        refusal = read_refusal(error)
        assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
        assert refusal.metadata["grpc-retry-pushback-ms"] == "-1"
        return refusal.retry_seconds

    return told


def divided(came):
    """What was answered, and the errors of what was refused, each with its seconds."""
    answers = [each for each in came if isinstance(each[0], pb.PredictResponse)]
    return answers, [each for each in came if each not in answers]


@pytest.mark.parametrize("callers", [6, 20])
def test_what_is_accepted_is_finished_and_the_others_know_at_once(
    callers, asked, told, server, read_metrics, check_unharmed, picture
):
    before = read_metrics(server.http)["xai_launch_rows_total", "masked_forward"]
    answers, refused = divided(asked(*[([rise()], TIMEOUT)] * callers))
    assert answers
    assert refused, "not all can be done in time"
    delivered = 0
    for answer, _ in answers:
        (explanation,) = answer.predictions[0].explanations
        assert explanation.status in (pb.EXPLANATION_STATUS_COMPLETE, pb.EXPLANATION_STATUS_TRUNCATED)
        assert len(explanation.maps) == 1
        delivered += explanation.pass_count
    assert delivered >= 0.9 * (read_metrics(server.http)["xai_launch_rows_total", "masked_forward"] - before)
    for error, seconds in refused:
        assert 0.1 <= told(error) < 10 * callers
        assert seconds < TIMEOUT / 2
    check_unharmed(server, pb.PredictRequest(images=[picture(0)]))


def test_who_comes_back_when_told_to_is_served(asked, told):
    """Two that together are too much; the second one comes back, and is taken."""
    (_, refused) = divided(asked(*[([rise(2 * MASKS)], TIMEOUT)] * 2))
    assert refused
    error, _ = refused[0]
    time.sleep(max(0.0, told(error)))
    answers, refused = divided(asked(([rise(2 * MASKS)], TIMEOUT)))
    assert (len(answers), refused) == (1, [])


def test_what_turns_out_too_slow_ends_early_with_a_map(asked):
    """With a tolerance it may take 128 masks or 100,000, and is taken on; who has no deadline has turns meanwhile."""
    hopeless = rise(100_000)
    hopeless.rise.tolerance = 1e-4
    none, late = asked(([rise()], None), ([hopeless], TIMEOUT))
    (explanation,) = late[0].predictions[0].explanations
    assert late[1] < TIMEOUT
    assert (explanation.status, len(explanation.maps)) == (pb.EXPLANATION_STATUS_TRUNCATED, 1)
    assert "The call's deadline ended it" in explanation.status_message
    assert none[0].predictions[0].explanations[0].pass_count == MASKS


def test_a_quick_one_is_not_kept_waiting_by_promises(asked):
    """Grad-CAM beside callers who may have all of the time that can be promised."""
    came = asked(*[([rise()], TIMEOUT)] * 6, ([pb.ExplanationRequest(explainer="gradcam")], None))
    answer, seconds = came[-1]
    assert answer.predictions[0].explanations[0].maps
    assert seconds < TIMEOUT / 4
