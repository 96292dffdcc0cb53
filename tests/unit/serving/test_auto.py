"""`explainer: auto`: what a request may say with it, and which explainer it turns out to be."""

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from toys import only

from xai_proto import explanation_pb2 as pb
from xai_sidecar import errors
from xai_sidecar.engine.backend import OodTraining
from xai_sidecar.evaluator.choice import Reason
from xai_sidecar.evaluator.records import SampleKey, ScoreRecord
from xai_sidecar.explainers.occlusion import Occlusion
from xai_sidecar.metrics.base import ScoreStatus
from xai_sidecar.rpc import decode
from xai_sidecar.rpc.interceptors import REQUEST_ID
from xai_sidecar.rpc.parameters import contract_paths
from xai_sidecar.serving.admission import AdmittedRequest
from xai_sidecar.serving.checking import check_request
from xai_sidecar.serving.load import ExplanationLoad
from xai_sidecar.serving.plan import Condition, Stage, Targets

FOREVER = float("inf")
INSERTION = "faithfulness/insertion_auc"
GRADIENTS = ("gradient", "guided_backprop", "deconvolution")
PERTURBING = only("occlusion", "rise", "rise_plus")
BUILT_IN = only(*GRADIENTS, "gradcam", "occlusion", "rise", "rise_plus")
MASKS = "explainers.rise.masks=320"
AUTO = {"weights": {INSERTION: 1.0}, "min_samples": 2, "fallback": "occlusion"}


def read_request(message, model):
    with contract_paths(message):
        return check_request(decode.read_request(message), model)


def request(*explanations, image_count=1, **fields):
    asked = [pb.ExplanationRequest(**{"explainer": "auto", **each}) for each in explanations]
    return pb.PredictRequest(images=[pb.Image(encoded=b"anything")] * image_count, explanations=asked, **fields)


def call(seconds=None):
    metadata = ((REQUEST_ID, "mine"),)
    return SimpleNamespace(
        time_remaining=lambda: seconds, trailing_metadata=lambda: metadata, invocation_metadata=lambda: metadata
    )


# ------------------------------------------------------------------------------------------------ what is asked for


def test_what_it_may_turn_out_to_be(make_model):
    model = make_model(*BUILT_IN)
    wanted = {"targets": pb.Targets(class_ids=[3, 0]), "condition": pb.Condition(top_probability_below=0.5)}
    (plan,) = read_request(request({**wanted, "seed": 9}), model).plans
    assert list(plan.candidates) == [*GRADIENTS, "gradcam", "occlusion", "rise"]
    for name, candidate in plan.candidates.items():
        assert candidate.explainer.name == name
        assert candidate.parameters == model.explainers[name].defaults
        assert (candidate.name, candidate.seed, candidate.targets.class_ids) == ("auto", 9, (3, 0))
        assert candidate.condition == Condition(top_probability_below=0.5)
        assert not candidate.candidates
    assert [candidate.counts.most for candidate in plan.candidates.values()] == [2, 2, 2, 2, 25, 1000]
    assert plan.explainer.name in (*GRADIENTS, "gradcam")  # those are the quickest
    assert plan.counts.most == 2


def test_one_seed_for_whatever_it_turns_out_to_be(model):
    one, other = (read_request(request({}), model).plans[0] for _ in range(2))
    assert len({candidate.seed for candidate in one.candidates.values()} | {one.seed}) == 1
    assert one.seed != other.seed


def test_names(model):
    plans = read_request(request({}, {"name": "mine", "encoding": pb.MAP_ENCODING_PNG}), model).plans
    assert [plan.name for plan in plans] == ["auto", "mine"]
    with pytest.raises(errors.InvalidRequestError) as caught:
        read_request(request({}, {}), model)
    assert caught.value.field == "explanations[1].name"


def test_only_what_can_be_used(make_model):
    def names(*overrides, **options):
        return list(read_request(request({}), make_model(*overrides, **options)).plans[0].candidates)

    assert names(*PERTURBING) == ["occlusion", "rise"]
    assert names(*PERTURBING, ood=OodTraining(100, 1.7e9, {})) == ["occlusion", "rise", "rise_plus"]
    assert "gradcam" not in names(layers=())
    with pytest.raises(errors.PreconditionError) as caught:
        names(*PERTURBING, "explainers.occlusion.enabled=false", "explainers.rise.enabled=false")
    assert caught.value.field == "explanations[0].explainer"


def test_it_takes_the_configured_parameters(make_model):
    (plan,) = read_request(request({}), make_model("explainers.rise.masks=64")).plans
    assert plan.candidates["rise"].counts.most == plan.candidates["rise"].parameters.masks == 64


@pytest.mark.parametrize("name", ["rise", "gradcam", "occlusion", "rise_plus", "gradient"])
def test_it_takes_no_parameters(model, name):
    parameters = type(getattr(pb.ExplanationRequest(), name))()
    with pytest.raises(errors.ParameterError, match=f"Ask for {name}") as caught:
        read_request(request({}, {"name": "b", name: parameters}), model)
    assert caught.value.field == f"explanations[1].{name}"


@pytest.mark.parametrize(
    ("wanted", "kind", "field"),
    [
        ({"targets": pb.Targets(class_ids=[4])}, errors.TargetError, "targets.class_ids[0]"),
        ({"condition": pb.Condition()}, errors.InvalidRequestError, "condition"),
        ({"budget": Duration(nanos=-1)}, errors.InvalidRequestError, "budget"),
        ({"encoding": 99}, errors.InvalidRequestError, "encoding"),
    ],
)
def test_what_else_is_wrong(model, wanted, kind, field):
    with pytest.raises(kind) as caught:
        read_request(request(wanted), model)
    assert caught.value.field == f"explanations[0].{field}"


def test_a_budget_below_the_quickest(make_model):
    """A row takes 30 ms: the first map of occlusion 9 of them."""
    for model, least in ((make_model(*BUILT_IN), 30), (make_model(*PERTURBING), 270)):
        read_request(request({"budget": Duration(nanos=(least + 1) * 1_000_000)}), model)
        with pytest.raises(errors.PreconditionError, match=f"{least} ms") as caught:
            read_request(request({"budget": Duration(nanos=(least - 1) * 1_000_000)}), model)
        assert caught.value.field == "explanations[0].budget"


def test_the_dearest_counts_as_passes(make_model):
    model = make_model("server.max_passes=2500")
    read_request(request({}, image_count=2), model)
    with pytest.raises(errors.InvalidRequestError, match="3,003") as caught:
        read_request(request({"explainer": "gradient"}, {}, image_count=3), model)
    assert caught.value.field == "explanations[1]"
    less = make_model("server.max_passes=999")
    assert "rise" not in read_request(request({}), less).plans[0].candidates


# ------------------------------------------------------------------------------------------------ which one it is


@pytest.fixture
def known(make_quality):
    """Makes a `Quality` that knows some scores of insertion, by explainer and class."""

    def known(scores, **auto):
        quality = make_quality(auto={**AUTO, **auto})
        for (name, target), value in scores.items():
            for number in range(2):
                record = ScoreRecord(name, INSERTION, target, value, ScoreStatus.OK, 1.0, 0.1, 5)
                quality.put_score(SampleKey(f"{target}-{number}", 0), time.time(), record)
        return quality

    return known


@pytest.fixture
def make_auto(make_plan):
    """Makes a plan of occlusion, which takes 25 passes, or RISE, which takes 320."""

    def make_auto(**fields):
        candidates = {
            "occlusion": make_plan(Occlusion(), "auto", **fields),
            "rise": make_plan(None, "auto", mask_count=320, **fields),
        }
        return replace(candidates["occlusion"], candidates=candidates)

    return make_auto


RISE_FOR_2 = {("rise", 2): 0.75, ("occlusion", 2): 0.5, ("rise", 0): 0.25, ("occlusion", 0): 0.875}
"""RISE is the better one for class 2, occlusion for class 0, and over all, too."""


@pytest.mark.parametrize(
    ("targets", "chosen", "reason", "composite"),
    [
        (Targets(), "rise", Reason.BEST_OF_CLASS, 0.75),  # the net says 2
        (Targets(class_ids=(2, 0)), "rise", Reason.BEST_OF_CLASS, 0.75),
        (Targets(class_ids=(0, 2)), "occlusion", Reason.BEST_OF_CLASS, 0.875),
        (Targets(class_ids=(3,)), "occlusion", Reason.BEST, 0.6875),
        (Targets(top_count=2), "rise", Reason.BEST_OF_CLASS, 0.75),
    ],
)
async def test_the_best_for_the_class(start, make_net, predicted, make_auto, known, targets, chosen, reason, composite):
    predictor = start(make_net(), quality=known(RISE_FOR_2))
    ((one,),) = await predictor.explain([predicted()], [make_auto(targets=targets)], FOREVER)
    assert one.plan.explainer.name == one.choice.explainer == chosen
    assert (one.choice.reason, one.choice.composite) == (reason, composite)
    assert (one.plan.name, one.stage) == ("auto", Stage.COMPLETE)
    assert one.pass_count == {"rise": 320, "occlusion": 25}[chosen]
    assert len(one.saliency.maps) == len(one.targets) > 0


async def test_it_is_the_same_map_as_when_asked_for(start, make_net, predicted, make_auto, known):
    predictor = start(make_net(), quality=known(RISE_FOR_2))
    auto = make_auto()
    ((one, other),) = await predictor.explain([predicted()], [auto, auto.candidates["rise"]], FOREVER)
    assert (one.saliency.maps == other.saliency.maps).all()
    assert other.choice is None


async def test_before_anything_is_known(start, make_net, predicted, make_auto, known):
    predictor = start(make_net(), quality=known({}))
    ((one,),) = await predictor.explain([predicted()], [make_auto()], FOREVER)
    assert (one.choice.explainer, one.choice.reason, one.choice.composite) == ("occlusion", Reason.FALLBACK, None)
    predictor = start(make_net(), quality=known({}, fallback="rise"))
    ((one,),) = await predictor.explain([predicted()], [make_auto()], FOREVER)
    assert one.plan.explainer.name == "rise"


async def test_each_picture_has_its_own(start, make_net, picture, predicted, make_auto, known):
    predictor = start(make_net(), quality=known(RISE_FOR_2))
    dark = picture()
    dark.array[:] = -0.5  # class 0 has a logit of 0, and the mean is below
    pictures = [predicted(), predicted(dark)]
    assert [int(one.probabilities.argmax()) for one in pictures] == [2, 0]
    rows = await predictor.explain(pictures, [make_auto()], FOREVER)
    assert [row[0].plan.explainer.name for row in rows] == ["rise", "occlusion"]


@pytest.mark.parametrize(
    ("budget", "seconds", "chosen"),
    [
        (None, None, "rise"),
        (5.0, None, "rise"),
        (0.2, None, "occlusion"),
        (None, 5.0, "rise"),
        (None, 0.45, "occlusion"),  # less what it takes to answer
        (5.0, 0.4, "occlusion"),
        (0.2, 5.0, "occlusion"),
    ],
)
async def test_time_bounds_the_choice(start, make_net, predicted, make_auto, known, budget, seconds, chosen):
    """A launch of up to 8 rows takes 10 ms: 25 passes 40 ms, 320 passes 0.4 s."""
    predictor = start(make_net(0.01), quality=known(RISE_FOR_2))
    deadline = FOREVER if seconds is None else time.monotonic() + seconds
    explaining = predictor.begin(predicted(), make_auto(budget=budget), deadline)
    explaining.cancel()
    assert explaining.plan.explainer.name == chosen
    assert explaining.planned_passes == {"rise": 320, "occlusion": 25}[chosen]


@pytest.mark.parametrize(
    ("budget", "ratio", "beside", "chosen"),
    [(0.5, 1, 0, "rise"), (0.5, 1.5, 0, "occlusion"), (0.5, 1, 1, "occlusion"), (1.3, 1.5, 1, "rise")],
)
async def test_the_choice_counts_what_comes_on_top_of_passes_and_what_runs(
    start, make_net, predicted, make_auto, make_plan, known, idle, budget, ratio, beside, chosen
):
    """320 passes take 0.4 s, half as much on top 0.6 s, and beside another explanation twice that."""
    net = make_net(0.01)
    predictor = start(net, quality=known(RISE_FOR_2))
    net.gate.clear()
    slowdown = predictor.engine._device.slowdown
    slowdown.began("trial", 0.0)
    slowdown.ran("rise", 1.0, ratio, 1.0)
    slowdown.ended("trial", "rise", ratio, 1.0)
    others = [predictor.begin(predicted(), make_plan(mask_count=320), FOREVER) for _ in range(beside)]
    explaining = predictor.begin(predicted(), make_auto(budget=budget), FOREVER)
    assert explaining.plan.explainer.name == chosen
    for each in [explaining, *others]:
        each.cancel()
    net.gate.set()
    await idle(predictor.engine)


async def test_what_is_not_made(start, make_net, predicted, make_auto, known):
    net = make_net()
    predictor = start(net, quality=known(RISE_FOR_2))
    sure = make_auto(condition=Condition(top_probability_below=0.5))
    none = make_auto(targets=Targets(min_probability=1.0))
    ((skipped, targetless),) = await predictor.explain([predicted()], [sure, none], FOREVER)
    assert (skipped.stage, targetless.stage) == (Stage.SKIPPED, Stage.COMPLETE)
    assert not net.launches
    assert {skipped.plan.name, targetless.plan.name} == {"auto"}


async def test_nothing_is_chosen_for_a_class_that_is_not_there(start, make_net, predicted, make_auto, known):
    net = make_net()
    predictor = start(net, "sigmoid", quality=known(RISE_FOR_2), least_positive=0.5)
    blank = replace(predicted(), probabilities=np.full(4, 0.25, np.float32))
    ((skipped, asked),) = await predictor.explain(
        [blank], [make_auto(), make_auto(targets=Targets(top_count=1))], FOREVER
    )
    assert (skipped.stage, skipped.choice, asked.stage) == (Stage.SKIPPED, None, Stage.COMPLETE)
    assert "No class reaches" in skipped.message
    assert asked.choice is not None


async def test_the_admission_knows_the_plan_that_was_asked_for(start, make_net, predicted, make_auto, known, idle):
    net = make_net()
    predictor = start(net, quality=known(RISE_FOR_2))
    auto = make_auto()
    admitted = AdmittedRequest([ExplanationLoad(auto, 2)])
    assert [passes for _, passes, _ in admitted.loads[0].left()] == [25, 25]
    net.gate.clear()
    explaining = asyncio.ensure_future(predictor.explain([predicted(), predicted()], [auto], FOREVER, admitted))
    await asyncio.sleep(0.01)
    assert (admitted.loads[0].unstarted, len(admitted.loads[0].jobs)) == (0, 2)
    net.gate.set()
    await explaining
    assert list(admitted.loads[0].left()) == []
    await idle(predictor.engine)


# ------------------------------------------------------------------------------------------------ in the calls


def taken(admission):
    return admission.images.taken, admission.explanations.taken, admission.bytes.taken


async def test_the_answer_says_why(serve, request_of, known):
    # A launch of up to 8 rows takes 4 ms: 25 passes 16 ms, beside five others 96 ms; 320 passes 160 ms and more.
    servicer, admission = serve(0.004, *PERTURBING, MASKS, quality=known(RISE_FOR_2))
    asked = request_of(
        pb.ExplanationRequest(explainer="auto", seed=3),
        pb.ExplanationRequest(explainer="rise", seed=3),
        pb.ExplanationRequest(explainer="auto", name="quick", budget=Duration(nanos=150_000_000)),
    )
    answer = await servicer.Predict(asked, call())
    assert taken(admission) == (0, 0, 0)
    for one in answer.predictions:
        auto, rise, quick = one.explanations
        assert (auto.name, auto.explainer, auto.seed) == ("auto", "rise", 3)
        assert (auto.auto_choice.kind, auto.auto_choice.composite_score) == (pb.AUTO_CHOICE_KIND_BEST_OF_CLASS, 0.75)
        assert "rise has the best composite score for this class" in auto.auto_choice.reason
        assert auto.maps[0].tensor == rise.maps[0].tensor
        assert auto.parameters["masks"].number_value == 320
        assert not rise.HasField("auto_choice")
        assert (quick.name, quick.explainer, quick.auto_choice.kind) == (
            "quick", "occlusion", pb.AUTO_CHOICE_KIND_BEST_OF_CLASS,
        )  # fmt: skip
        assert "budget" in quick.auto_choice.reason


async def test_the_answer_says_that_nothing_is_known(serve, request_of, known):
    servicer, _ = serve(0.0, *PERTURBING, MASKS, quality=known({}))
    answer = await servicer.Predict(request_of(pb.ExplanationRequest(explainer="auto")), call())
    choice = answer.predictions[0].explanations[0].auto_choice
    assert (choice.kind, choice.HasField("composite_score")) == (pb.AUTO_CHOICE_KIND_FALLBACK, False)
    assert "configured default" in choice.reason


async def test_a_stream_tells_the_same(serve, request_of, known):
    servicer, admission = serve(0.002, *PERTURBING, MASKS, quality=known(RISE_FOR_2))
    asked = request_of(pb.ExplanationRequest(explainer="auto", seed=3))
    answer = await servicer.Predict(asked, call())
    streamed = pb.PredictStreamRequest(request=asked, progress_interval=Duration(nanos=20_000_000))
    async with aclosing(servicer.PredictStream(streamed, call())) as events:
        events = [event async for event in events]
    assert taken(admission) == (0, 0, 0)
    progress = [event.progress for event in events if event.HasField("progress")]
    assert {(one.name, one.planned_pass_count) for one in progress} == {("auto", 320)}
    updates = [event.explained for event in events if event.HasField("explained")]
    for index, prediction in enumerate(answer.predictions):
        ours = [update.explanation for update in updates if update.image_index == index]
        assert {(one.explainer, one.auto_choice.kind) for one in ours} == {("rise", pb.AUTO_CHOICE_KIND_BEST_OF_CLASS)}
        final, expected = ours[-1], prediction.explanations[0]
        final.elapsed.CopyFrom(expected.elapsed)
        assert final == expected


async def test_who_leaves_leaves_nothing_behind(serve, request_of, known, idle):
    servicer, admission = serve(0.01, *PERTURBING, MASKS, quality=known(RISE_FOR_2))
    answering = asyncio.ensure_future(servicer.Predict(request_of(pb.ExplanationRequest(explainer="auto")), call()))
    await asyncio.sleep(0.1)
    assert taken(admission)[:2] == (0, 2)
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert taken(admission) == (0, 0, 0)
    await idle(servicer.core.state.predictor.engine)
