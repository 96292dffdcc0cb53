"""What the service gives the evaluator, how that is set up, and ground truth from the call to the scores."""

import asyncio
import hashlib
import time
import uuid
from contextlib import aclosing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from toys import only

from xai_proto import explanation_pb2 as pb
from xai_sidecar import errors
from xai_sidecar.engine.backend import OodTraining
from xai_sidecar.evaluator.controls import CONTROLS
from xai_sidecar.evaluator.definitions import map_definition, score_definition
from xai_sidecar.evaluator.drift.monitor import DriftMonitor
from xai_sidecar.evaluator.drift.tracker import SAMPLES
from xai_sidecar.evaluator.ingest import Ingest
from xai_sidecar.evaluator.live_quality import State
from xai_sidecar.evaluator.measurement import Measurer
from xai_sidecar.evaluator.records import SampleKey, SampleState
from xai_sidecar.evaluator.sampling import Draw
from xai_sidecar.evaluator.store import Store
from xai_sidecar.explainers.activations import sigmoid, softmax
from xai_sidecar.explainers.base import MapStatus, Saliency
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.imaging import Prepared, Region
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.rpc.interceptors import REQUEST_ID
from xai_sidecar.serving.evaluation import Evaluation, evaluated_model, open_store, sample_of, start_evaluation
from xai_sidecar.serving.plan import ExplanationResult, ModelOutput, Stage, Targets

PERTURBING = only("occlusion", "rise", "rise_plus")
MASKS = "explainers.rise.masks=64"
QUICK = "evaluator.metrics=['faithfulness/deletion_auc', 'localization/iosr']"
KEY = SampleKey("mine", 1)


def call(request_id="mine", seconds=None):
    metadata = ((REQUEST_ID, request_id),)
    return SimpleNamespace(
        time_remaining=lambda: seconds, trailing_metadata=lambda: metadata, invocation_metadata=lambda: metadata
    )


async def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        await asyncio.sleep(0.005)


# ------------------------------------------------------------------------------------------------ what is sampled


@pytest.fixture
def served_rise(make_model, make_plan):
    """A model, and a maker of explanations by RISE of the classes given."""
    model = make_model(MASKS)

    def served_rise(*targets, stage=Stage.COMPLETE, statuses=None, pass_count=64, **parameters):
        plan = make_plan(None, seed=2**40 + 1, targets=Targets(class_ids=targets), **{"mask_count": 64, **parameters})
        maps = np.stack([np.full((6, 8), target, np.float32) for target in targets]) if targets else np.empty((0, 6, 8))
        saliency = Saliency(maps, statuses or (MapStatus.OK,) * len(targets))
        return ExplanationResult(plan, np.array(targets, np.int32), saliency, pass_count, 0.5, stage)

    return model, served_rise


def test_a_prediction_as_a_sample(model, picture):
    array = picture().array
    prepared = Prepared(array, (80, 60), Region(10, 0, 70, 60))
    probabilities = np.array([0.1, 0.2, 0.6, 0.1], np.float32)
    predicted = ModelOutput(prepared, np.log(probabilities), probabilities, (0.5, 12.5))
    sample = sample_of(KEY, 1_700_000_000.5, "v", model, predicted, ())
    assert (sample.key, sample.time, sample.model_version) == (KEY, 1_700_000_000.5, "v")
    assert vars(sample.frame) == {"height": 6, "width": 8, "picture_size": (80, 60), "region": Region(10, 0, 70, 60)}
    np.testing.assert_array_equal(sample.image, array)
    np.testing.assert_array_equal(sample.logits, predicted.logits)
    np.testing.assert_array_equal(sample.probabilities, probabilities)
    assert (sample.ood, sample.target, sample.served) == ((0.5, 12.5), 2, {})


@pytest.mark.parametrize(("least", "positives"), [(0.5, (0, 2)), (0.75, (2,)), (0.9, ()), (0.25, (0, 1, 2))])
def test_with_sigmoid_all_classes_from_a_probability_on_were_predicted(make_model, predicted, least, positives):
    model = make_model("model.activation=sigmoid", f"evaluator.positive_probability={least}")
    probabilities = np.array([0.5, 0.25, 0.75, 0.125], np.float32)
    one = replace(predicted(), logits=np.log(probabilities / (1 - probabilities)), probabilities=probabilities)
    assert sample_of(KEY, 0.0, "v", model, one, ()).positives == positives


def test_with_softmax_the_most_probable_class_was_predicted_however_little(make_model, predicted):
    model = make_model("evaluator.positive_probability=0.9")
    one = replace(predicted(), logits=np.array([1, 1.5, 1, 1], np.float32), probabilities=np.full(4, 0.25, np.float32))
    assert sample_of(KEY, 0.0, "v", model, one, ()).positives == (1,)


def test_a_model_input_has_no_picture(model, predicted):
    frame = sample_of(KEY, 0.0, "v", model, predicted(), ()).frame
    assert (frame.picture_size, frame.region) == (None, None)


def test_a_map_made_as_the_server_makes_it_is_used(served_rise, predicted):
    """The prediction is class 2."""
    model, rise = served_rise
    sample = sample_of(KEY, 0.0, "v", model, predicted(), [rise(3, 2, statuses=(MapStatus.OK, MapStatus.ALL_ZERO))])
    (served,) = sample.served.values()
    assert list(sample.served) == ["rise"]
    assert (served.saliency == 2).all()
    assert served.saliency.base is None  # nor is the other map kept
    assert (served.status, served.seed, served.pass_count) == (MapStatus.ALL_ZERO, 2**40 + 1, 64)


@pytest.mark.parametrize(
    "fields",
    [
        {"mask_count": 65},
        {"normalization": "max"},
        {"estimator": "plain"},
        {"stage": Stage.TRUNCATED},
        {"stage": Stage.PARTIAL},
    ],
)
def test_other_maps_are_not(served_rise, predicted, fields):
    model, rise = served_rise
    assert sample_of(KEY, 0.0, "v", model, predicted(), [rise(2, **fields)]).served == {}
    assert list(sample_of(KEY, 0.0, "v", model, predicted(), [rise(2, **fields), rise(2)]).served) == ["rise"]


@pytest.mark.parametrize("targets", [(0,), (3, 1), ()])
def test_maps_of_other_classes_are_not(served_rise, predicted, targets):
    model, rise = served_rise
    assert sample_of(KEY, 0.0, "v", model, predicted(), [rise(*targets)]).served == {}


def test_the_map_of_the_highest_of_saturated_classes_is_used(served_rise, predicted):
    model, rise = served_rise
    saturated = replace(predicted(), logits=np.array([18, 20, 5, 40], np.float32), probabilities=np.ones(4, np.float32))
    sample = sample_of(KEY, 0.0, "v", model, saturated, [rise(0, 3)])
    assert sample.target == 3
    assert (sample.served["rise"].saliency == 3).all()


def test_the_first_of_two_maps_is_used(served_rise, predicted):
    model, rise = served_rise
    sample = sample_of(KEY, 0.0, "v", model, predicted(), [rise(2, pass_count=1), rise(2, pass_count=2)])
    assert sample.served["rise"].pass_count == 1


# ------------------------------------------------------------------------------------------------ setting up


def test_the_model_as_the_evaluator_sees_it(make_model):
    model = make_model("explainers.gradient.enabled=false", MASKS)
    evaluated = evaluated_model(model)
    assert evaluated.version == model.version
    assert evaluated.labels == ("a", "b", "c", "d")
    assert (evaluated.activation, evaluated.facts) == (softmax, model.facts)
    unusable = ("gradient", "rise_plus")
    assert list(evaluated.explainers) == [name for name in installed_explainers() if name not in unusable]
    explainer, parameters = evaluated.explainers["rise"]
    assert (explainer.name, parameters.masks, parameters.grid_size) == ("rise", 64, 6)
    assert evaluated.explainers["gradcam"][1].layer == "late"
    several = evaluated_model(make_model("model.activation=sigmoid"))
    assert several.activation is sigmoid


def definitions(model):
    return Measurer(evaluated_model(model), model.config.evaluator).definitions


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("explainers.rise.masks=65", {"rise"}),
        ("explainers.gradcam.layer=early", {"gradcam"}),
        ('explainers.gradient.aggregation="sum_abs"', {"gradient"}),
        ("evaluator.tolerance=0.25", {"rise"}),
        ("evaluator.tolerance=0", {"rise"}),
        ("explainers.gradient.enabled=false", {"gradient"}),
        ("evaluator.protocol=rise", set()),
        ("evaluator.metric_parameters.localization/iosr.threshold=0.25", set()),
    ],
)
def test_scores_of_other_settings_are_of_other_definitions(make_model, override, changed):
    """Those of the other explainers, and by the other metrics, stay: only maps of `changed` explainers are others."""
    before, after = make_model(), make_model(override)
    assert evaluated_model(after).version == evaluated_model(before).version
    assert definitions(before) == definitions(make_model())
    tolerance = before.config.evaluator.tolerance
    assert tolerance == 0.3
    explainers = {
        name: map_definition(*called, tolerance if name == "rise" else 0.0)
        for name, called in evaluated_model(before).explainers.items()
    }
    assert set(installed_explainers()) - set(explainers) == {"rise_plus"}  # for want of an OoD net
    # By each metric, and of the map itself.
    assert len(definitions(before)) == (len(explainers) + len(CONTROLS)) * (1 + len(before.config.evaluator.metrics))
    assert {name for name, definition in explainers.items() if definition not in definitions(after)} == changed
    assert definitions(after) != definitions(before)


def test_definitions_outlive_a_release_but_not_another_version(make_model, monkeypatch):
    """As they are written, too: a release that changes them forgets all quality that was measured."""
    model = make_model()
    explainer, parameters = evaluated_model(model).explainers["gradient"]
    metric = installed_metrics()["robustness"]
    of_map = map_definition(explainer, parameters)
    assert of_map == hashlib.sha256(b'[3,"gradient",1,{}]').hexdigest()[:12]
    of_score = score_definition(of_map, metric, metric.parameters_type())
    assert of_score == hashlib.sha256(f'["{of_map}","robustness",{metric.version},{{}}]'.encode()).hexdigest()[:12]
    monkeypatch.setattr("xai_sidecar.__version__", "99.0")
    assert map_definition(explainer, parameters) == of_map
    monkeypatch.setattr(type(metric), "version", metric.version + 1)
    assert score_definition(of_map, metric, metric.parameters_type()) != of_score
    monkeypatch.setattr(type(explainer), "version", explainer.version + 1)
    assert map_definition(explainer, parameters) != of_map


def test_another_ood_net_makes_another_version(make_model):
    versions = {
        evaluated_model(make_model(ood=ood)).version
        for ood in (None, OodTraining(10, 1.0, {}), OodTraining(10, 2.0, {}), OodTraining(11, 1.0, {}))
    }
    assert len(versions) == 4


@pytest.mark.parametrize(
    ("name", "file"),
    [("resnet50", "resnet50"), ("my net/2", "my-net-2"), ("../..", "model"), ("ä", "model"), (".hidden", "hidden")],
)
def test_where_the_store_is_by_default(make_model, monkeypatch, tmp_path, name, file):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    open_store(make_model(f"model.name={name}").config).close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert tmp_path / "xai-sidecar" / f"{file}.sqlite" in files
    assert {path.parent for path in files} == {tmp_path / "xai-sidecar"}


def series(registry):
    return {sample.name for family in registry.collect() for sample in family.samples}


def test_nothing_is_set_up_where_nothing_is_sampled(make_model, start, make_net, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    registry, engine = CollectorRegistry(), start(make_net()).engine
    evaluation = start_evaluation(make_model(), engine, registry)
    assert evaluation.evaluator is None
    assert evaluation.quality.state is State.OFF
    assert not evaluation.sample("anything", make_model(), [])
    assert registry.get_sample_value("xai_evaluator_state", {"state": "off"}) == 1
    assert registry.get_sample_value("xai_quality_samples", {"explainer": "rise", "metric": "robustness"}) == 0
    evaluation.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_set_up(make_model, start, make_net, tmp_path):
    registry, engine = CollectorRegistry(), start(make_net()).engine
    model = make_model("evaluator.sample_rate=1", f"evaluator.store=sqlite:///{tmp_path}/folder/a.db", *PERTURBING)
    evaluation = start_evaluation(model, engine, registry)
    try:
        assert evaluation.sample("anything", model, [])
        assert evaluation.quality.state is State.NO_TRAFFIC
        assert (tmp_path / "folder" / "a.db").exists()
        assert registry.get_sample_value("xai_store_bytes") > 0
        assert registry.get_sample_value("xai_quality_composite", {"explainer": "gradcam"}) is None
    finally:
        evaluation.close()


@pytest.mark.parametrize(
    ("overrides", "field", "told"),
    [
        (["evaluator.explainers=['rise', 'rise_plus']"], "evaluator.explainers", "rise_plus cannot be used: "),
        (["evaluator.explainers=['gradcam']", *PERTURBING], "evaluator.explainers", "gradcam cannot be used: "),
        (["evaluator.classes=['a', 'z']"], "evaluator.classes", "'z'"),
        (["evaluator.store=mysql://x/y"], "evaluator.store", "sqlite"),
        (["evaluator.store=sqlite:////dev/null/a.db"], "evaluator.store", "/dev/null"),
    ],
)
def test_what_cannot_be_set_up(make_model, start, make_net, tmp_path, overrides, field, told):
    store = f"evaluator.store=sqlite:///{tmp_path}/a.db"
    model = make_model("evaluator.sample_rate=1", store, *overrides)
    with pytest.raises(errors.ConfigError) as caught:
        start_evaluation(model, start(make_net()).engine, CollectorRegistry())
    assert caught.value.field == field
    assert told in caught.value.message


def test_a_store_that_cannot_be_read(make_model, start, make_net, tmp_path, monkeypatch):
    closed = []

    def unreadable(*_):
        raise errors.StoreError("The disk is gone.")

    monkeypatch.setattr(Store, "recent_scores", unreadable)
    close = Store.close
    monkeypatch.setattr(Store, "close", lambda store: (closed.append(store), close(store)))
    model = make_model("evaluator.sample_rate=1", f"evaluator.store=sqlite:///{tmp_path}/a.db")
    with pytest.raises(errors.ConfigError, match="disk is gone") as caught:
        start_evaluation(model, start(make_net()).engine, CollectorRegistry())
    assert (caught.value.field, len(closed)) == ("evaluator.store", 1)


# ------------------------------------------------------------------------------------------------ in the calls


@pytest.fixture
def sampling(serve, tmp_path):
    """A servicer that samples, and its evaluator's store."""

    def sampling(*overrides, seconds=0.0, rate=1.0):
        servicer, _ = serve(
            seconds, f"evaluator.sample_rate={rate}", f"evaluator.store=sqlite:///{tmp_path}/a.db", *PERTURBING, MASKS,
            QUICK, "evaluator.interval_seconds=0.03", *overrides, evaluated=True,
        )  # fmt: skip
        return servicer, servicer.core.state.evaluation.evaluator._store

    return sampling


def report(**fields):
    return pb.ReportGroundTruthRequest(**{"request_id": "mine", **fields})


async def test_a_server_that_samples_nothing_takes_no_ground_truth(serve, request_of):
    servicer, _ = serve()
    assert not (await servicer.Predict(request_of(), call())).sampled
    with pytest.raises(errors.PreconditionError, match=r"evaluator\.sample_rate"):
        await servicer.ReportGroundTruth(report(labels=["a"]), call())
    info = (await servicer.GetModelInfo(pb.GetModelInfoRequest(), call())).model
    assert not info.HasField("evaluator")


async def test_a_map_of_more_masks_than_are_measured_is_made_anew(sampling, request_of):
    """What callers are given, with all masks, would be another thing than what is measured of all other pictures."""
    servicer, store = sampling()
    await servicer.Predict(request_of(pb.ExplanationRequest(explainer="rise", seed=77)), call())
    key = SampleKey("mine", 0)
    await until(lambda: store.sample(key) and store.sample(key).state is SampleState.SCORED)
    assert {found.explainer: found.seed for found in store.maps(key)}["rise"] == key.seed


async def test_a_sampled_prediction(sampling, request_of):
    servicer, store = sampling("evaluator.tolerance=0")
    explained = pb.ExplanationRequest(explainer="rise", seed=77)
    answer = await servicer.Predict(request_of(explained), call())
    assert answer.sampled
    keys = [SampleKey("mine", index) for index in range(2)]
    await until(lambda: all(store.sample(key) and store.sample(key).state is SampleState.SCORED for key in keys))
    for key, one in zip(keys, answer.predictions, strict=True):
        maps = {found.explainer: found for found in store.maps(key)}
        assert list(maps) == sorted([*CONTROLS, "occlusion", "rise"])
        # What the caller was given is what is measured.
        assert maps["rise"].seed == 77
        shown = np.frombuffer(one.explanations[0].maps[0].tensor.data, "<f4").reshape(6, 8)
        np.testing.assert_array_equal(maps["rise"].saliency, shown)
        assert maps["occlusion"].seed == key.seed
    await until(lambda: servicer.core.state.evaluation.quality.state is State.UP_TO_DATE)
    info = (await servicer.GetModelInfo(pb.GetModelInfoRequest(), call())).model
    assert (info.evaluator.window_sample_count, info.evaluator.sample_rate) == (2, 1)
    quality = {one.name: [(row.metric, row.sample_count) for row in one.quality] for one in info.explainers}
    assert quality["rise"] == quality["occlusion"] == [("faithfulness/deletion_auc", 2)]
    assert quality["gradcam"] == []


async def test_a_sampled_stream(sampling, request_of):
    servicer, store = sampling()
    request = pb.PredictStreamRequest(request=request_of(pb.ExplanationRequest(explainer="rise", seed=77)))
    async with aclosing(servicer.PredictStream(request, call())) as events:
        events = [event async for event in events]
    assert events[0].predicted.sampled
    await until(lambda: (found := store.sample(KEY)) and found.state is SampleState.SCORED)
    assert [found.explainer for found in store.maps(KEY)] == sorted([*CONTROLS, "occlusion", "rise"])


async def test_which_requests_are_sampled(sampling, request_of):
    servicer, store = sampling(rate=0.5)
    sampled = {}
    for number in range(40):
        sampled[f"r{number}"] = (await servicer.Predict(request_of(), call(f"r{number}"))).sampled
    assert 5 < sum(sampled.values()) < 35
    chosen = {name for name, is_sampled in sampled.items() if is_sampled}
    await until(lambda: len(store.states()) == 2 * len(chosen))
    assert {name for name in sampled if store.sample(SampleKey(name, 0))} == chosen


async def test_ground_truth_of_a_sampled_prediction(sampling, request_of):
    servicer, store = sampling()
    await servicer.Predict(request_of(), call())
    box = pb.Region(left=0, top=0, right=3, bottom=2)
    for fields, changed in (
        ({"labels": ["c"], "boxes": [box]}, True),
        ({"labels": ["c"], "boxes": [box]}, False),
        ({"class_ids": [2], "objects": [pb.GroundTruthObject(box=box)]}, False),
        ({"class_ids": [2]}, True),
        ({"labels": ["c"], "boxes": [box]}, True),
        ({"labels": ["c"], "image_index": 1}, True),
    ):
        assert (await servicer.ReportGroundTruth(report(**fields), call("other"))).changed is changed
    key = SampleKey("mine", 0)
    await until(
        lambda: (
            not store.unapplied_truths(servicer.core.state.evaluation.version)
            and len(store.scores(key)) == 2 * (2 + len(CONTROLS))
        )
    )
    located = {one.explainer: one.value for one in store.scores(key) if one.metric == "localization/iosr"}
    for found in store.maps(key):
        salient = found.saliency > 0.5 * found.saliency.max()
        assert located[found.explainer] == pytest.approx(salient[:2, :3].sum() / salient.sum())
    await until(lambda: len(store.scores(KEY)) == 2 + len(CONTROLS))


@pytest.mark.parametrize(
    ("fields", "kind", "field"),
    [
        ({"request_id": "unknown", "labels": ["a"]}, errors.NotFoundError, "request_id"),
        ({"labels": ["a"], "image_index": 2}, errors.NotFoundError, "request_id"),
        ({"labels": ["nobody"]}, errors.InvalidRequestError, "labels[0]"),
        ({"objects": [{"box": pb.Region(left=9, right=12, bottom=3)}]}, errors.InvalidRequestError, "objects[0].box"),
        (
            {"objects": [{"box": pb.Region(right=1, bottom=1)}, {"polygon": pb.Polygon(points=[pb.Point(x=1)])}]},
            errors.InvalidRequestError,
            "objects[1].polygon",
        ),
        ({"objects": [{"mask_png": b"GIF"}]}, errors.PictureError, "objects[0].mask_png"),
        ({"boxes": [pb.Region(right=1, bottom=1), pb.Region()]}, errors.InvalidRequestError, "boxes[1]"),
        (
            {"boxes": [pb.Region(right=1, bottom=1)], "objects": [{"polygon": pb.Polygon(points=[pb.Point(x=1)])}]},
            errors.InvalidRequestError,
            "objects[0].polygon",
        ),
    ],
)
async def test_errors_name_the_field_of_the_report(sampling, request_of, fields, kind, field):
    servicer, store = sampling()
    await servicer.Predict(request_of(), call())
    with pytest.raises(kind) as caught:
        await servicer.ReportGroundTruth(report(**fields), call("other"))
    assert type(caught.value) is kind
    assert caught.value.field == field
    assert store.unapplied_truths(servicer.core.state.evaluation.version) == []


async def test_ground_truth_at_once(sampling, request_of):
    """A report that comes right after its prediction finds it, whatever the store has to do."""
    servicer, store = sampling()

    async def predict_and_report(number):
        await servicer.Predict(request_of(), call(f"r{number}"))
        return await servicer.ReportGroundTruth(report(request_id=f"r{number}", labels=["a"]), call())

    answers = await asyncio.gather(*map(predict_and_report, range(30)))
    assert all(answer.changed for answer in answers)
    assert len(store.states()) == 60


async def test_a_store_that_fails_is_no_ones_fault(sampling, request_of):
    servicer, store = sampling()

    def failing(*_, **__):
        raise errors.StoreError("The disk is full.")

    add, store.add_sample = store.add_sample, failing
    assert (await servicer.Predict(request_of(), call())).sampled
    with pytest.raises(errors.NotFoundError):
        await servicer.ReportGroundTruth(report(labels=["a"]), call())
    store.add_sample = add
    await servicer.Predict(request_of(), call("later"))
    store.put_truth = failing
    with pytest.raises(errors.StoreError) as caught:
        await servicer.ReportGroundTruth(report(request_id="later", labels=["a"]), call())
    assert caught.value.code == "UNAVAILABLE"


async def test_auto_goes_by_what_is_measured(sampling, request_of):
    overrides = (
        "evaluator.auto.min_samples=2", "evaluator.auto.fallback=occlusion",
        'evaluator.auto.weights={"faithfulness/deletion_auc" = 1.0}',
    )  # fmt: skip
    servicer, store = sampling(*overrides)
    request = request_of(pb.ExplanationRequest(explainer="auto"))
    first = await servicer.Predict(request, call())
    assert first.predictions[0].explanations[0].auto_choice.kind == pb.AUTO_CHOICE_KIND_FALLBACK
    await until(lambda: (found := store.sample(KEY)) and found.state is SampleState.SCORED)
    await until(lambda: store.sample(SampleKey("mine", 0)).state is SampleState.SCORED)
    means = {
        name: np.mean([
            one.value
            for index in range(2)
            for one in store.scores(SampleKey("mine", index))
            if one.explainer == name
        ])
        for name in ("occlusion", "rise")
    }  # fmt: skip
    best = min(means, key=means.get)
    one = (await servicer.Predict(request, call("later"))).predictions[0].explanations[0]
    # Two pictures cannot show that any explainer beats the controls.
    assert (one.explainer, one.auto_choice.kind) == ("occlusion", pb.AUTO_CHOICE_KIND_FALLBACK)
    assert one.auto_choice.reason.startswith(
        f"No explainer beats the controls: {best}, the best, does not beat control/"
    )
    info = (await servicer.GetModelInfo(pb.GetModelInfoRequest(), call())).model
    composites = {each.name: each.composite_score for each in info.explainers if each.HasField("composite_score")}
    assert composites == {name: pytest.approx(1 - mean) for name, mean in means.items()}
    standings = {each.name: each.standing for each in info.explainers if each.HasField("standing")}
    assert set(standings) == set(means)
    assert not any(standing.eligible for standing in standings.values())
    assert [control.name for control in info.evaluator.controls] == list(CONTROLS)
    assert all(len(control.quality) == 1 for control in info.evaluator.controls)


# ------------------------------------------------------------------------------------------------ drift


@pytest.fixture
def offered(monkeypatch):
    """What is offered to be compared with former maps: (source, class, explainers), with the maps beside it."""
    offered = []

    def offer(monitor, source, target, maps):
        offered.append(((source, target, sorted(maps)), dict(maps)))
        return True

    monkeypatch.setattr(DriftMonitor, "offer", offer)
    return offered


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_callers_get_is_compared_with_former_maps(serve, request_of, offered, streamed):
    """Of each picture the maps by the server's parameters, of the most probable class, which is the third."""
    servicer, _ = serve(0, *PERTURBING, MASKS, evaluated=True)
    request = request_of(
        pb.ExplanationRequest(explainer="rise", seed=77),
        pb.ExplanationRequest(explainer="occlusion", name="other class", targets={"class_ids": [0]}),
        pb.ExplanationRequest(explainer="occlusion", name="of two", targets={"class_ids": [1, 2]}),
        pb.ExplanationRequest(explainer="rise", name="other parameters", rise={"mask_count": 63}),
    )
    if streamed:
        async with aclosing(servicer.PredictStream(pb.PredictStreamRequest(request=request), call())) as events:
            _ = [event async for event in events]
    else:
        answer = await servicer.Predict(request, call())
        explanations = {each.name: each for each in answer.predictions[0].explanations}
        shown = np.frombuffer(explanations["of two"].maps[1].tensor.data, "<f4").reshape(6, 8)
        np.testing.assert_array_equal(offered[0][1]["occlusion"], shown)
    assert [what for what, _ in offered] == [("requests", 2, ["occlusion", "rise"])] * 2


async def test_a_prediction_without_explanations_offers_nothing(serve, request_of, offered):
    servicer, _ = serve(0, *PERTURBING, MASKS, evaluated=True)
    await servicer.Predict(request_of(), call())
    assert offered == []


def test_what_must_not_be_believed_is_not_compared(served_rise, predicted, offered):
    model, rise = served_rise
    evaluation = Evaluation(None, "v", None, DriftMonitor(["rise"], {}, model.config.drift))
    for status in MapStatus:
        evaluation.watch(model, [predicted()], [[rise(2, statuses=(status,))]])
        assert len(offered) == status.believed
        offered.clear()


async def test_what_is_measured_is_compared_apart(sampling, request_of, offered):
    """All maps of a sample at once, those that its caller was given among them."""
    servicer, _ = sampling()
    await servicer.Predict(request_of(pb.ExplanationRequest(explainer="rise")), call())
    await until(lambda: sum(what[0] == "samples" for what, _ in offered) == 2)
    measured = {(*what[:2], *what[2]) for what, _ in offered if what[0] == "samples"}
    assert measured == {("samples", 2, *sorted([*CONTROLS, "occlusion", "rise"]))}


def state_of(store, index):
    found = store.sample(SampleKey("preferred", index))
    return found and found.state


@pytest.mark.parametrize("typical", [True, False])
async def test_what_was_preferred_in_sampling_says_nothing_of_drift(serve, request_of, monkeypatch, tmp_path, typical):
    offered = []
    monkeypatch.setattr(DriftMonitor, "offer", lambda monitor, source, *rest: offered.append(source))
    monkeypatch.setattr(Ingest, "draw", lambda ingest, *request: Draw(0.5, 0.75, typical))
    settings = QUICK, MASKS, "evaluator.sample_rate=0.3", f"evaluator.store=sqlite:///{tmp_path}/a.db"
    servicer, _ = serve(0, *PERTURBING, *settings, "evaluator.interval_seconds=0.01", evaluated=True)
    await servicer.Predict(request_of(), call("preferred"))
    evaluation = servicer.core.state.evaluation
    quality, store = evaluation.quality, evaluation.evaluator._store
    await until(lambda: [state_of(store, index) for index in range(2)] == [SampleState.SCORED] * 2)
    assert [each for each in offered if each == SAMPLES] == [SAMPLES] * 2 * typical, "of two pictures"
    assert quality._samples.statistics(time.time()).total_weight == 1.5


async def test_drift_is_shown(serve, request_of):
    servicer, _ = serve(0, *PERTURBING, "drift.window=20", "drift.spacing_seconds=0", evaluated=True)
    drift = servicer.core.state.evaluation.drift
    for _ in range(20):
        await servicer.Predict(request_of(pb.ExplanationRequest(explainer="occlusion")), call(str(uuid.uuid4())))
        assert drift.flush(10)
    found = {(each.explainer, each.statistic, each.source): each for each in drift.figures().figures}
    assert ("occlusion", "border", "requests") in found
    assert all(each.ratio < 1 for each in found.values())
