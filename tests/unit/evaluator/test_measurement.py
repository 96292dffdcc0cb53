"""Measuring a sample: the same as explaining and measuring it by hand."""

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from measuring import measure_all

from xai_sidecar.engine.batching import in_batches
from xai_sidecar.engine.work import drive
from xai_sidecar.errors import DeviceError
from xai_sidecar.evaluator.controls import CONTROLS
from xai_sidecar.evaluator.measurement import Measurer
from xai_sidecar.evaluator.records import MapRecord, SampleKey, ScoreRecord, Served
from xai_sidecar.evaluator.runs import run_of
from xai_sidecar.explainers.activations import sigmoid, softmax
from xai_sidecar.explainers.base import Context, MapStatus, ModelFacts, Saliency
from xai_sidecar.explainers.occlusion import Occlusion
from xai_sidecar.metrics.base import Score, ScoreStatus
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.metrics.faithfulness import DeletionAuc, InsertionAuc
from xai_sidecar.metrics.instance import ExplainerCall, Instance
from xai_sidecar.metrics.perturbation import PerturbationParameters

models = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("models.py"))))

MEASURED = [
    "faithfulness/naive",
    "faithfulness/deletion_auc",
    "faithfulness/insertion_auc",
    "class_sensitivity",
    "robustness",
]
LOCATED = ["localization/pointing_game", "localization/iosr"]


def runner(net):
    return in_batches(net.run, 16)


def appraised(measurer, sample, explainer, net=None):
    measurement, steps = measurer.begin(sample, explainer)
    drive(steps, runner(net or models.Net()))
    return measurement


class Counting:
    """Runs work, and counts the rows."""

    def __init__(self):
        self.rows = 0
        self._run = runner(models.Net())

    def __call__(self, kind, rows):
        self.rows += len(rows[0])
        return self._run(kind, rows)


def by_hand(model, sample, explainer, metrics, seed=None, saliency=None, protocol="srg"):
    """The map and the scores of a sample, with the passes of each, without any of the evaluator's code."""
    explaining, parameters = model.explainers[explainer]
    seed = sample.key.seed if seed is None else seed
    run, passes = Counting(), {}
    if saliency is None:
        targets = np.array([sample.logits.argmax()], np.int32)
        steps = explaining.explain(sample.image, targets, parameters, Context(model.activation, seed))
        saliency = drive(steps, run).maps[0]
        passes["explain"] = run.rows
    instance = Instance(
        sample.image,
        int(sample.logits.argmax()),
        saliency,
        ExplainerCall(explaining, parameters, seed),
        logits=sample.logits,
        shared={},
    )
    context, scores = Context(model.activation, sample.key.seed), {}
    for name in metrics:
        metric, run = installed_metrics()[name], Counting()
        values = {name: metric.parameters_type(protocol=protocol)} if name.startswith("faith") else None
        table = measure_all([metric], [instance], run, lambda kind: 1, parameters=values, context=context)
        scores[name], passes[name] = table.scores[name][0], run.rows
    return saliency, scores, passes


def without_maps_again(passes, explainer):
    """The passes of metrics that find maps there: of the target, and where it takes no more passes, of both classes."""
    map_passes = passes["explain"]
    both = {"class_sensitivity": map_passes if explainer == "gradient" else 0}
    return {**passes, **both, "robustness": passes["robustness"] - (explainer != "rise") * map_passes}


@pytest.mark.parametrize("explainer", ["gradient", "occlusion", "rise"])
@pytest.mark.parametrize("one_class", [True, False])
def test_it_is_as_by_hand(explainer, one_class):
    model = models.make_model(one_class=one_class, masks=256)
    sample = models.make_sample("some request", 3, seed=5, activation=softmax if one_class else sigmoid)
    measurement = appraised(Measurer(model, models.config()), sample, explainer)
    saliency, scores, passes = by_hand(model, sample, explainer, MEASURED)
    np.testing.assert_array_equal(measurement.map.saliency, saliency)
    assert [(one.metric, Score(one.value, one.status)) for one in measurement.scores] == list(scores.items())
    assert {outcome.metric: outcome.pass_count for outcome in measurement.runs} == without_maps_again(passes, explainer)
    assert [outcome.metric for outcome in measurement.runs] == ["explain", *MEASURED] == list(measurement.planned)
    assert all(outcome.failure is None and outcome.seconds > 0 for outcome in measurement.runs)
    record = measurement.map
    assert (record.explainer, record.target, record.status) == (explainer, sample.target, MapStatus.OK)
    assert (record.seed, record.pass_count) == (
        sample.key.seed,
        {"gradient": 1, "occlusion": 25, "rise": 256}[explainer],
    )
    assert record.parameters == model.explainers[explainer][1].model_dump()
    assert {(one.explainer, one.target) for one in measurement.scores} == {(explainer, sample.target)}


def test_noise_in_maps_that_a_metric_makes_is_no_score():
    """The map of the most probable class is good enough, that of the least probable one is not."""
    model, sample = models.make_model("rise"), models.make_sample("some request", 3, seed=5)
    explainer, parameters = model.explainers["rise"]
    targets = np.array([sample.logits.argmax(), sample.logits.argmin()], np.int32)
    steps = explainer.explain(sample.image, targets, parameters, Context(softmax, sample.key.seed))
    assert drive(steps, runner(models.Net())).statuses == (MapStatus.OK, MapStatus.UNRELIABLE)
    measurement = appraised(Measurer(model, models.config(metrics=["class_sensitivity"])), sample, "rise")
    assert measurement.map is not None
    assert [(one.value, one.status) for one in measurement.scores] == [(None, ScoreStatus.MAP_UNRELIABLE)]
    assert [one.failure for one in measurement.runs] == [None, "map_unreliable"]


def test_samples_differ_in_their_seeds():
    model = models.make_model("rise")
    one, again, other = (
        appraised(Measurer(model, models.config()), models.make_sample(name, index), "rise")
        for name, index in (("a", 0), ("a", 0), ("a", 1))
    )
    np.testing.assert_array_equal(one.map.saliency, again.map.saliency)
    assert [score.value for score in one.scores] == [score.value for score in again.scores]
    assert (one.map.saliency != other.map.saliency).any()
    assert [score.value for score in one.scores] != [score.value for score in other.scores]


def test_the_noise_is_the_samples_own():
    """Occlusion has no seed of its own to differ by; the noise alone makes robustness another one."""
    model = models.make_model("occlusion")
    settings = models.config(metrics=["robustness"])
    values = [
        appraised(Measurer(model, settings), models.make_sample(name), "occlusion").scores[0].value for name in "abc"
    ]
    assert len(set(values)) == 3


def test_the_protocol_of_rise():
    model, sample = models.make_model("occlusion"), models.make_sample()
    settings = models.config(protocol="rise", metrics=MEASURED[1:3])
    measurement = appraised(Measurer(model, settings), sample, "occlusion")
    _, scores, _ = by_hand(model, sample, "occlusion", MEASURED[1:3], protocol="rise")
    assert [one.value for one in measurement.scores] == [one.value for one in scores.values()]
    _, others, _ = by_hand(model, sample, "occlusion", MEASURED[1:3])
    assert [one.value for one in measurement.scores] != [one.value for one in others.values()]
    for metric in (DeletionAuc(), InsertionAuc()):
        assert issubclass(metric.parameters_type, PerturbationParameters)


def test_a_metrics_own_parameters_are_those_of_the_config():
    model, sample = models.make_model("occlusion"), models.make_sample()
    settings = models.config(
        protocol="rise",
        metrics=["faithfulness/deletion_auc", "faithfulness/insertion_auc", "robustness"],
        metric_parameters={"robustness": {"draw_count": 2}, "faithfulness/deletion_auc": {"protocol": "mindspore_xai"}},
    )
    measurement = appraised(Measurer(model, settings), sample, "occlusion")
    _, own, _ = by_hand(model, sample, "occlusion", ["faithfulness/deletion_auc"], protocol="mindspore_xai")
    _, common, _ = by_hand(model, sample, "occlusion", ["faithfulness/insertion_auc"], protocol="rise")
    assert [one.value for one in measurement.scores[:2]] == [one.value for one in (own | common).values()]
    passes = {outcome.metric: outcome.pass_count for outcome in measurement.runs}
    assert passes["robustness"] == 2 * passes["explain"]


# ------------------------------------------------------------------------------------------------ served maps


@pytest.mark.parametrize("seed", [11, 2**63])
def test_a_served_map_is_not_made_again(seed):
    model = models.make_model("rise")
    plain = models.make_sample()
    steps = model.explainers["rise"][0].explain(
        plain.image, np.array([plain.target], np.int32), model.explainers["rise"][1], Context(softmax, seed)
    )
    served = Served(drive(steps, runner(models.Net())).maps[0], MapStatus.OK, seed, 64)
    sample = models.make_sample(served={"rise": served})
    net = models.Net()
    measurement = appraised(Measurer(model, models.config()), sample, "rise", net)
    assert measurement.map.saliency is served.saliency
    assert (measurement.map.seed, measurement.map.pass_count) == (seed, 64)
    explained = measurement.runs[0]
    assert (explained.metric, explained.seconds, explained.pass_count, explained.failure) == ("explain", 0, 0, None)
    _, scores, passes = by_hand(model, sample, "rise", MEASURED, seed, served.saliency)
    assert [Score(one.value, one.status) for one in measurement.scores] == list(scores.values())
    assert {one.metric: one.pass_count for one in measurement.runs[1:]} == passes
    assert sum(rows for _, rows in net.launches) >= sum(passes.values())


@pytest.mark.parametrize(
    "status", [MapStatus.ZERO_GRADIENT, MapStatus.NOT_FINITE, MapStatus.NO_OOD_RANGE, MapStatus.UNRELIABLE]
)
@pytest.mark.parametrize("served", [True, False])
def test_what_must_not_be_believed_is_not_measured(status, served):
    class Flawed(Occlusion):
        def explain(self, image, targets, parameters, context):
            yield from ()
            return Saliency(np.ones((len(targets), 6, 8), np.float32), (status,) * len(targets))

    model = models.make_model("occlusion")
    model.explainers["occlusion"] = (Flawed(), model.explainers["occlusion"][1])
    given = {"occlusion": Served(np.ones((6, 8), np.float32), status, 1, 25)} if served else {}
    net = models.Net()
    measurement = appraised(Measurer(model, models.config()), models.make_sample(served=given), "occlusion", net)
    assert (measurement.map, measurement.scores, net.launches) == (None, [], [])
    assert [(one.metric, one.failure) for one in measurement.runs] == [("explain", status.name.lower())]
    said = measurement.disbelieved
    assert (said.explainer, said.metric, said.target, said.value) == (
        "occlusion",
        "explain",
        measurement.sample.target,
        0,
    )


def test_a_map_of_zeros_is_measured():
    """What comes of it is for the metrics to say."""
    model = models.make_model("occlusion")
    served = Served(np.zeros((6, 8), np.float32), MapStatus.ALL_ZERO, 1, 25)
    measurement = appraised(
        Measurer(model, models.config()), models.make_sample(served={"occlusion": served}), "occlusion"
    )
    assert measurement.map.status is MapStatus.ALL_ZERO
    assert measurement.runs[0].failure is None
    assert [one.metric for one in measurement.scores] == MEASURED
    naive = measurement.scores[0]
    assert naive.value is None
    assert measurement.runs[1].failure == naive.status.name.lower() != "ok"


# ------------------------------------------------------------------------------------------------ who and what


def test_who_is_compared():
    model = models.make_model()
    served = Served(np.ones((6, 8), np.float32), MapStatus.OK, 1, 64)
    sample, asked = models.make_sample(), models.make_sample(served={"rise": served, "gone": served})
    everybody = Measurer(model, models.config())
    assert everybody.explainers(sample) == ["gradient", "occlusion", "rise"]
    listed = Measurer(model, models.config(explainers=["occlusion", "gradient", "gradcam"]))
    assert listed.explainers(sample) == ["occlusion", "gradient"]
    assert listed.explainers(asked) == ["occlusion", "gradient", "rise"]
    assert everybody.explainers(asked) == ["gradient", "occlusion", "rise"]


def test_what_is_too_costly():
    """6 x 8 pixels: a map of gradient takes 1 pass, of occlusion 25, of RISE 64; robustness takes 11 maps."""
    model = models.make_model()
    none, some, more = (
        Measurer(model, models.config(max_passes=most, metrics=["robustness", "class_sensitivity", *LOCATED]))
        for most in (704, 63, 1)
    )
    assert none.too_costly() == []
    assert some.too_costly() == ["occlusion robustness (275 passes)", "rise (64 passes)"]
    assert some.explainers(models.make_sample()) == ["gradient", "occlusion"]
    measurement = appraised(some, models.make_sample(), "occlusion")
    assert list(measurement.planned) == ["explain", "class_sensitivity"]
    assert [one.metric for one in measurement.scores] == ["class_sensitivity"]
    assert more.explainers(models.make_sample()) == ["gradient"]
    assert more.too_costly() == [
        "gradient robustness (11 passes)",
        "gradient class_sensitivity (3 passes)",
        "occlusion (25 passes)",
        "rise (64 passes)",
    ]
    assert list(appraised(more, models.make_sample(), "gradient").planned) == ["explain"]


def test_controls_are_measured_like_explainers_and_last():
    model = replace(models.make_model("gradient"), controls=CONTROLS)
    measurer, sample = Measurer(model, models.config(max_passes=60)), models.make_sample()
    assert measurer.explainers(sample) == ["gradient", *CONTROLS]
    for name in CONTROLS:
        measurement = appraised(measurer, sample, name)
        assert [one.metric for one in measurement.scores] == MEASURED == list(measurement.planned)[1:]
        assert {one.explainer for one in measurement.scores} == {measurement.map.explainer} == {name}
        assert [one.pass_count for one in measurement.runs if one.metric in ("explain", "robustness")] == [0, 0]
        assert measurer.defines(measurement.map)
    record = appraised(measurer, sample, "control/blob").map
    assert [one.value for one in measurer.locate(record, (6, 8), [(3, 2, 5, 4)])] != [None, None]
    assert measurer.explainers(models.make_sample(positives=())) == []


def test_a_map_that_a_caller_paid_for_is_measured_by_what_is_not_too_costly():
    model = models.make_model()
    served = Served(np.random.default_rng(0).random((6, 8), np.float32), MapStatus.OK, 1, 64)
    measurer = Measurer(model, models.config(max_passes=29))  # as deletion and insertion take
    sample = models.make_sample(served={"rise": served})
    assert measurer.explainers(sample) == ["gradient", "occlusion", "rise"]
    assert [one.metric for one in appraised(measurer, sample, "rise").scores] == MEASURED[:3]


def test_metrics():
    measurer = Measurer(models.make_model(), models.config(metrics=["localization/iosr", "robustness"]))
    assert (measurer.metrics, measurer.localization) == (["robustness", "localization/iosr"], ["localization/iosr"])
    assert Measurer(models.make_model(), models.config(metrics=["robustness"])).localization == []


# ------------------------------------------------------------------------------------------------ localization


def test_localization():
    """The map's largest value is at row 1, column 2; above half of it is row 2 as well."""
    saliency = np.zeros((40, 50), np.float32)
    saliency[1, 2], saliency[2, 2:6] = 1, 0.75
    record = MapRecord("rise", 1, {}, 0, MapStatus.OK, saliency, 64)
    model = replace(models.make_model(), facts=ModelFacts(40, 50))
    measurer = Measurer(model, models.config())

    def located(*objects):
        return [(one.metric, one.value, one.status) for one in measurer.locate(record, (40, 50), objects)]

    pointing, iosr = LOCATED
    ok = ScoreStatus.OK
    box = (2.0, 1.0, 4.0, 3.0)  # columns 2 and 3 of rows 1 and 2: 3 of the 5 salient pixels
    assert located(box) == [(pointing, 1.0, ok), (iosr, 0.6, ok)]
    far = np.zeros((40, 50), bool)
    far[39, 49] = True
    assert located(far) == [(pointing, 0.0, ok), (iosr, 0.0, ok)]
    near = np.zeros((40, 50), bool)
    near[1, 4] = True  # 2 pixels from the largest value; of 40 rows, 3 are what 15 are of 224
    assert located(near) == [(pointing, 1.0, ok), (iosr, 0.0, ok)]
    not_near = np.zeros((40, 50), bool)
    not_near[4, 2] = True
    assert located(not_near) == [(pointing, 0.0, ok), (iosr, 0.0, ok)]
    mask = np.zeros((40, 50), bool)
    mask[2, 4:6] = True
    assert located(box, mask) == [(pointing, 1.0, ok), (iosr, 1.0, ok)]
    outside = np.zeros((40, 50), bool)
    assert located(outside) == [(name, None, ScoreStatus.OBJECTS_OUTSIDE) for name in LOCATED]
    one = measurer.locate(record, (40, 50), [box])[0]
    assert (one.explainer, one.target, one.pass_count) == ("rise", 1, 0)


# ------------------------------------------------------------------------------------------------ failing


def test_what_was_found_before_a_failure_is_kept():
    model, sample = models.make_model("occlusion"), models.make_sample()
    _, scores, passes = by_hand(model, sample, "occlusion", MEASURED)
    left = passes["explain"] + passes[MEASURED[0]] + passes[MEASURED[1]]

    def run(kind, rows):
        nonlocal left
        left -= len(rows[0])
        if left < 0:
            raise DeviceError("It fails.")
        return works(kind, rows)

    works = runner(models.Net())
    measurement, steps = Measurer(model, models.config()).begin(sample, "occlusion")
    with pytest.raises(DeviceError):
        drive(steps, run)
    measurement.fail()
    assert [one.value for one in measurement.scores] == [scores[name].value for name in MEASURED[:2]]
    assert measurement.map is not None
    failures = {one.metric: (one.failure, one.pass_count) for one in measurement.runs}
    assert failures == {
        **{name: (None, passes[name]) for name in ("explain", *MEASURED[:2])},
        **dict.fromkeys(MEASURED[2:], ("error", 0)),
    }


def test_a_map_that_fails():
    measurement, steps = Measurer(models.make_model("occlusion"), models.config()).begin(
        models.make_sample(), "occlusion"
    )
    net = models.Net()
    net.broken.add("masked_forward")
    with pytest.raises(RuntimeError, match="broken"):
        drive(steps, runner(net))
    measurement.fail()
    assert (measurement.map, measurement.scores) == (None, [])
    assert [(one.metric, one.failure) for one in measurement.runs] == [
        (name, "error") for name in ("explain", *MEASURED)
    ]


@pytest.mark.parametrize(
    ("value", "status", "failure"),
    [
        (0.5, ScoreStatus.OK, None),
        (None, ScoreStatus.MAP_ZERO, "map_zero"),
        (None, ScoreStatus.NO_OBJECTS, "no_objects"),
    ],
)
def test_how_a_measurement_went(value, status, failure):
    outcome = run_of(ScoreRecord("rise", "robustness", 1, value, status, 5.0, 0.25, 12))
    assert (outcome.metric, outcome.seconds, outcome.pass_count, outcome.failure) == ("robustness", 0.25, 12, failure)


def test_seeds_of_samples():
    """The first four bytes of BLAKE2b of that length, as `printf a:0 | b2sum -l 32` has them."""
    assert (SampleKey("a", 0).seed, SampleKey("a", 1).seed) == (0x67143B9F, 0x448A9A4F)
