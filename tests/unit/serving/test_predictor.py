"""Predicting and explaining on an engine: activations, budgets, conditions, and what is cancelled with what."""

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest
from structlog.testing import capture_logs

from xai_sidecar.engine.batching import in_batches
from xai_sidecar.engine.work import MaskedForward, drive
from xai_sidecar.errors import DeviceError, ExpiredError, ShuttingDownError, TensorError
from xai_sidecar.explainers.activations import sigmoid, softmax
from xai_sidecar.explainers.base import Context, MapStatus
from xai_sidecar.explainers.occlusion import Occlusion
from xai_sidecar.explainers.rise import Rise, RisePlus
from xai_sidecar.serving.admission import AdmittedRequest
from xai_sidecar.serving.core import deadline_of
from xai_sidecar.serving.load import ExplanationLoad
from xai_sidecar.serving.plan import Condition, Stage, Targets
from xai_sidecar.serving.predictor import together

FOREVER = float("inf")

EXTREME = np.array([3e38, -3e38, 0, 88, -104, 1e4], np.float32)


def array(*values):
    return np.array(values, np.float32)


def test_softmax():
    np.testing.assert_allclose(softmax(array(0, np.log(3))), [0.25, 0.75], rtol=1e-6)
    np.testing.assert_allclose(softmax(array(1000, 1000 + np.log(3))), [0.25, 0.75], rtol=1e-4)
    assert softmax(array(5)).tolist() == [1]
    assert softmax(array(1, 2)).dtype == np.float64


def test_sigmoid():
    np.testing.assert_allclose(sigmoid(array(0, np.log(3), -np.log(3))), [0.5, 0.75, 0.25], rtol=1e-6)
    assert sigmoid(array(1)).dtype == np.float64


@pytest.mark.filterwarnings("error")
def test_extreme_logits():
    for activation in (softmax, sigmoid):
        probabilities = activation(EXTREME)
        assert np.isfinite(probabilities).all()
        assert probabilities.min() >= 0
        assert probabilities.max() <= 1
    assert softmax(EXTREME).tolist() == [1, 0, 0, 0, 0, 0]
    assert sigmoid(EXTREME)[[0, 1]].tolist() == [1, 0]
    assert 0 < sigmoid(array(-10))[0] < 1e-4


def test_deadlines():
    assert deadline_of(None) == float("inf")
    assert deadline_of(2) - deadline_of(1) == pytest.approx(1, abs=0.1)


def value_of(predictor, name, **labels):
    return predictor._telemetry.registry.get_sample_value(name, labels)


def driven(net, plan, image, targets):
    """What an explanation comes to without an engine."""
    context = Context(softmax, plan.seed)
    steps = plan.explainer.explain(image.array, np.array(targets, np.int32), plan.parameters, context)
    return drive(steps, in_batches(net.run, 4))


# ------------------------------------------------------------------------------------------------ predicting


async def test_predictions_come_in_order(start, make_net, picture):
    net = make_net()
    predictor = start(net)
    pictures = [picture(seed) for seed in range(5)]
    for one, prepared in zip(await predictor.predict(pictures, FOREVER), pictures, strict=True):
        logits = net.logits(prepared.array)
        np.testing.assert_array_equal(one.logits, logits)
        powers = np.exp(logits - logits.max())
        np.testing.assert_allclose(one.probabilities, powers / powers.sum(), rtol=1e-5)
        assert (one.prepared, one.ood, one.probabilities.dtype) == (prepared, None, np.float32)
    assert {kind for kind, _ in net.launches} == {"forward"}
    assert value_of(predictor, "xai_images_total") == 5


async def test_predictions_with_ood_scores(start, make_net, picture):
    net = make_net()
    predictor = start(net, "sigmoid")
    (one,) = await predictor.predict([picture()], FOREVER, ood=True)
    assert one.ood == (pytest.approx(float(picture().array.sum())), 12.5)
    np.testing.assert_allclose(one.probabilities, 1 / (1 + np.exp(-net.logits(picture().array))), rtol=1e-5)
    assert [kind for kind, _ in net.launches] == ["ood_score"]


@pytest.mark.parametrize("ood", [False, True])
async def test_a_model_that_answers_nan(start, make_net, picture, ood):
    broken = picture(1)
    broken.array[0, 5, 7] = np.nan
    predictor = start(make_net())
    with pytest.raises(DeviceError, match="NaN or infinite") as caught:
        await predictor.predict([picture(0), broken, picture(2)], FOREVER, ood=ood)
    assert caught.value.field == "images[1]"


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize("value", [3e38, -3e38, 1e30])
async def test_a_model_input_that_no_picture_comes_to(start, make_net, picture, value):
    """It overflows in the model, which is no fault of the device's."""
    huge = picture(1)
    huge.array[:] = value
    with pytest.raises(TensorError, match=r"of up to \de\+3\d, with NaN") as caught:
        await start(make_net()).predict([picture(0), huge], FOREVER)
    assert caught.value.field == "images[1].model_input"
    large = picture(1)
    large.array[:] = 65535
    assert len(await start(make_net()).predict([large], FOREVER)) == 1


async def test_an_ood_net_that_answers_nan(start, make_net, picture):
    net = make_net()
    run, predictor = net.run, start(net)
    net.run = lambda kind, rows: (np.full(len(rows[0]), np.nan, np.float32), *run(kind, rows)[1:])
    with pytest.raises(DeviceError, match="NaN or infinite") as caught:
        await predictor.predict([picture()], FOREVER, ood=True)
    assert caught.value.field == "images[0]"


async def test_a_prediction_that_is_too_late(start, make_net, picture, idle):
    net = make_net()
    predictor = start(net)
    net.gate.clear()
    with pytest.raises(ExpiredError):
        await predictor.predict([picture(), picture()], time.monotonic() + 0.05)
    net.gate.set()
    await idle(predictor.engine)


# ------------------------------------------------------------------------------------------------ explaining


async def test_explanations_come_by_picture_in_the_order_of_the_plans(start, make_net, picture, make_plan):
    net = make_net()
    predictor = start(net)
    pictures = [picture(seed) for seed in range(2)]
    plans = [
        make_plan(Rise(), "long", Targets(class_ids=(3, 2)), seed=7, mask_count=150),
        make_plan(Occlusion(), "short"),
        make_plan(RisePlus(), "weighted", seed=8, mask_count=40),
    ]
    predicted = await predictor.predict(pictures, FOREVER)
    rows = await predictor.explain(predicted, plans, FOREVER)
    assert [[one.plan.name for one in row] for row in rows] == [["long", "short", "weighted"]] * 2
    for prepared, row in zip(pictures, rows, strict=True):
        # 150 masks; the picture and 4 x 6 windows of 3 x 3; two ends and 40 masks
        assert [one.pass_count for one in row] == [150, 25, 42]
        for one, targets in zip(row, ([3, 2], [2], [2]), strict=True):
            expected = driven(net, one.plan, prepared, targets)
            np.testing.assert_array_equal(one.saliency.maps, expected.maps)
            assert one.targets.tolist() == targets
            assert (one.stage, one.message) == (Stage.COMPLETE, "")
            assert one.seconds > 0
    for name in ("rise", "occlusion", "rise_plus"):
        assert value_of(predictor, "xai_explanations_total", explainer=name, status="complete") == 2
        assert value_of(predictor, "xai_explanation_duration_seconds_count", explainer=name) == 2
    assert value_of(predictor, "xai_maps_total", explainer="rise", status="ok") == 4


async def test_nothing_asked_for(start, make_net, predicted, make_plan):
    predictor = start(make_net())
    assert await predictor.explain([predicted(), predicted()], [], FOREVER) == [[], []]
    assert await predictor.explain([], [make_plan()], FOREVER) == []


async def test_explanations_that_are_not_made(start, make_net, predicted, make_plan):
    net = make_net()
    predictor = start(net)
    sure = make_plan(name="sure", mask_count=64, condition=Condition(top_probability_below=0.5))
    odd = make_plan(name="odd", mask_count=64, condition=Condition(ood_percentile_below=12.5))
    none = make_plan(name="none", mask_count=64, targets=Targets(min_probability=1.0))
    made = make_plan(
        name="made", mask_count=64, condition=Condition(top_probability_below=0.5, ood_percentile_below=12.6)
    )
    one = predicted(ood=(0.0, 12.5))
    assert one.probabilities.max() > 0.9
    ((skipped, unlike, targetless, explained),) = await predictor.explain([one], [sure, odd, none, made], FOREVER)
    assert skipped.stage is unlike.stage is Stage.SKIPPED
    assert skipped.message == sure.condition.failure(float(one.probabilities.max()), 12.5)
    assert "the OoD percentile is 12.5, not below 12.5" in unlike.message
    assert (targetless.stage, targetless.message) == (Stage.COMPLETE, "")
    for without in (skipped, unlike, targetless):
        assert (without.pass_count, without.seconds, without.targets.tolist()) == (0, 0, [])
        assert (without.saliency.maps.shape, without.saliency.statuses) == ((0, 6, 8), ())
    assert (explained.stage, explained.pass_count) == (Stage.COMPLETE, 64)
    assert sum(size for _, size in net.launches) == 64
    assert value_of(predictor, "xai_explanations_total", explainer="rise", status="skipped") == 2
    assert value_of(predictor, "xai_explanations_total", explainer="rise", status="complete") == 2
    assert value_of(predictor, "xai_jobs_total", lane="explain", outcome="done") == 1


async def test_a_class_that_is_not_there_is_explained_only_if_it_is_asked_for(start, make_net, picture, make_plan):
    net = make_net()
    predictor = start(net, "sigmoid", least_positive=0.9)
    (one,) = await predictor.predict([picture()], FOREVER)
    highest = one.probabilities.max()
    blank, there = (replace(one, probabilities=one.probabilities * np.float32(f / highest)) for f in (0.5, 0.95))
    default = make_plan(mask_count=64)
    wanted = [Targets(top_count=1), Targets(class_ids=(2,)), Targets(min_probability=0.4)]
    plans = [default, *(make_plan(mask_count=64, targets=targets) for targets in wanted)]
    (without, *asked), with_one = await predictor.explain([blank, there], plans, FOREVER)
    assert (without.stage, without.targets.tolist(), without.pass_count) == (Stage.SKIPPED, [], 0)
    assert without.message == (
        "No class reaches the probability of 0.9 from which on it counts as predicted (the highest is 0.5). "
        "Name class_ids or top_count to have one explained all the same."
    )
    assert [(each.stage, len(each.targets)) for each in asked] == [(Stage.COMPLETE, 1)] * 3
    assert [each.stage for each in with_one] == [Stage.COMPLETE] * 4
    assert value_of(predictor, "xai_explanations_total", explainer="rise", status="skipped") == 1


@pytest.mark.parametrize(
    ("activation", "least", "count"), [("sigmoid", 0.999, 2), ("sigmoid", 0.01, 0), ("softmax", None, 0)]
)
async def test_pictures_without_a_positive_class_are_counted(start, make_net, picture, activation, least, count):
    predictor = start(make_net(), activation, least_positive=least)
    assert value_of(predictor, "xai_images_without_positive_total") == 0
    await predictor.predict([picture(), picture(1)], FOREVER)
    assert value_of(predictor, "xai_images_without_positive_total") == count


async def test_the_admission_is_told_of_jobs(start, make_net, predicted, make_plan, idle):
    net = make_net()
    predictor = start(net)
    plan = make_plan(mask_count=64)
    admitted = AdmittedRequest([ExplanationLoad(plan, 2)])
    await predictor.explain([predicted()], [plan], FOREVER, admitted)
    assert [passes for _, passes, _ in admitted.loads[0].left()] == [64]
    net.gate.clear()
    waiting = asyncio.ensure_future(predictor.explain([predicted()], [plan], FOREVER, admitted))
    await asyncio.sleep(0.01)
    assert [passes for _, passes, _ in admitted.loads[0].left()] == [64]
    waiting.cancel()
    await asyncio.sleep(0)
    net.gate.set()
    await idle(predictor.engine)
    assert list(admitted.loads[0].left()) == []


# ------------------------------------------------------------------------------------------------ budgets


def masks_of(net, one, image):
    """Of how many masks, a multiple of 32 and no more than were run, a map is."""
    for count in range(32, one.pass_count + 1, 32):
        fewer = replace(one.plan, parameters=one.plan.parameters.model_copy(update={"masks": count}))
        if (driven(net, fewer, image, one.targets).maps == one.saliency.maps).all():
            return count
    return 0


async def test_a_budget_buys_the_best_map_so_far(start, make_net, predicted, make_plan, idle, allowance):
    net = make_net(0.005)
    predictor = start(net)
    plan = make_plan(mask_count=100_000, budget=0.4, estimator="plain", targets=Targets(class_ids=(2, 0)))
    began = time.monotonic()
    ((one,),) = await predictor.explain([predicted()], [plan], FOREVER)
    took = time.monotonic() - began
    await idle(predictor.engine)
    assert one.stage is Stage.TRUNCATED
    # On a busy machine, the first map may take longer than the budget, which is then told, too.
    assert one.message.startswith(f"Its budget ended it after {one.pass_count} of at most 100000 passes.")
    assert 0.2 < one.seconds <= took < 0.4 + allowance(0.4)
    assert 64 <= one.pass_count < 0.4 / 0.005 * 8
    assert one.targets.tolist() == [2, 0]
    net.seconds = 0
    assert masks_of(net, one, predicted().prepared) > one.pass_count // 2 - 32
    assert value_of(predictor, "xai_explanations_total", explainer="rise", status="truncated") == 1
    assert value_of(predictor, "xai_jobs_total", lane="explain", outcome="truncated") == 1


async def test_a_budget_that_ends_before_there_is_a_map(start, make_net, predicted, make_plan, idle):
    """The first map comes all the same, late."""
    net = make_net()
    predictor = start(net)
    net.gate.clear()
    plan = make_plan(mask_count=100_000, budget=0.05)
    explaining = asyncio.ensure_future(predictor.explain([predicted()], [plan], FOREVER))
    await asyncio.sleep(0.2)
    assert not explaining.done()
    net.gate.set()
    ((one,),) = await explaining
    assert one.stage is Stage.TRUNCATED
    assert one.pass_count >= 8
    assert one.saliency.maps.shape == (1, 6, 8)
    assert f"Its budget ended it after {one.pass_count} of at most 100000 passes. As others want" in one.message
    assert one.seconds > 0.2
    await idle(predictor.engine)
    assert value_of(predictor, "xai_jobs_total", lane="explain", outcome="truncated") == 1


async def test_a_deadline_before_there_is_a_map(start, make_net, predicted, make_plan, idle):
    net = make_net()
    predictor = start(net)
    net.gate.clear()
    plan = make_plan(mask_count=64, budget=0.05)
    ((one,),) = await predictor.explain([predicted()], [plan], time.monotonic() + 0.4)
    assert (one.stage, one.message) == (Stage.TRUNCATED, "The call's deadline came before there was a map.")
    assert (one.pass_count, one.saliency.maps.shape, one.targets.tolist()) == (0, (0, 6, 8), [])
    assert 0.2 < one.seconds < 1
    net.gate.set()
    await idle(predictor.engine)
    assert value_of(predictor, "xai_explanations_total", explainer="rise", status="truncated") == 1
    assert value_of(predictor, "xai_jobs_total", lane="explain", outcome="truncated") == 1


async def test_explanations_make_do_with_what_they_have_when_the_server_ends(
    start, make_net, predicted, make_plan, idle
):
    net = make_net(0.002)
    predictor = start(net)
    plans = [make_plan(name="plain", mask_count=100_000, estimator="plain"), make_plan(name="b", mask_count=100_000)]
    explaining = asyncio.ensure_future(predictor.explain([predicted()], plans, FOREVER))
    await passed(predictor, 200)
    predictor.engine.wind_up()
    ((plain, other),) = await asyncio.wait_for(explaining, 10)
    for one in (plain, other):
        assert (one.stage, one.targets.tolist()) == (Stage.TRUNCATED, [2])
        assert one.message == f"The server's end ended it after {one.pass_count} of at most 100000 passes."
    await idle(predictor.engine)
    net.seconds = 0
    assert plain.pass_count - masks_of(net, plain, predicted().prepared) <= 32, "all that there was of it"
    with pytest.raises(ShuttingDownError):
        await predictor.explain([predicted()], plans, FOREVER)
    assert len(await predictor.predict([predicted().prepared], FOREVER)) == 1, "which explanations do not keep up"


async def test_without_a_map_when_the_server_ends_another_one_may_have_time(
    start, make_net, predicted, make_plan, idle
):
    net = make_net()
    predictor = start(net)
    net.gate.clear()
    explaining = asyncio.ensure_future(predictor.explain([predicted()], [make_plan(mask_count=64)], FOREVER))
    await asyncio.sleep(0.05)
    predictor.engine.wind_up()
    with pytest.raises(ShuttingDownError, match="before there is a map"):
        await asyncio.wait_for(explaining, 10)
    net.gate.set()
    await idle(predictor.engine)


async def passed(predictor, count):
    """Waits until a job has done so many passes."""
    end = time.monotonic() + 10
    while not any(job.pass_count >= count for job in list(predictor.engine._open)):
        assert time.monotonic() < end
        await asyncio.sleep(0.002)


async def test_explanations_tell_what_they_take(start, make_net, predicted, make_plan):
    """64 masks in batches of 8 at the most, of which one takes 2 ms at the least: 0.25 ms a row is what is measured."""
    predictor = start(make_net(0.002))
    assert predictor.costs.ratio("rise") == 1
    await predictor.explain([predicted()], [make_plan(mask_count=64)], FOREVER)
    assert predictor.costs.ratio("occlusion") == 1
    assert predictor.costs.ratio("rise") > 1
    assert predictor.costs.alone("rise", MaskedForward.kind, 64) > 64 * 0.00025


async def test_what_is_late_ends_before_the_deadline_with_the_best_map_so_far(start, make_net, predicted, make_plan):
    predictor = start(make_net(0.005))
    plan = make_plan(mask_count=100_000, estimator="plain")
    deadline = time.monotonic() + 1.0
    ((one,),) = await predictor.explain([predicted()], [plan], deadline)
    assert time.monotonic() < deadline
    assert (one.stage, len(one.saliency.maps)) == (Stage.TRUNCATED, 1)
    assert one.message == f"The call's deadline ended it after {one.pass_count} of at most 100000 passes."
    assert one.saliency.statuses[0] is (MapStatus.UNRELIABLE if one.pass_count < 32 else MapStatus.OK)


async def test_more_is_set_aside_where_answers_take_longer(start, make_net, predicted, make_plan):
    """An answer that took 0.4 s: 0.9 s are set aside, or a quarter of the time that there is."""
    predictor = start(make_net(0.005))
    plan = make_plan(mask_count=100_000, estimator="plain")
    predictor.answering.took(0.4)
    deadline = time.monotonic() + 2.0
    ((one,),) = await predictor.explain([predicted()], [plan], deadline)
    assert one.stage is Stage.TRUNCATED
    assert one.seconds < 1.5 + 0.2
    assert predictor.answering.before(float("inf")) == float("inf")


async def test_a_budget_that_is_not_spent(start, make_net, predicted, make_plan):
    net = make_net()
    predictor = start(net)
    generous, none = (make_plan(mask_count=64, budget=budget) for budget in (60.0, None))
    ((one, other),) = await predictor.explain([predicted()], [generous, none], FOREVER)
    assert one.stage is other.stage is Stage.COMPLETE
    np.testing.assert_array_equal(one.saliency.maps, other.saliency.maps)


async def test_the_map_of_a_budget_comes_before_the_deadline(start, make_net, predicted, make_plan, idle):
    net = make_net(0.005)
    predictor = start(net)
    plan = make_plan(mask_count=100_000, budget=60.0, estimator="plain")
    deadline = time.monotonic() + 0.6
    ((one,),) = await predictor.explain([predicted()], [plan], deadline)
    assert time.monotonic() < deadline
    assert (one.stage, len(one.saliency.maps)) == (Stage.TRUNCATED, 1)
    net.gate.clear()  # no map by then: an answer all the same, and no ExpiredError
    ((none,),) = await predictor.explain([predicted()], [plan], time.monotonic() + 0.3)
    assert (none.stage, len(none.saliency.maps)) == (Stage.TRUNCATED, 0)
    with pytest.raises(ExpiredError):
        await predictor.explain([predicted()], [make_plan(mask_count=100_000)], time.monotonic() + 0.1)
    net.gate.set()
    await idle(predictor.engine)


# ------------------------------------------------------------------------------------------------ failing, cancelling


async def test_a_failure_cancels_the_rest(start, make_net, predicted, picture, make_plan, idle, complaints):
    complaints()
    net = make_net(0.002)
    predictor = start(net)
    net.poison = np.float32(7)
    bad = picture()
    bad.array[0, 0, 0] = 7
    plans = [make_plan(name="one", mask_count=100_000), make_plan(name="other", mask_count=100_000)]
    with pytest.raises(DeviceError, match="RuntimeError: poisoned"):
        await predictor.explain([predicted(), predicted(bad), predicted()], plans, FOREVER)
    await idle(predictor.engine)
    ended = {
        outcome: value_of(predictor, "xai_jobs_total", lane="explain", outcome=outcome)
        for outcome in ("done", "failed", "cancelled")
    }
    assert ended["done"] == 0
    assert ended["failed"] >= 1
    assert ended["failed"] + ended["cancelled"] == 6
    await still(net, predictor.engine)
    assert complaints() == []


async def test_cancelling_cancels_the_jobs(start, make_net, predicted, make_plan, idle, complaints):
    complaints()
    net = make_net(0.002)
    predictor = start(net)
    with capture_logs() as logs:
        for plans in ([make_plan(mask_count=100_000)], [make_plan(name=name, mask_count=100_000) for name in "abc"]):
            explaining = asyncio.ensure_future(predictor.explain([predicted()], plans, FOREVER))
            while len(predictor.engine._open) < len(plans):
                await asyncio.sleep(0.002)
            explaining.cancel()
            with pytest.raises(asyncio.CancelledError):
                await explaining
            await idle(predictor.engine)
        await still(net, predictor.engine)
    assert value_of(predictor, "xai_jobs_total", lane="explain", outcome="cancelled") == 4
    assert (complaints(), logs) == ([], [])


async def test_what_was_begun_is_cancelled_when_the_rest_cannot_be(start, make_net, predicted, make_plan, idle):
    """As when the server begins to drain between two explanations."""
    predictor = start(make_net(0.002))
    submit = predictor.engine.submit

    def once(*arguments, **options):
        predictor.engine.submit = refuse
        return submit(*arguments, **options)

    def refuse(*arguments, **options):
        raise ShuttingDownError("It is shutting down.")

    predictor.engine.submit = once
    with pytest.raises(ShuttingDownError):
        await predictor.explain([predicted()], [make_plan(name=name, mask_count=100_000) for name in "ab"], FOREVER)
    await idle(predictor.engine)
    assert value_of(predictor, "xai_jobs_total", lane="explain", outcome="cancelled") == 1


async def still(net, engine):
    """Once what is in flight is over, nothing is launched any more."""
    await asyncio.sleep(0.05)
    launches = len(net.launches)
    await asyncio.sleep(0.05)
    assert len(net.launches) == launches


# ------------------------------------------------------------------------------------------------ together


async def test_together():
    async def late(value):
        await asyncio.sleep(0.01 * value)
        return value

    assert await together([]) == []
    assert await together([late(1)]) == [1]
    assert await together([late(2), late(0), late(1)]) == [2, 0, 1]


async def test_the_first_failure_cancels_the_rest(complaints):
    complaints()
    ended = []

    async def endless():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def failing():
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await together([endless(), failing(), failing(), endless()])
    await asyncio.sleep(0.01)
    assert ended == ["cancelled"] * 2
    assert complaints() == []
