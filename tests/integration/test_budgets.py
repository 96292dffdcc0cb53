"""Budgets and conditions over a real socket: what is made of the time there is, and what is left out."""

import math
import re
import time

import grpc
import numpy as np
import pytest

from xai_client import Client, Explain, MapWithheldError, PreconditionError
from xai_proto import explanation_pb2 as pb
from xai_sidecar.zoo.sample import sample_picture

ASKED = "explanations[0]"
OVERHEAD = 2.0
"""Seconds that a call may take besides its budget."""

TRIES = 3
"""Of a call that is late, which one may be on a machine that does other things as well."""

MANY = 20_000
RISE = pb.RiseParameters(mask_count=MANY)
ENDLESS = {
    "rise": {"rise": RISE},
    "rise_plus": {"rise_plus": pb.RisePlusParameters(rise=RISE)},
    "occlusion": {"occlusion": pb.OcclusionParameters(window_size=16, stride=2)},
}
PLANNED = {"rise": MANY, "rise_plus": 2 + MANY, "occlusion": 1 + 105**2}


def within(seconds, explainer="rise", **fields):
    """An explanation that there is only some time for; one that takes a minute, unless said otherwise."""
    wanted = pb.ExplanationRequest(explainer=explainer, **{**ENDLESS.get(explainer, {}), **fields})
    wanted.budget.FromNanoseconds(round(seconds * 1e9))
    return wanted


def explain(stub, image, *wanted, timeout=60):
    """The prediction of a call, and the seconds that it took."""
    started = time.monotonic()
    answer = stub.Predict(pb.PredictRequest(images=[image], explanations=wanted), timeout=timeout)
    return answer.predictions[0], time.monotonic() - started


def explained(stub, image, *wanted):
    """The explanations of a call, and the seconds that it took."""
    prediction, seconds = explain(stub, image, *wanted)
    return prediction.explanations, seconds


def elapsed(explanation):
    return explanation.elapsed.ToNanoseconds() / 1e9


@pytest.fixture
def in_time(allowance):
    """The answer of the first attempt that is not late; an attempt returns its answer, and by how much it is."""

    def in_time(attempt):
        lateness = []
        while len(lateness) < TRIES:
            answer, late = attempt()
            if late <= allowance(0):
                return answer
            lateness.append(late)
        pytest.fail(f"each of the attempts was late, by {lateness} s")

    return in_time


@pytest.fixture(scope="module")
def cat(photo):
    return pb.Image(encoded=photo)


@pytest.fixture(scope="module")
def noise():
    """A picture like none that the OoD net was trained on."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    return pb.Image(pixels=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=pixels.shape, data=pixels.tobytes()))


@pytest.fixture(scope="module")
def seconds_for(stub):
    """What some passes of RISE take on an idle device, as measured at start."""
    info = stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=60).model
    (cost,) = (one.cost for one in info.explainers if one.name == "rise")
    return lambda passes: passes * cost.idle_duration.ToNanoseconds() / 1e9 / cost.pass_count


# ------------------------------------------------------------------------------------------------ cut short


@pytest.mark.timed
@pytest.mark.parametrize("explainer", ENDLESS)
def test_a_budget_is_kept_to(explainer, server, stub, cat, map_of, read_metrics, in_time):
    counted = ("xai_explanations_total", explainer, "truncated")

    def attempt():
        before = read_metrics(server.http)[counted]
        (explanation,), seconds = explained(stub, cat, within(1.5, explainer))
        assert read_metrics(server.http)[counted] == before + 1
        late = "As others want" in explanation.status_message  # there was no map when it was over
        return explanation, math.inf if late else max(elapsed(explanation) - 1.5, seconds - 1.5 - OVERHEAD)

    explanation = in_time(attempt)
    assert (explanation.status, explanation.truncated) == (pb.EXPLANATION_STATUS_TRUNCATED, True)
    told = re.fullmatch(r"Its budget ended it after ([\d,]+) of at most ([\d,]+) passes\.", explanation.status_message)
    passes, planned = (int(number.replace(",", "")) for number in told.groups())
    assert (passes, planned) == (explanation.pass_count, PLANNED[explainer])
    assert 11 <= passes < planned
    (one,) = explanation.maps
    assert one.class_id == 282
    assert one.status in (pb.MAP_STATUS_OK, pb.MAP_STATUS_UNRELIABLE)  # on a machine that is busy with other things
    assert np.isfinite(map_of(one)).all()
    assert one.HasField("standard_error") == (explainer != "occlusion")
    if explainer != "occlusion":
        assert one.standard_error > 0
        assert (one.status == pb.MAP_STATUS_UNRELIABLE) == (passes < 32 or one.standard_error > 0.7)


@pytest.mark.timed
def test_more_time_makes_a_better_map(stub, cat, map_of):
    (some,), _ = explained(stub, cat, pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=64)))
    budgets = (0.2 + elapsed(some), 0.2 + 4 * elapsed(some))  # for 64 masks as this machine is now, and for 256
    little, much = (explain(stub, cat, within(budget, seed=5))[0].explanations[0] for budget in budgets)
    assert little.pass_count < much.pass_count
    assert little.maps[0].standard_error > much.maps[0].standard_error
    assert np.corrcoef(map_of(little.maps[0]).ravel(), map_of(much.maps[0]).ravel())[0, 1] > 0.5


@pytest.mark.timed
def test_a_truncated_map_is_that_of_the_masks_there_was_time_for(stub, cat, map_of):
    cut = explain(stub, cat, within(3, seed=5))[0].explanations[0]
    complete = pb.ExplanationRequest(explainer="rise", seed=5, rise=pb.RiseParameters(mask_count=cut.pass_count))
    whole = explain(stub, cat, complete)[0].explanations[0]
    got, want = (map_of(one.maps[0]).ravel() for one in (cut, whole))
    assert np.corrcoef(got, want)[0, 1] > 0.9
    if cut.pass_count >= 64:  # of fewer, an error is known to be no closer
        assert cut.maps[0].standard_error == pytest.approx(whole.maps[0].standard_error, rel=0.5)


@pytest.mark.timed
def test_each_explanation_has_a_budget_of_its_own(stub, cat, in_time):
    wanted = [within(0.7), within(20, "gradcam"), within(1.4, "occlusion"), within(0.7, name="other")]

    def attempt():
        (short, quick, long, other), seconds = explained(stub, cat, *wanted)
        assert quick.status == pb.EXPLANATION_STATUS_COMPLETE
        assert {one.status for one in (short, long, other)} == {pb.EXPLANATION_STATUS_TRUNCATED}
        late = (elapsed(one) - budget for one, budget in ((short, 0.7), (long, 1.4), (other, 0.7)))
        return None, max(*late, seconds - 1.4 - OVERHEAD)

    in_time(attempt)


@pytest.mark.timed
def test_a_deadline_before_the_budgets_end_loses_no_map(stub, cat):
    """The map comes back in time, and not the failure that the deadline would be otherwise."""
    prediction, _ = explain(stub, cat, within(60), timeout=4)
    assert prediction.explanations[0].status == pb.EXPLANATION_STATUS_TRUNCATED
    assert prediction.explanations[0].maps


# ------------------------------------------------------------------------------------------------ enough and too little


@pytest.mark.timed
def test_what_is_done_before_its_budget_ends_is_complete(stub, cat, map_of):
    small = {"seed": 5, "rise": pb.RiseParameters(mask_count=48)}
    prediction, _ = explain(stub, cat, within(30, "gradcam"), within(30, "rise", **small))
    plain, _ = explain(stub, cat, pb.ExplanationRequest(explainer="gradcam"))
    for one in prediction.explanations:
        assert (one.status, one.truncated) == (pb.EXPLANATION_STATUS_COMPLETE, False)
        assert one.status_message == ""
    gradcam, rise = prediction.explanations
    np.testing.assert_array_equal(map_of(gradcam.maps[0]), map_of(plain.explanations[0].maps[0]))
    unhurried = explain(stub, cat, pb.ExplanationRequest(explainer="rise", **small))[0].explanations[0]
    np.testing.assert_array_equal(map_of(rise.maps[0]), map_of(unhurried.maps[0]))
    assert rise.pass_count == 48


@pytest.mark.timed
@pytest.mark.parametrize("explainer", [*ENDLESS, "gradcam"])
def test_a_budget_for_nothing_is_refused_at_once(explainer, server, stub, cat, refused, read_metrics, allowance):
    before = read_metrics(server.http)
    started = time.monotonic()
    refusal = refused(stub.Predict, pb.PredictRequest(images=[cat], explanations=[within(1e-4, explainer)]))
    assert time.monotonic() - started < allowance(1.0)
    refusal.check("FAILED_PRECONDITION", "PRECONDITION", f"{ASKED}.budget")
    assert "first map takes" in refusal.message
    after = read_metrics(server.http)
    rows = [key for key in before if key[0] == "xai_launch_rows_total"]
    assert [after[key] for key in rows] == [before[key] for key in rows]


@pytest.mark.timed
def test_among_many_a_first_map_comes_soon(stub, cat, seconds_for, server, read_metrics, allowance):
    """A dozen others share the device, but first maps go first; or else the budget is refused."""
    some = pb.RiseParameters(mask_count=10_000)
    others = [within(30, name=str(number), rise=some) for number in range(12)]
    call = stub.Predict.future(pb.PredictRequest(images=[cat], explanations=others), timeout=60)
    while read_metrics(server.http)["xai_open_explanations",] < 12:
        assert not call.done()
    budget = 0.5 + 1.3 * seconds_for(32)
    try:
        prediction, seconds = explain(stub, cat, within(budget))
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "the first map of rise takes about" in error.details()
    else:
        assert seconds <= budget + allowance(OVERHEAD)
        (explanation,) = prediction.explanations
        assert (explanation.status, explanation.truncated) == (pb.EXPLANATION_STATUS_TRUNCATED, True)
        assert explanation.maps
    finally:
        call.cancel()


@pytest.mark.timed
def test_budgets_through_the_sdk(server, photo, in_time):
    """Of as many masks as would take minutes: it is the budget that counts, not the client's timeout of 30 s."""
    with Client(server.grpc) as client:

        def attempt():
            answer = client.predict(photo, explain=[Explain("rise", masks=MANY, budget=1.0)])
            return answer, answer.explanations["rise"].elapsed - 1.0

        answer = in_time(attempt)
        with pytest.raises(PreconditionError) as caught:
            client.predict(photo, explain=["gradcam", Explain("rise", budget=1e-4)])
    explanation = answer.explanations["rise"]
    assert (explanation.status, explanation.truncated) == ("truncated", True)
    assert explanation.standard_error > 0
    assert explanation.overlay(photo).size == (451, 300)
    assert caught.value.field == "explanations[1].budget"


# ------------------------------------------------------------------------------------------------ conditions


def on(**condition):
    return pb.ExplanationRequest(explainer="gradcam", condition=pb.Condition(**condition))


@pytest.mark.parametrize(("limit", "holds"), [(0.37, False), (0.4, True), (1, True)])
def test_a_condition_on_the_probability(limit, holds, server, stub, cat, read_metrics):
    counted = ("xai_explanations_total", "gradcam", "skipped")
    before = read_metrics(server.http)[counted]
    prediction, _ = explain(stub, cat, on(top_probability_below=limit))
    check(prediction.explanations[0], holds, rf"the top probability is 0\.38\d*, not below {limit}")
    assert not prediction.HasField("ood")
    assert read_metrics(server.http)[counted] == before + (not holds)


def check(explanation, holds, why):
    """Whether it was made, or skipped with the reason."""
    if holds:
        assert explanation.status == pb.EXPLANATION_STATUS_COMPLETE
        assert (explanation.status_message, len(explanation.maps), explanation.pass_count) == ("", 1, 1)
    else:
        assert explanation.status == pb.EXPLANATION_STATUS_SKIPPED
        assert re.fullmatch(rf"Its condition did not hold: {why}\.", explanation.status_message)
        assert (len(explanation.maps), explanation.pass_count, explanation.truncated) == (0, 0, False)


def test_a_condition_on_the_ood_percentile(stub, cat, noise):
    """It is looked at whether or not the caller asked for the score."""
    scored = stub.Predict(pb.PredictRequest(images=[cat], ood=True), timeout=60).predictions[0].ood
    limit = scored.percentile - 0.5
    for image, holds in ((cat, False), (noise, True)):
        prediction, _ = explain(stub, image, on(ood_percentile_below=limit))
        check(prediction.explanations[0], holds, rf"the OoD percentile is [\d.]+, not below {limit:.4g}")
        assert not prediction.HasField("ood")


def test_of_two_conditions_either_is_enough(stub, cat, noise):
    sure = {"top_probability_below": 0.001}
    neither = explain(stub, cat, on(ood_percentile_below=0.001, **sure))[0].explanations[0]
    check(
        neither, False, r"the top probability is .*, not below 0\.001, and the OoD percentile is .*, not below 0\.001"
    )
    for image, condition in ((noise, {"ood_percentile_below": 50, **sure}), (cat, {"top_probability_below": 0.9})):
        wanted = on(**{"ood_percentile_below": 0.001, **condition})
        check(explain(stub, image, wanted)[0].explanations[0], True, "")


def test_each_picture_has_its_own_answer_to_a_condition(stub, cat):
    coffee = pb.Image(encoded=sample_picture("coffee").read_bytes())
    request = pb.PredictRequest(images=[coffee, cat, coffee], explanations=[on(top_probability_below=0.5)])
    answer = stub.Predict(request, timeout=60)
    for prediction, holds in zip(answer.predictions, (False, True, False), strict=True):
        check(prediction.explanations[0], holds, r"the top probability is 0\.9\d*, not below 0\.5")


def test_conditions_through_the_sdk(server, photo):
    with Client(server.grpc, timeout=60) as client:
        wanted = [Explain("rise", masks=MANY, top_probability_below=0.1), "gradcam"]
        answer = client.predict(photo, explain=wanted)
    skipped = answer.explanations["rise"]
    assert (skipped.status, skipped.maps, skipped.passes) == ("skipped", (), 0)
    with pytest.raises(MapWithheldError) as caught:
        skipped.saliency  # noqa: B018 - it is the property that raises
    assert caught.value.reason == "skipped"
    assert answer.explanations["gradcam"].status == "complete"
