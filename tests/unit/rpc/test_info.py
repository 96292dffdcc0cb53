"""The description of the model."""

import math
from dataclasses import replace

import pytest
from toys import only

from xai_proto import explanation_pb2 as pb
from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.engine.backend import OodTraining
from xai_sidecar.errors import ConfigError, PreconditionError
from xai_sidecar.evaluator.comparison import Advantage, Skill, Verdict
from xai_sidecar.evaluator.confusion import Accuracy, Counts
from xai_sidecar.evaluator.live_quality import QualitySummary, State
from xai_sidecar.evaluator.quality_table import QualityRow, QualityTable
from xai_sidecar.evaluator.weighted import ScoreStatistics
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.rpc import info as rpc_info
from xai_sidecar.serving.description import confidence_half_width, describe
from xai_sidecar.serving.model import WeightDependence
from xai_sidecar.telemetry import DriftFigure


def model_info(*described):
    return rpc_info.model_info(describe(*described))


def test_the_version_tells_apart_what_gives_other_answers(make_model):
    assert make_model().version == make_model().version
    for change in (
        "model.activation=sigmoid",
        "model.input.mean=0.5",
        "model.input.interpolation=nearest",
        'model.labels=["a","b","d","c"]',
    ):
        assert make_model(change).version != make_model().version
    assert make_model("server.max_images=3").version == make_model().version


@pytest.fixture
def nothing(make_quality):
    """How good explanations are where nothing is sampled."""
    return make_quality().summary()


def test_model_info(make_model, nothing):
    model = make_model("explainers.gradient.enabled=false", "model.activation=sigmoid")
    info = model_info(model, 1_700_000_000.5, nothing)
    assert (info.version, info.device, info.engine) == (model.version, "cpu", "none 1.0")
    assert info.activation == pb.ACTIVATION_SIGMOID
    assert (info.input.height, info.input.width) == (6, 8)
    assert info.ready_time.ToMilliseconds() == 1_700_000_000_500
    assert (info.limits.max_pass_count, info.limits.max_call_duration.ToMilliseconds()) == (200_000, 3_600_000)
    assert [(one.batch_size, one.duration.ToMilliseconds()) for one in info.batches] == [(1, 10), (4, 20)]
    explainers = {one.name: one for one in info.explainers}
    assert list(explainers) == list(installed_explainers())
    gradient, gradcam = explainers["gradient"], explainers["gradcam"]
    assert (gradient.available, gradient.HasField("cost")) == (False, False)
    assert (gradcam.available, gradcam.cost.duration.ToMilliseconds()) == (True, 30)
    layer = {one.name: one for one in gradcam.parameters}["layer"]
    assert (layer.default_value.string_value, list(layer.choices)) == ("late", ["late"])
    rise = {one.name: one for one in explainers["rise"].parameters}
    assert (rise["masks"].default_value.number_value, rise["masks"].minimum) == (1000, 16)
    assert rise["masks"].type == rise["grid_size"].type == pb.PARAMETER_TYPE_INTEGER
    assert (rise["grid_size"].default_value.number_value, rise["grid_size"].maximum) == (6, 6)
    assert (rise["tolerance"].default_value.number_value, rise["tolerance"].maximum) == (0, 0.5)
    assert list(rise["estimator"].choices) == ["regression", "plain"]
    assert explainers["rise"].cost.pass_count == 1000
    assert not explainers["rise_plus"].available
    assert explainers["occlusion"].cost.pass_count == 1 + 4 * 6  # windows of 3 x 3 on 6 x 8, and the whole
    assert not info.HasField("ood")
    assert not info.HasField("evaluator")
    assert not any(one.quality or one.HasField("composite_score") for one in info.explainers)


@pytest.mark.parametrize(
    ("override", "colour"),
    [
        ("model.input.mean=0", (0.485, 0.456, 0.406)),  # whatever the mean is
        ("model.input.mean_colour=0.25", (0.25, 0.25, 0.25)),
        ("model.input.mean_colour=[0, 0.5, 1]", (0, 0.5, 1)),
    ],
)
def test_the_colour_that_covers_pictures_is_told_for_each_channel(make_model, nothing, override, colour):
    assert model_info(make_model(override), 0, nothing).input.mean_colour == pytest.approx(colour)


def test_model_info_with_an_ood_net(make_model, nothing):
    model = make_model(ood=OodTraining(100, 1_700_000_000.5, {"noise": 0.9}))
    info = model_info(model, 0, nothing)
    assert info.ood.training_sample_count == 100
    assert info.ood.training_time.ToMilliseconds() == 1_700_000_000_500
    assert dict(info.ood.auroc) == {"noise": 0.9}
    assert {one.name: one for one in info.explainers}["rise_plus"].available


def test_layers_that_may_be_asked_for(make_model, nothing):
    def choices(*overrides):
        info = model_info(make_model(*overrides), 0, nothing)
        (gradcam,) = (one for one in info.explainers if one.name == "gradcam")
        return list({one.name: one for one in gradcam.parameters}["layer"].choices)

    assert choices() == ["late"]
    assert choices("explainers.gradcam.layers=['early']") == ["late", "early"]
    assert choices("explainers.gradcam.compile_on_demand=true") == ["early", "late"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), {"early": (False, False, False), "late": (True, True, True)}),
        (("explainers.gradcam.layers=['early']",), {"early": (True, True, False), "late": (True, True, True)}),
        (("explainers.gradcam.layer=early",), {"early": (True, True, True), "late": (False, False, False)}),
        (("explainers.gradcam.compile_on_demand=true",), {"early": (True, False, False), "late": (True, True, True)}),
        (("explainers.gradcam.enabled=false",), {"early": (False,) * 3, "late": (False,) * 3}),
    ],
)
def test_all_layers_are_listed_with_what_requests_may_do(make_model, nothing, overrides, expected):
    layers = model_info(make_model(*only("gradcam"), *overrides), 0, nothing).layers
    assert {one.name: (one.available, one.compiled, one.is_default) for one in layers} == expected
    assert [(one.channels, one.height, one.width) for one in layers] == [(2, 3, 4)] * 2


def test_no_layer_can_be_asked_for_where_grad_cam_failed(make_model, nothing):
    model = make_model(*only("gradcam"), "explainers.gradcam.compile_on_demand=true")
    failed = {model.explainers["gradcam"].kinds[0]: "It does not compile."}
    layers = model_info(model.without(failed), 0, nothing).layers
    assert [(one.name, one.available, one.is_default) for one in layers] == [
        ("early", False, False),
        ("late", False, False),
    ]


# ------------------------------------------------------------------------------------------------ the evaluator


def test_the_evaluator(make_model):
    deletion = ScoreStatistics(0.25, 0.05, 40, 1_700_000_001.25)
    single = ScoreStatistics(-0.5, None, 1, 1_700_000_002.5)
    rows = (
        QualityRow("gradcam", "faithfulness/deletion_auc", deletion, False, 0.75, 0.05),
        QualityRow("gradcam", "faithfulness/naive", single, True, 0.25, None),
    )
    summary = QualitySummary(
        State.NO_TRAFFIC, "It is old.", 1_700_000_000.5, 41, QualityTable(rows), {"gradcam": 0.75, "rise": None}
    )
    metrics = ["faithfulness/deletion_auc", "faithfulness/naive"]
    model = make_model("evaluator.sample_rate=0.25", f"evaluator.metrics={metrics}", "evaluator.window_seconds=3600")
    info = model_info(model, 0, summary)
    told = info.evaluator
    assert (told.sample_rate, told.state) == (0.25, pb.EVALUATOR_STATE_NO_TRAFFIC)
    assert (told.note, told.window_sample_count, told.window.seconds) == ("It is old.", 41, 3600)
    assert told.last_sample_time.ToMilliseconds() == 1_700_000_000_500
    assert [(one.name, one.higher_is_better, one.minimum, one.maximum) for one in told.metrics] == [
        ("faithfulness/deletion_auc", False, 0, 1),
        ("faithfulness/naive", True, -1, 1),
    ]
    assert all(one.description for one in told.metrics)
    explainers = {one.name: one for one in info.explainers}
    one, other = explainers["gradcam"].quality
    assert (one.metric, one.mean, one.sample_count, one.higher_is_better) == (metrics[0], 0.25, 40, False)
    assert one.goodness == 0.75
    assert one.update_time.ToNanoseconds() == pytest.approx(1_700_000_001_250_000_000, abs=1000, rel=0)
    assert one.confidence_half_width == pytest.approx(2.0227 * 0.05, rel=1e-3)
    assert (other.metric, other.mean, other.sample_count, other.higher_is_better) == (metrics[1], -0.5, 1, True)
    assert math.isnan(other.confidence_half_width)
    assert explainers["gradcam"].composite_score == 0.75
    assert not explainers["rise"].HasField("composite_score")
    assert not explainers["rise"].quality


def test_controls_and_how_explainers_compare_with_them(make_model):
    mean = ScoreStatistics(0.5, 0.25, 20, 1_700_000_001.25)
    hits = ScoreStatistics(1.0, 0.0, 20, 1_700_000_001.25)
    rows = (
        QualityRow("rise", "faithfulness/srg", mean, True, 0.75, 0.125, Skill("control/blob", 0.5, 0.125)),
        QualityRow("rise", "localization/pointing_game", hits, True, 1.0, 0.0),
        QualityRow("control/blob", "faithfulness/srg", mean, True, 0.75, 0.125),
    )
    veto = Advantage("control/random", -0.25, 0.125)
    verdicts = {
        "rise": Verdict(Advantage("control/blob", 0.25, 0.125)),
        "gradcam": Verdict(Advantage("control/blob", 0.25, 0.125), "robustness", veto),
    }
    summary = QualitySummary(
        State.UP_TO_DATE,
        "",
        None,
        20,
        QualityTable(rows),
        {"rise": 0.75, "control/blob": 0.625},
        None,
        verdicts,
        {"control/blob": "A blob.", "control/edges": "Edges."},
    )
    info = model_info(make_model("evaluator.sample_rate=1"), 0, summary)
    blob, edges = info.evaluator.controls
    assert (blob.name, blob.description, blob.composite_score) == ("control/blob", "A blob.", 0.625)
    assert [(one.metric, one.HasField("skill")) for one in blob.quality] == [("faithfulness/srg", False)]
    assert (edges.name, list(edges.quality), edges.HasField("composite_score")) == ("control/edges", [], False)
    explainers = {one.name: one for one in info.explainers}
    assert "control/blob" not in explainers
    srg, pointing = explainers["rise"].quality
    assert srg.skill == pb.Skill(control="control/blob", value=0.5, confidence_half_width=0.125)
    assert (srg.interval_low, srg.interval_high) == (pytest.approx(0.5 - 2.093 * 0.25, rel=1e-3), 1)
    assert (pointing.interval_low, pointing.interval_high) == (pytest.approx(0.8389, rel=1e-3), 1)
    assert not pointing.HasField("skill")
    advantage = pb.Advantage(over="control/blob", mean=0.25, confidence_half_width=0.125)
    assert explainers["rise"].standing == pb.Standing(eligible=True, advantage=advantage)
    assert explainers["gradcam"].standing == pb.Standing(
        advantage=advantage, objection="is worse than control/random by robustness (0.250 ± 0.125)"
    )
    assert not explainers["occlusion"].HasField("standing")


def test_what_weights_and_time_do_to_maps(make_model, nothing):
    model = replace(make_model(), weight_dependence={"gradcam": WeightDependence(-0.5, 0.25, 4)})
    drift = [
        DriftFigure("requests", "rise", "border", "", 0.125, 0.5, 1.5),
        DriftFigure("samples", "rise", "agreement/gradcam", "a", 0.5, 0.25, 1.0),
    ]
    explainers = {one.name: one for one in model_info(model, 0, nothing, None, drift).explainers}
    assert explainers["gradcam"].weight_dependence == pb.WeightDependence(
        entropy_rise=-0.5, correlation=0.25, picture_count=4
    )
    assert not explainers["rise"].HasField("weight_dependence")
    assert list(explainers["rise"].drift) == [
        pb.MapDrift(statistic="border", source="requests", reference_mean=0.125, current_mean=0.5, ratio=1.5),
        pb.MapDrift(
            statistic="agreement/gradcam",
            source="samples",
            class_label="a",
            reference_mean=0.5,
            current_mean=0.25,
            ratio=1.0,
        ),
    ]
    assert not explainers["gradcam"].drift


def test_accuracy(make_model):
    model = make_model("evaluator.sample_rate=1")
    weighted = Counts(1.5, 0.5, 0.0, 1.0), Counts(0.5, 0.0, 1.5, 2.0)
    known = Accuracy(4, 0.75, ((3, Counts(2, 1, 0, 1)), (1, Counts(1, 0, 1, 2))), weighted)
    summary = QualitySummary(State.UP_TO_DATE, "", None, 0, QualityTable(()), {}, known)
    told = model_info(model, 0, summary).evaluator.accuracy
    assert (told.picture_count, told.share) == (4, 0.75)
    assert list(told.classes) == [
        pb.ClassConfusion(
            class_id=3, label="d", true_positives=2, false_positives=1, true_negatives=1, precision=0.75, recall=1
        ),
        pb.ClassConfusion(
            class_id=1, label="b", true_positives=1, false_negatives=1, true_negatives=2, precision=1, recall=0.25
        ),
    ]
    nothing = QualitySummary(State.UP_TO_DATE, "", None, 0, QualityTable(()), {})
    assert not model_info(model, 0, nothing).evaluator.HasField("accuracy")


@pytest.mark.parametrize("state", [State.UP_TO_DATE, State.WORKING])
def test_before_the_first_sample(make_model, state):
    summary = QualitySummary(state, "", None, 0, QualityTable(), {})
    told = model_info(make_model("evaluator.sample_rate=1"), 0, summary).evaluator
    assert pb.EvaluatorState.Name(told.state) == f"EVALUATOR_STATE_{state.name}"
    assert (told.HasField("last_sample_time"), told.note, told.window_sample_count) == (False, "", 0)
    assert [one.name for one in told.metrics] == EvaluatorConfig().metrics


@pytest.mark.parametrize(
    ("error", "count", "expected"),
    [
        (1.0, 2, 12.706),  # Student's t, 97.5 %, of 1 degree of freedom
        (0.5, 5, 0.5 * 2.776),
        (1.0, 11, 2.228),
        (1.0, 12, 2.201),
        (1.0, 31, 2.042),
        (1.0, 121, 1.980),
        (0.1, 100_000, 0.196),
        (0.0, 500, 0.0),
    ],
)
def test_the_interval_is_students(error, count, expected):
    assert confidence_half_width(error, count) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("error", "count"), [(None, 1), (0.0, 2), (0.0, 19)])
def test_too_few_samples_have_no_interval(error, count):
    assert math.isnan(confidence_half_width(error, count))


def test_a_layer_whose_place_cannot_be_told_is_refused_by_name(make_model):
    backend = make_model().backend
    backend.refused_layers = {"mixed": "Where the tokens of the layer 'mixed' lie cannot be told."}
    model = make_model(backend=backend)
    gradcam = model.explainers["gradcam"]
    wanted = gradcam.configured.model_copy(update={"layer": "mixed"})
    with pytest.raises(PreconditionError, match="the layer 'mixed' lie cannot be told") as caught:
        gradcam.explainer.resolve(wanted, model.facts)
    assert caught.value.field == "layer"
    with pytest.raises(ConfigError, match="'mixed'") as refused:
        make_model("explainers.gradcam.layer=mixed", backend=backend)
    assert refused.value.field == "explainers.gradcam.layer"
